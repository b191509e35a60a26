"""One engine actor: a shard in, a committed shard out. The same object serves every executor."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from surveyproc.catalog import read_batches
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import SurveyprocError
from surveyproc.identifiers import ROW, id_sum
from surveyproc.images.decode import decode_batch
from surveyproc.inference.engine import Engine
from surveyproc.inference.settings import EngineSettings
from surveyproc.models.bundle import open_bundle
from surveyproc.runs.ledger import Attempt, Ledger, PartWriter
from surveyproc.runs.plan import Shard
from surveyproc.steps import step
from surveyproc.storage import Storage

PART_ROW_GROUP = 4096
READ_AHEAD = 2


@dataclass(frozen=True)
class RunTask:
    """All a worker needs to know; small and picklable (weights travel as paths)."""

    run: str
    catalog: str
    bundles: tuple[str, ...]
    settings: EngineSettings
    keys: pa.Schema
    carry: pa.Schema
    image: ImageSpec
    with_quality: bool

    @property
    def columns(self) -> list[str]:
        """Catalog columns to read."""
        names = [*self.keys.names, "image", *self.carry.names]
        return list(dict.fromkeys([*names, *(["quality"] if self.with_quality else [])]))


@dataclass(frozen=True)
class Outcome:
    """What became of one shard."""

    unit: str
    rows: int
    rejects: int
    seconds: float
    ours: bool


class Cancelled(Exception):
    """The driver asked the workers to stop."""


class ShardWorker:
    """Reads, decodes, predicts and commits shards, one after the other.

    Parameters
    ----------
    task : RunTask
    stop : threading.Event, optional
        Checked between batches; when set, the attempt is abandoned.
    """

    def __init__(self, task: RunTask, stop: threading.Event | None = None) -> None:
        self.task = task
        self._stop = stop or threading.Event()
        if task.settings.device == "cpu":
            torch.set_num_threads(task.settings.threads)
        self._storage = Storage(task.run)
        self._ledger = Ledger(self._storage)
        bundles = [open_bundle(uri) for uri in task.bundles]
        self.engine = Engine(bundles, task.settings, task.image, task.keys, task.carry)

    def __call__(self, shard: Shard) -> Outcome:
        """Do one shard and commit it; a shard that is committed already is left alone."""
        done = self._ledger.commit_of(shard.unit)
        if done is not None:
            return Outcome(shard.unit, done.rows, done.rejects, 0.0, False)
        attempt = self._ledger.begin(shard.unit)
        try:
            commit = self._attempt(shard, attempt)
        except (Cancelled, SurveyprocError):
            attempt.abandon()
            raise
        return Outcome(shard.unit, commit.rows, commit.rejects, commit.seconds, commit.attempt == attempt.id)

    def _attempt(self, shard: Shard, attempt: Attempt) -> Any:
        first = ids_in = 0
        with ExitStack() as stack:
            writers = {name: stack.enter_context(self._writer(attempt, name)) for name in self.engine.schemas}
            for columns, pixels, failures in _read_ahead(self._batches(shard)):
                if self._stop.is_set():
                    raise Cancelled
                for name, table in self.engine(columns, pixels, failures, first).items():
                    writers[name].write(table)
                first += len(pixels)
                ids_in = (ids_in + id_sum(columns["object_id"].drop_null())) % 2**64
            step("attempt.predicted", shard.unit)
        attempt.check(shard.rows, ids_in, self.engine.per_object)
        rejects = writers["rejects"].rows
        return attempt.commit(shard.rows - rejects, rejects, {"id_sum": str(ids_in)})

    def _writer(self, attempt: Attempt, name: str) -> AbstractContextManager[PartWriter]:
        schema = self.engine.schemas[name]
        positions = "_healpix_29" in schema.names and name != "rejects"
        sort_by = ("_healpix_29", ROW) if positions else ()
        return attempt.part_writer(
            name, schema, PART_ROW_GROUP, sort_by, compression="zstd", use_dictionary=False
        )

    def _batches(self, shard: Shard) -> Iterator[tuple[pa.RecordBatch, np.ndarray, dict]]:
        batches = read_batches(
            self.task.catalog,
            shard.file,
            range(shard.group_start, shard.group_stop),
            self.task.settings.batch_size,
            self.task.columns,
            expect=(shard.size, shard.mtime_ns),
        )
        for batch in batches:
            pixels, failures = decode_batch(batch["image"], self.task.image)
            yield batch, pixels, failures


def _read_ahead(source: Iterator[Any]) -> Iterator[Any]:
    """Draw from an iterator in a thread, a few items ahead; its errors are raised here."""
    end = object()
    items: queue.Queue[Any] = queue.Queue(READ_AHEAD)
    closed = threading.Event()

    def put(item: Any) -> bool:
        while not closed.is_set():
            try:
                items.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def draw() -> None:
        try:
            for item in source:
                if not put(item):
                    return
            put(end)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()
