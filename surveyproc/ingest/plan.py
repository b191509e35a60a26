"""The plan of an ingest: which rows of the sorted sources are cut together, and what is merged."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.ingest.partitions import Partitions
from surveyproc.ingest.sorting import TILE
from surveyproc.storage import Storage

PLAN, PARTITIONS = "_plan.parquet", "_partitions.parquet"
SCHEMA = pa.schema([("unit", pa.int32()), ("tile", pa.int32()), ("chunk", pa.int32())])
SCHEMA = pa.schema([*SCHEMA, ("start", pa.int64()), ("stop", pa.int64())])


def chunk_name(number: int) -> str:
    """Name in the ledger of a chunk of the table of sources."""
    return f"sources-{number:07d}"


@dataclass(frozen=True)
class CutUnit:
    """Sources of one tile that are cut together: the unit of work, retry and commit.

    Attributes
    ----------
    number, tile : int
    slices : list of (int, int, int)
        Chunk, first row and one past the last in its sorted sources.
    """

    number: int
    tile: int
    slices: list[list[int]]

    @property
    def unit(self) -> str:
        """Name in the ledger."""
        return f"cut-{self.number:07d}"

    @property
    def rows(self) -> int:
        """Sources of the unit."""
        return sum(stop - start for _, start, stop in self.slices)


@dataclass(frozen=True)
class MergeUnit:
    """A HEALPix pixel that several units feed.

    Attributes
    ----------
    order, pixel : int
    parts : list of str
        Committed parts, in the order of the plan.
    """

    order: int
    pixel: int
    parts: list[str]

    @property
    def unit(self) -> str:
        """Name in the ledger."""
        return f"merge-{self.order}-{self.pixel}"


def slices_of(chunk: int, tiles: np.ndarray) -> np.ndarray:
    """Rows (tile, chunk, start, stop) of the runs of equal tiles in a sorted column."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(tiles)) + 1]) if len(tiles) else np.empty(0, int)
    stops = np.append(starts[1:], len(tiles))[: len(starts)]
    return np.column_stack([tiles[starts], np.full(len(starts), chunk), starts, stops]).astype(np.int64)


def cut_units(slices: Iterable[np.ndarray], most: int) -> pa.Table:
    """Group the slices of each tile into units of at most ``most`` rows.

    Parameters
    ----------
    slices : iterable of ndarray
        Of `slices_of`, chunk by chunk.
    most : int

    Returns
    -------
    pyarrow.Table
        Of `SCHEMA`: one row for each slice, sorted by unit; units go by tile.
    """
    whole = np.concatenate([np.empty((0, 4), np.int64), *slices])
    whole = whole[np.lexsort((whole[:, 1], whole[:, 0]))]
    planned: list[tuple[int, int, int, int, int]] = []
    unit, held, last = -1, 0, -1
    for tile, chunk, start, stop in whole.tolist():
        if tile != last:
            unit, held, last = unit + 1, 0, tile
        while start < stop:
            if held == most:
                unit, held = unit + 1, 0
            end = min(stop, start + most - held)
            planned.append((unit, tile, chunk, start, end))
            held += end - start
            start = end
    rows = np.array(planned, np.int64).reshape(-1, len(SCHEMA))
    return pa.table([pa.array(c, f.type) for c, f in zip(rows.T, SCHEMA)], schema=SCHEMA)


class CutPlan(Sequence[CutUnit]):
    """The units of an ingest in order.

    Parameters
    ----------
    table : pyarrow.Table
        Of `SCHEMA`.
    """

    def __init__(self, table: pa.Table) -> None:
        self._columns = {n: table[n].to_numpy() for n in table.column_names}
        self._first = np.searchsorted(self._columns["unit"], np.arange(self._count() + 1))

    def _count(self) -> int:
        numbers = self._columns["unit"]
        return int(numbers[-1]) + 1 if len(numbers) else 0

    @property
    def rows(self) -> int:
        """Sources of all units."""
        return int((self._columns["stop"] - self._columns["start"]).sum())

    def __len__(self) -> int:
        return len(self._first) - 1

    def __getitem__(self, index: Any) -> Any:
        """Return a unit, or a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        part = slice(self._first[number], self._first[number + 1])
        names = ("chunk", "start", "stop")
        rows = np.column_stack([self._columns[n][part] for n in names])
        return CutUnit(number, int(self._columns["tile"][part][0]), rows.tolist())

    def __iter__(self) -> Iterator[CutUnit]:
        return (self[i] for i in range(len(self)))


def store_plan(work: Storage, plan: pa.Table, partitions: Partitions) -> None:
    """Write the plan create-only; one that is already there stays. The partitions come first."""
    table = pa.table({"order": partitions.order, "pixel": partitions.pixel})
    for name, content in ((PARTITIONS, table), (PLAN, plan)):
        sink = io.BytesIO()
        pq.write_table(content, sink, compression="zstd")
        work.create(name, sink.getvalue())


def load_plan(work: Storage) -> CutPlan | None:
    """Read the plan; None when there is none yet."""
    try:
        return CutPlan(pq.read_table(io.BytesIO(work.read(PLAN))))
    except FileNotFoundError:
        return None


def load_partitions(work: Storage) -> Partitions:
    """Read the pixels of the catalog to be."""
    table = pq.read_table(io.BytesIO(work.read(PARTITIONS)))
    return Partitions(table["order"].to_numpy(), table["pixel"].to_numpy())


def read_slice(work: Storage, path: str, start: int, stop: int) -> pa.Table:
    """Read rows ``[start, stop)`` of a part of sorted sources, without their tile."""
    with work.open(path) as raw:
        file = pq.ParquetFile(raw)
        ends = np.cumsum([file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)])
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        columns = [name for name in file.schema_arrow.names if name != TILE]
        table = file.read_row_groups(range(first, last + 1), columns=columns, use_threads=False)
    before = int(ends[first - 1]) if first else 0
    return table.slice(start - before, stop - start)
