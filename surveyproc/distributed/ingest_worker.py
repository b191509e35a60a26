"""What does the units of an ingest, on whatever executor: cut a tile's sources, merge a pixel."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.hats import leaf_path
from surveyproc.distributed.units import Cancelled, Outcome
from surveyproc.identifiers import id_sum
from surveyproc.ingest.cutting import group_rows, row_bytes, write_cutouts, write_part
from surveyproc.ingest.merging import merged_rows
from surveyproc.ingest.plan import CutUnit, MergeUnit, chunk_name, load_partitions, read_slice
from surveyproc.ingest.tiles import CutSettings, Tile, cut_tile
from surveyproc.runs.ledger import Attempt
from surveyproc.runs.making import Making
from surveyproc.stores import configure
from surveyproc.threads import read_ahead

READ_AHEAD = 1


@dataclass(frozen=True, kw_only=True)
class IngestTask:
    """What both kinds of units need to know; see `surveyproc.distributed.units.Task`.

    ``driver_commits``: the store cannot create a name only once, so that workers only write parts.
    ``storage`` are the options with which stores are opened; they hold secrets.
    """

    output: str
    driver_commits: bool = False
    storage: dict[str, Any] = field(default_factory=dict, repr=False)
    command: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def lanes(self) -> int:
        """A worker holds one tile or one partition."""
        return 1

    @property
    def gpu(self) -> bool:
        """Nothing here computes."""
        return False

    @property
    def uris(self) -> list[tuple[str, str]]:
        """Addresses that every worker must be able to open."""
        return [("--output", self.output)]


@dataclass(frozen=True, kw_only=True)
class CutTask(IngestTask):
    """Cutting: ``schema`` are the columns that are written, ``tiles`` are sorted by name."""

    tiles: tuple[Tile, ...]
    settings: CutSettings
    schema: pa.Schema

    @property
    def unit(self) -> type[CutUnit]:
        """What a worker is given at a time."""
        return CutUnit

    @property
    def uris(self) -> list[tuple[str, str]]:
        """Addresses that every worker must be able to open; one file stands for all tiles."""
        files = [version[0] for tile in self.tiles for version in tile.version]
        return [("--output", self.output), *(("--tiles", uri) for uri in files[:1])]

    def worker(self, stop: threading.Event | None = None) -> Callable[[CutUnit], Outcome]:
        """Make what cuts."""
        configure(self.storage)
        return TileWorker(self, stop or threading.Event())


@dataclass(frozen=True, kw_only=True)
class MergeTask(IngestTask):
    """Merging."""

    @property
    def unit(self) -> type[MergeUnit]:
        """What a worker is given at a time."""
        return MergeUnit

    def worker(self, stop: threading.Event | None = None) -> Callable[[MergeUnit], Outcome]:
        """Make what merges."""
        configure(self.storage)
        return PixelWorker(self, stop or threading.Event())


class UnitWorker:
    """The way of a unit through the ledger."""

    def __init__(self, task: IngestTask, stop: threading.Event) -> None:
        self.task, self._stop = task, stop
        self.making = Making(task.output)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Cancelled

    def _do(self, unit: str, work: Callable[[Attempt], tuple[int, int, dict[str, Any]]]) -> Outcome:
        """Try a unit and commit it; one that is committed already is left alone."""
        done = self.making.ledger.commit_of(unit)
        if done is not None:
            return Outcome(unit, done.rows, done.rejects, 0.0, False)
        with self._attempt(unit) as attempt:
            finish = attempt.record if self.task.driver_commits else attempt.commit
            commit = finish(*work(attempt))
        record = commit.to_bytes() if self.task.driver_commits else None
        return Outcome(
            unit, commit.rows, commit.rejects, commit.seconds, commit.attempt == attempt.id, record
        )

    @contextmanager
    def _attempt(self, unit: str) -> Iterator[Attempt]:
        attempt = self.making.ledger.begin(unit, self.task.command)
        try:
            yield attempt
        except Exception:
            with suppress(Exception):
                attempt.abandon()
            raise


class TileWorker(UnitWorker):
    """Cuts the sources of a unit and commits the parts."""

    task: CutTask

    def __init__(self, task: CutTask, stop: threading.Event) -> None:
        super().__init__(task, stop)
        self._partitions = load_partitions(self.making.work)
        self._chunks: dict[int, str] = {}

    def __call__(self, unit: CutUnit) -> Outcome:
        """Cut one unit."""
        return self._do(unit.unit, lambda attempt: self._cut(unit, attempt))

    def _cut(self, unit: CutUnit, attempt: Attempt) -> tuple[int, int, dict[str, Any]]:
        task, tile = self.task, self.task.tiles[unit.tile]
        sources = self._sources(unit)
        with read_ahead(cut_tile(tile, sources, task.settings), READ_AHEAD) as batches:
            tally = write_cutouts(attempt, sources, batches, self._partitions, task.schema, self._check_stop)
        rejects = sum(table.num_rows for table in tally.rejects)
        facts = {
            "tile": tile.name,
            "id_sum": str(id_sum(sources["object_id"])),
            "reasons": tally.reasons,
            "quality": {name: rows for name, rows in tally.quality.items() if rows},
            "bytes_read": tally.bytes_read,
        }
        return unit.rows - rejects, rejects, facts

    def _sources(self, unit: CutUnit) -> pa.Table:
        slices = (read_slice(self.making.work, self._part(c), start, stop) for c, start, stop in unit.slices)
        together = pa.concat_tables(slices)
        order = np.argsort(together["_healpix_29"].to_numpy(), kind="stable")
        return together if len(unit.slices) == 1 else together.take(pa.array(order))

    def _part(self, chunk: int) -> str:
        if chunk not in self._chunks:
            commit = self.making.ledger.commit_of(chunk_name(chunk))
            if commit is None:
                raise FileNotFoundError(chunk_name(chunk))
            self._chunks[chunk] = commit.parts["sources"].path
        return self._chunks[chunk]


class PixelWorker(UnitWorker):
    """Merges the parts of a pixel and commits its leaf."""

    def __call__(self, unit: MergeUnit) -> Outcome:
        """Merge one pixel."""
        return self._do(unit.unit, lambda attempt: self._merge(unit, attempt))

    def _merge(self, unit: MergeUnit, attempt: Attempt) -> tuple[int, int, dict[str, Any]]:
        work = self.making.work
        with work.open(unit.parts[0]) as raw:
            schema = pq.read_schema(raw)

        def tables() -> Iterator[pa.Table]:
            for table in merged_rows(work, unit.parts, group_rows(row_bytes(schema))):
                self._check_stop()
                yield table

        written = write_part(attempt, "leaf", schema, tables())
        target = leaf_path(unit.order, unit.pixel)
        return written.rows, 0, {"targets": [["leaf", target]], "pixel": [unit.order, unit.pixel]}
