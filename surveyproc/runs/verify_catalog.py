"""Verify what is no run: HATS catalogs and collections, anybody's, and what `publish` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from surveyproc.catalog.hats import is_hats, open_hats
from surveyproc.catalog.hats.checks import catalog_problems
from surveyproc.errors import InputError
from surveyproc.runs.accounts import Check, some
from surveyproc.runs.files import READERS, damage
from surveyproc.runs.ledger import Part
from surveyproc.runs.making import Making
from surveyproc.storage import Storage
from surveyproc.threads import map_ahead


def verify_catalog(uri: str) -> Iterator[Check]:
    """Read a HATS catalog or collection, or a published folder, back and check it.

    Yields
    ------
    Check
        For each published table the digests of its files; for each catalog of a collection that every row is
        in its pixel, every leaf listed, and the number of rows the stated one.

    Raises
    ------
    InputError
        When there is neither at ``uri``.
    """
    about = Making(uri).finished() or {}
    published = about.get("verb") == "publish"
    hats = is_hats(uri)
    if not published and not hats:
        raise InputError(
            "this is neither a run nor a HATS catalog nor a published folder",
            where=uri,
            fix="give the --output of run or publish, or the folder of a HATS catalog",
        )
    if published:
        for name, table in about["tables"].items():
            yield _digests(Storage(uri), name, table["files"])
    if hats:
        catalog = open_hats(uri)
        yield _catalog(catalog.uri)
        for member in (*catalog.margins.values(), *catalog.indexes.values(), *catalog.extensions.values()):
            yield _catalog(member)


def _digests(storage: Storage, name: str, files: list[dict[str, Any]]) -> Check:
    parts = [Part(f["path"], f["rows"], f["bytes"], f["sha256"], 0) for f in files]
    found = map_ahead(partial(_damage, storage), parts, READERS)
    problems = [why for one in found for why in one.values()]
    return Check(f"{name}: files", not problems, some(problems) or f"{len(parts)} files have their digests")


def _damage(storage: Storage, part: Part) -> dict[str, str]:
    return damage(storage, part.path, part)


def _catalog(uri: str) -> Check:
    try:
        catalog = open_hats(uri)
        problems = list(catalog_problems(catalog))
    except InputError as error:
        return Check(uri.rsplit("/", 1)[-1], False, f"{error.what} ({error.where})")
    says = f"{catalog.rows} rows of {len(catalog.partitions)} partitions, every row where it belongs"
    return Check(f"{catalog.name}: hats", not problems, some(problems) or says)
