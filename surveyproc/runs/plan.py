"""The plan: the ordered list of row ranges that a run works through."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
        ("version", pa.string()),
        ("group_start", pa.int32()),
        ("group_stop", pa.int32()),
        ("rows", pa.int64()),
        ("first_row", pa.int64()),
    ]
)
SHARDS_PER_ACTOR = 4
MAX_SHARD_ROWS = 65_536
CHUNK_SHARDS = 65_536
MOST_NAMED = 20


@dataclass(frozen=True)
class Shard:
    """Whole row groups ``[group_start, group_stop)`` of one file: the unit of work, retry and commit.

    ``size`` and ``version`` pin the file; ``first_row`` counts rows in plan order.
    """

    shard: int
    file: str
    size: int
    version: str
    group_start: int
    group_stop: int
    rows: int
    first_row: int

    @property
    def unit(self) -> str:
        """Name of the shard in the ledger."""
        return unit_name(self.shard)


def unit_name(shard: int) -> str:
    """Name of a shard in the ledger."""
    return f"shard-{shard:07d}"


class Plan(Sequence[Shard]):
    """The shards of a run in order, kept as columns: about 50 bytes each, some 400 as objects.

    Parameters
    ----------
    table : pyarrow.Table
        Of the schema `SCHEMA`.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @cached_property
    def rows(self) -> int:
        """Rows of all shards."""
        return pc.sum(self._table["rows"]).as_py() or 0

    def __len__(self) -> int:
        return self._table.num_rows

    def __iter__(self) -> Iterator[Shard]:
        for batch in self._table.to_batches(max_chunksize=4096):
            yield from (Shard(**row) for row in batch.to_pylist())

    @overload
    def __getitem__(self, index: int) -> Shard: ...
    @overload
    def __getitem__(self, index: slice) -> Plan: ...
    def __getitem__(self, index: int | slice) -> Shard | Plan:
        if isinstance(index, slice):
            start, stop, stride = index.indices(len(self))
            if stride != 1:
                raise ValueError("a plan is cut into consecutive shards only")
            return Plan(self._table.slice(start, max(0, stop - start)))
        return Shard(**self._table.slice(range(len(self))[index], 1).to_pylist()[0])

    def split(self, units: Collection[str]) -> tuple[Plan, Plan]:
        """Part the shards into those whose unit is among ``units`` and the others, both in order."""
        numbers = self._table["shard"].to_numpy()
        named = np.fromiter((unit_name(n) in units for n in numbers), dtype=bool, count=len(self))
        return Plan(self._table.filter(pa.array(named))), Plan(self._table.filter(pa.array(~named)))


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
                yield Shard(number, file.path, file.size, file.version, start, position + 1, rows, first)
                number, first, start, rows = number + 1, first + rows, position + 1, 0


def store_plan(storage: Storage, shards: Iterable[Shard]) -> None:
    """Write the plan create-only; a plan that is already there stays.

    The file is made in memory: about 15 bytes for each shard.
    """
    sink = io.BytesIO()
    shards = iter(shards)
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        while chunk := [vars(shard) for shard in islice(shards, CHUNK_SHARDS)]:
            writer.write_table(pa.Table.from_pylist(chunk, schema=SCHEMA))
    storage.create(PLAN, sink.getvalue())


def load_plan(storage: Storage) -> Plan:
    """Read the plan of a run.

    Raises
    ------
    InputError
        When the folder has none.
    """
    try:
        return Plan(pq.read_table(io.BytesIO(storage.read(PLAN)), read_dictionary=["file", "version"]))
    except FileNotFoundError as error:
        raise InputError("there is no plan here", where=storage.uri, fix="give a run folder") from error


def input_digest(catalog: Catalog) -> str:
    """Digest of the names, sizes and times of the input files."""
    digest = hashlib.sha256()
    for file in catalog.files:
        digest.update(json.dumps([file.path, file.size, file.version, file.rows]).encode())
    return digest.hexdigest()


def changed_files(catalog: Catalog, planned: Iterable[Shard]) -> list[str]:
    """Say which input files differ from the planned ones, one line each, at most `MOST_NAMED` and a count."""
    left = {s.file: (s.size, s.version) for s in planned}
    new, again = [], []
    for file in catalog.files:
        if file.rows:
            before = left.pop(file.path, None)
            if before is None:
                new.append(f"{file.path} is new")
            elif before != (file.size, file.version):
                again.append(f"{file.path} was written again")
    lines = [*(f"{name} is gone" for name in sorted(left)), *new, *again]
    more = len(lines) - MOST_NAMED
    return lines if more <= 0 else [*lines[:MOST_NAMED], f"and {more:,} more files"]
