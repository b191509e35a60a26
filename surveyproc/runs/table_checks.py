"""Checks of the files of a run, one line for each kind of damage."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.hats import COMMON_METADATA, CREATION_DATE, PARTITION_INFO, PROPERTIES
from surveyproc.runs.accounts import NOTHING, Check, Count, some
from surveyproc.runs.files import READERS, Stated, inspect, stated_file
from surveyproc.runs.manifest import columns_of, hats_files
from surveyproc.storage import Storage
from surveyproc.threads import map_ahead

FINE = {
    "present": "every file is there with its size",
    "digest": "every digest is right",
    "rows": "every file has its rows",
    "ids": "every id sum is right",
    "schema": "every file has the columns",
    "pixel": "every row is in its pixel",
}
FREE_PROPERTIES = {CREATION_DATE, "obs_collection", "surveyproc_run"}  # a run may be renamed


def file_checks(
    storage: Storage, name: str, files: Iterable[Stated], kinds: tuple[str, ...], advice: str = ""
) -> Generator[Check, None, Count | None]:
    """Check files for each of ``kinds``, named by the keys of `FINE`; ``advice`` ends a line that fails.

    Returns
    -------
    Count or None
        Rows and ids in all of them; None when a file could not be read.
    """
    count: Count | None = NOTHING
    problems: dict[str, list[str]] = {kind: [] for kind in kinds}
    for found in map_ahead(partial(inspect, storage), files, READERS):
        count = None if count is None or found.count is None else count.plus(*found.count)
        for kind, why in found.problems.items():
            problems.setdefault(kind, []).append(why)
    for kind, wrong in problems.items():
        yield Check(f"{name}: {kind}", not wrong, some(wrong) + advice if wrong else FINE[kind])
    return count


def table_checks(
    storage: Storage, name: str, entry: dict[str, Any], columns: dict[str, str] | None
) -> Generator[Check, None, Count | None]:
    """Check the files of a table against its entry in the manifest; returns what `file_checks` does."""
    kinds: tuple[str, ...] = ("present", "digest", "rows", "ids")
    kinds += ("schema",) if columns else ()
    kinds += ("pixel",) if entry["layout"] == "hats" else ()
    return (yield from file_checks(storage, name, [stated_file(f, columns) for f in entry["files"]], kinds))


def index_checks(storage: Storage, index: dict[str, Any], table: Count | None) -> Iterator[Check]:
    """Check the files of the index, and that it holds a vector for each id of its table.

    Parameters
    ----------
    storage : Storage
    index : dict
        Its entry in the manifest.
    table : Count or None
        Rows and ids of the table it was made of; None when that could not be read.
    """
    files = [stated_file(file) for file in index["files"]]
    vectors = yield from file_checks(storage, "index vectors", files[::2], ("present", "digest", "rows"))
    ids = yield from file_checks(storage, "index ids", files[1::2], ("present", "digest", "rows", "ids"))
    if vectors is None or ids is None or table is None:
        yield Check("index: accounts", False, UNCOUNTED)
        return
    paired = all(one.part.rows == other.part.rows for one, other in zip(files[::2], files[1::2], strict=True))
    whole = vectors.rows == table.rows == index["rows"] and ids == table and paired
    yield Check("index: accounts", whole, f"{vectors.rows} vectors, {ids.rows} ids, {table.rows} embeddings")


UNCOUNTED = "cannot be counted: a file is missing or damaged"


def hats_problems(storage: Storage, name: str, entry: dict[str, Any]) -> list[str]:
    """Say what is wrong with the HATS metadata of a table."""
    missing = [
        f for f in (COMMON_METADATA, PARTITION_INFO, PROPERTIES) if storage.size(f"{name}/{f}") is None
    ]
    if missing:
        return [f"{name}/{file} is missing" for file in missing]
    try:
        schema = pq.read_schema(io.BytesIO(storage.read(f"{name}/{COMMON_METADATA}")))
    except (pa.ArrowException, OSError) as error:
        return [f"{name}/{COMMON_METADATA} cannot be read ({error})"]
    if columns_of(schema) != entry["columns"]:
        return [f"{name}/{COMMON_METADATA} has other columns"]
    expected = hats_files(storage, name, entry, schema)
    problems = []
    if storage.read(f"{name}/{PARTITION_INFO}") != expected[PARTITION_INFO]:
        problems.append(f"{name}/{PARTITION_INFO} does not list exactly the leaves")
    stored, made = _properties(storage.read(f"{name}/{PROPERTIES}")), _properties(expected[PROPERTIES])
    for key in sorted(stored.keys() | made.keys()):
        if stored.get(key) != made.get(key) and key not in FREE_PROPERTIES:
            problems.append(f"{name}/{PROPERTIES}: {key} is {stored.get(key)!r}, not {made.get(key)!r}")
    return problems


def _properties(data: bytes) -> dict[str, str]:
    pairs = (line.partition("=") for line in data.decode(errors="replace").splitlines())
    return {key: value for key, _, value in pairs}
