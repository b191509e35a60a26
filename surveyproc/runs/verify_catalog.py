"""Verify what is no run: catalogs and published folders of ours, and HATS catalogs and collections of anybody."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.hats import is_hats, open_hats
from surveyproc.catalog.hats.checks import catalog_problems
from surveyproc.catalog.hats.layout import STANDARD_LEAF
from surveyproc.catalog.storage import is_data_file
from surveyproc.errors import InputError
from surveyproc.runs.accounts import Check, some
from surveyproc.runs.checksums import CHECKSUMS, checksum_checks
from surveyproc.runs.files import READERS
from surveyproc.runs.making import Making
from surveyproc.runs.unfinished import is_unfinished, unfinished_checks
from surveyproc.storage import Storage
from surveyproc.threads import map_ahead

REJECTS_FILE = "rejects.parquet"


def verify_catalog(uri: str, leaf: str = STANDARD_LEAF) -> Iterator[Check]:
    """Read a catalog or a published folder back and check it.

    Parameters
    ----------
    uri : str
    leaf : str
        Path of a leaf of a HATS catalog, where it is not that of the standard; see `open_hats`.

    Yields
    ------
    Check
        Where there are ``checksums.sha256``, that the files are those, with these digests; for each HATS catalog
        of a collection that every row is in its pixel, every leaf listed, and the number of rows the stated
        one; of ingested and repacked catalogs that rows in = rows out + rejects. Of an unfinished catalog what is committed, and, as a
        check that fails, the command that resumes.

    Raises
    ------
    InputError
        When there is nothing to check at ``uri``.
    """
    if is_unfinished(uri):
        yield from unfinished_checks(uri)
        return
    making = Making(uri)
    about, hats = making.finished(), is_hats(uri)
    if about is None and not hats and making.catalog.size(CHECKSUMS) is None:
        raise InputError(
            "this is neither a run nor a catalog of ours nor a HATS catalog",
            where=uri,
            fix="give the --output of run, ingest, repack or publish, or the folder of a HATS catalog",
        )
    yield from checksum_checks(making.catalog)
    if hats:
        catalog = open_hats(uri, leaf)
        yield _catalog(catalog.uri, leaf)
        for member in (*catalog.margins.values(), *catalog.indexes.values(), *catalog.extensions.values()):
            yield _catalog(member, leaf)
    if about is not None and "rows_out" in about:
        yield _accounts(making.catalog, about)


def _catalog(uri: str, leaf: str) -> Check:
    try:
        catalog = open_hats(uri, leaf)
        problems = list(catalog_problems(catalog))
    except InputError as error:
        return Check(uri.rsplit("/", 1)[-1], False, f"{error.what} ({error.where})")
    says = f"{catalog.rows} rows of {len(catalog.partitions)} partitions, every row where it belongs"
    return Check(f"{catalog.name}: hats", not problems, some(problems) or says)


def _accounts(storage: Storage, about: dict[str, Any]) -> Check:
    names = [name for name in storage.walk() if is_data_file(name) and name != REJECTS_FILE]
    try:
        rows, rejects = (sum(map_ahead(partial(_rows, storage), n, READERS)) for n in (names, [REJECTS_FILE]))
    except (pa.ArrowException, OSError) as error:
        return Check("accounts", False, f"a file cannot be read ({str(error).splitlines()[0]})")
    came_in = about["rows_in"] + about.get("images_without_row", 0)
    passed = (rows, rejects, came_in) == (about["rows_out"], sum(about["rejects"].values()), rows + rejects)
    return Check("accounts", passed, f"{rows} rows + {rejects} rejects of {came_in} that came in")


def _rows(storage: Storage, name: str) -> int:
    with storage.open(name) as file:
        return int(pq.read_metadata(file).num_rows)
