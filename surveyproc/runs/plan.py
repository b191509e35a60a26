"""The plan: the ordered list of row ranges that a run works through."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog import Catalog
from surveyproc.errors import InputError
from surveyproc.storage import Storage

PLAN = "_plan.parquet"
SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("file", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("group_start", pa.int32()),
        ("group_stop", pa.int32()),
        ("rows", pa.int64()),
        ("first_row", pa.int64()),
    ]
)
SHARDS_PER_ACTOR = 4
MAX_SHARD_ROWS = 65_536


@dataclass(frozen=True)
class Shard:
    """Whole row groups ``[group_start, group_stop)`` of one file: the unit of work, retry and commit.

    ``size`` and ``mtime_ns`` pin the file; ``first_row`` counts rows in plan order.
    """

    shard: int
    file: str
    size: int
    mtime_ns: int
    group_start: int
    group_stop: int
    rows: int
    first_row: int

    @property
    def unit(self) -> str:
        """Name of the shard in the ledger."""
        return f"shard-{self.shard:07d}"


def shard_rows(catalog: Catalog, ms_per_cutout: float, shard_seconds: float, actors: int) -> int:
    """Rows of a shard: about ``shard_seconds`` of one actor's work, but several shards for every actor."""
    by_cost = max(1, int(shard_seconds * 1000 / max(ms_per_cutout, 1e-3)))
    by_share = -(-catalog.rows // (actors * SHARDS_PER_ACTOR))
    return min(by_cost, by_share, MAX_SHARD_ROWS)


def cut_shards(catalog: Catalog, target_rows: int) -> Iterator[Shard]:
    """Cut the catalog's files into shards of whole row groups, in file order, never across files.

    Parameters
    ----------
    catalog : Catalog
    target_rows : int
        A shard ends with the row group that reaches this many rows.
    """
    number, first = 0, 0
    for file in catalog.files:
        start, rows = 0, 0
        for position, group in enumerate(file.row_groups):
            rows += group.rows
            last = position + 1 == len(file.row_groups)
            if rows and (rows >= target_rows or last):
                yield Shard(number, file.path, file.size, file.mtime_ns, start, position + 1, rows, first)
                number, first, start, rows = number + 1, first + rows, position + 1, 0


def store_plan(storage: Storage, shards: Iterator[Shard]) -> None:
    """Write the plan create-only; a plan that is already there stays."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        for batch in _chunks(shards, 100_000):
            writer.write_table(pa.Table.from_pylist([asdict(s) for s in batch], schema=SCHEMA))
    storage.create(PLAN, sink.getvalue())


def load_plan(storage: Storage) -> list[Shard]:
    """Read the plan of a run.

    Raises
    ------
    InputError
        When the folder has none.
    """
    try:
        table = pq.read_table(io.BytesIO(storage.read(PLAN)))
    except FileNotFoundError as error:
        raise InputError("there is no plan here", where=storage.uri, fix="give a run folder") from error
    return [Shard(**row) for row in table.to_pylist()]


def input_digest(catalog: Catalog) -> str:
    """Digest of the names, sizes and times of the input files."""
    digest = hashlib.sha256()
    for file in catalog.files:
        digest.update(json.dumps([file.path, file.size, file.mtime_ns, file.rows]).encode())
    return digest.hexdigest()


def changed_files(catalog: Catalog, planned: list[Shard]) -> list[str]:
    """Say which input files differ from the planned ones, one line each."""
    then = {s.file: (s.size, s.mtime_ns) for s in planned}
    now = {f.path: (f.size, f.mtime_ns) for f in catalog.files if f.rows}
    lines = [f"{name} is gone" for name in sorted(then.keys() - now.keys())]
    lines += [f"{name} is new" for name in sorted(now.keys() - then.keys())]
    lines += [
        f"{name} was written again" for name in sorted(then.keys() & now.keys()) if then[name] != now[name]
    ]
    return lines


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
