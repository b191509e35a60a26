"""One engine actor: a shard in, a committed shard out. The same object serves every executor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from surveyproc.distributed.parent import KILLED, ChildEngine
from surveyproc.distributed.quarantine import Quarantine
from surveyproc.distributed.task import Prediction, RunTask, predict_batch
from surveyproc.distributed.units import Cancelled, Outcome
from surveyproc.errors import PartialError, ResourceError
from surveyproc.identifiers import ROW
from surveyproc.images.decode import Failures
from surveyproc.inference.bisect import MODEL_ERROR, OUT_OF_MEMORY, EngineBroken, describe, release_memory
from surveyproc.runs.ledger import Attempt, Ledger, PartWriter
from surveyproc.runs.plan import Shard
from surveyproc.steps import step
from surveyproc.storage import Storage
from surveyproc.threads import read_ahead

LANES = 2
PART_ROW_GROUP = 4096
READ_AHEAD = 2
VANISHED_BEFORE_CHILD = 3
VANISHED_MOST = 10
DEAR_REJECTS = 128


Source = Callable[[Shard], AbstractContextManager[Iterator[Prediction]]]


@dataclass(frozen=True)
class ShardWork:
    """The shards of a run for `surveyproc.distributed.rays.run_units`; see `surveyproc.distributed.units.Task`."""

    task: RunTask

    @property
    def unit(self) -> type[Shard]:
        """What a worker is given at a time."""
        return Shard

    @property
    def lanes(self) -> int:
        """Shards that one engine has in hand: one is predicted, the next is read, the last is committed."""
        return LANES

    @property
    def gpu(self) -> bool:
        """Whether an engine wants a GPU."""
        return self.task.settings.device.startswith("cuda")

    @property
    def uris(self) -> list[tuple[str, str]]:
        """Addresses that every engine must be able to open."""
        return [("--output", self.task.run), ("--input", self.task.catalog)]

    def worker(self, stop: threading.Event | None = None) -> Callable[[Shard], Outcome]:
        """Make what does shards, with an engine of its own."""
        return ShardWorker(self.task, stop)


class ShardWorker:
    """Reads, decodes, predicts and commits shards.

    It may be called from `LANES` threads at once: the engine works through one shard while the one
    before is synced to disk and committed, and the next one's first batches are read.

    Parameters
    ----------
    task : RunTask
    stop : threading.Event, optional
        Checked between batches; when set, the attempt is abandoned.
    """

    def __init__(self, task: RunTask, stop: threading.Event | None = None) -> None:
        self.task = task
        self._stop = stop or threading.Event()
        self._engine_turn = threading.Lock()
        self.engine = task.open_engine()
        self._ledger = Ledger(Storage(task.run))
        self._rows = self._dear = 0

    def __call__(self, shard: Shard) -> Outcome:
        """Do one shard and commit it; a shard that is committed already is left alone.

        After `VANISHED_BEFORE_CHILD` attempts that vanished, or when the engine of this process is broken,
        the shard is done in a child process.
        """
        self.task.use_threads()
        done = self._ledger.commit_of(shard.unit)
        if done is not None:
            return Outcome(shard.unit, done.rows, done.rejects, 0.0, False)
        others = self._ledger.attempts_at(shard.unit)
        self._require_progress(shard, others)
        if len(others) < VANISHED_BEFORE_CHILD:
            with suppress(EngineBroken):
                return self._attempt(shard, self._here)
        return self._attempt(shard, self._in_a_child)

    def _attempt(self, shard: Shard, source: Source) -> Outcome:
        attempt = self._ledger.begin(shard.unit, self.task.command)
        try:
            rejects, facts = self._write_parts(shard, attempt, source)
            finish = attempt.record if self.task.driver_commits else attempt.commit
            commit = finish(shard.rows - rejects, rejects, facts)
        except Exception:
            with suppress(Exception):
                attempt.abandon()
            raise
        ours = commit.attempt == attempt.id
        record = commit.to_bytes() if self.task.driver_commits else None
        return Outcome(shard.unit, commit.rows, commit.rejects, commit.seconds, ours, record)

    def _write_parts(self, shard: Shard, attempt: Attempt, source: Source) -> tuple[int, dict[str, Any]]:
        """Write the parts of a shard; returns its number of rejects and the facts of its commit."""
        ids, reasons = 0, dict[str, list[Any]]()
        with ExitStack() as stack:
            predictions = stack.enter_context(source(shard))
            writers = {name: stack.enter_context(self._writer(attempt, name)) for name in self.engine.schemas}
            with self._engine_turn:
                for prediction in predictions:
                    self._check_stop()
                    for name, table in prediction.tables.items():
                        writers[name].write(table)
                    ids = (ids + prediction.ids) % 2**64
                    self._bound_cost(prediction, shard)
                    _count_reasons(reasons, prediction.tables["rejects"])
            step("attempt.predicted", shard.unit)
        attempt.check(shard.rows, ids, self.engine.per_object)
        return writers["rejects"].rows, {"id_sum": str(ids), "reasons": reasons}

    @contextmanager
    def _here(self, shard: Shard) -> Iterator[Iterator[Prediction]]:
        """Batches of a shard, predicted by the engine of this process."""

        def decoded() -> Iterator[tuple[pa.RecordBatch, np.ndarray, Failures]]:
            for batch in self.task.read(shard):
                yield batch, *self.task.decode(batch)

        def predicted(batches: Iterator[tuple[pa.RecordBatch, np.ndarray, Failures]]) -> Iterator[Prediction]:
            first = 0
            for batch, pixels, failures in batches:
                self._check_stop()
                yield predict_batch(self.engine, batch, pixels, failures, first)
                first += batch.num_rows

        try:
            with read_ahead(decoded(), READ_AHEAD) as batches:
                yield predicted(batches)
        except MemoryError as error:
            raise EngineBroken(OUT_OF_MEMORY, describe(error)) from error

    @contextmanager
    def _in_a_child(self, shard: Shard) -> Iterator[Iterator[Prediction]]:
        """Batches of a shard, predicted by the engine of a child process."""
        release_memory()
        try:
            with ChildEngine(self.task, shard, self._check_stop) as engine:
                yield iter(Quarantine(engine, shard, self.task.settings.batch_size))
        except MemoryError as error:
            raise ResourceError(
                f"there is too little memory to write what the engine found: {describe(error)}",
                where=shard.unit,
                fix="use a machine with more memory, then give the same command again: "
                "what was committed is kept",
            ) from error

    def _writer(self, attempt: Attempt, name: str) -> AbstractContextManager[PartWriter]:
        schema = self.engine.schemas[name]
        positions = "_healpix_29" in schema.names and name != "rejects"
        sort_by = ("_healpix_29", ROW) if positions else ()
        return attempt.part_writer(
            name, schema, PART_ROW_GROUP, sort_by, compression="zstd", use_dictionary=False
        )

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Cancelled

    def _require_progress(self, shard: Shard, others: list[str]) -> None:
        """Refuse a shard at which this command has lost too many processes: Ray would restart them for ever."""
        if len(others) < VANISHED_MOST:
            return
        ours = sum(self._ledger.marker(folder).get("command") == self.task.command for folder in others)
        if ours >= VANISHED_MOST:
            raise ResourceError(
                f"{ours} attempts at a shard vanished with the process that made them, "
                "and its rows are not shown to be the reason",
                where=f"{shard.unit} of {shard.file}",
                fix="find what ends the processes (too little memory, machines taken away), "
                "then give the same command again: what was committed is kept",
            )

    def _bound_cost(self, prediction: Prediction, shard: Shard) -> None:
        """Stop when too many rows fail in the model: to show it of one costs as much as hundreds of good rows."""
        rejects = prediction.tables["rejects"].to_pylist()
        dear = [row["detail"] for row in rejects if row["reason"] in (MODEL_ERROR, OUT_OF_MEMORY, KILLED)]
        self._rows += prediction.rows
        self._dear += len(dear)
        limit = self.task.max_reject_fraction
        if dear and self._dear >= DEAR_REJECTS and self._dear > limit * self._rows:
            raise PartialError(
                f"the model failed on {self._dear:,} of the {self._rows:,} rows this engine has seen, more than "
                f"limits.max_reject_fraction={limit:g}; the last: {dear[-1]}",
                where=f"{shard.unit} of {shard.file}",
                fix="mend the bundle or the input, or raise that limit to go on; what was committed is kept",
            )


def _count_reasons(found: dict[str, list[Any]], rejects: pa.Table) -> None:
    """Add the rows of a ``rejects`` table to the number of rows and the first detail of each reason."""
    for row in rejects.select(["reason", "detail"]).to_pylist():
        found.setdefault(row["reason"], [0, row["detail"]])[0] += 1
