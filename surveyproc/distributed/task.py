"""What an engine must know of a run, wherever it works, and the steps from a shard to tables."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from surveyproc.catalog import read_batches
from surveyproc.cutouts import ImageSpec
from surveyproc.distributed.terms import open_agreed
from surveyproc.identifiers import id_sum
from surveyproc.images.decode import Failures, decode_batch
from surveyproc.inference.bisect import Why, predict
from surveyproc.inference.engine import Engine
from surveyproc.inference.settings import EngineSettings
from surveyproc.runs.plan import Shard
from surveyproc.stores import configure

NOTICED = ("quality", "pixel_scale_arcsec")


@dataclass(frozen=True)
class RunTask:
    """All an engine needs to know; small and picklable (weights travel as names and addresses).

    ``noticed`` are catalog columns that the engine itself looks at, of those in `NOTICED`.
    ``digests`` (of the bundles) and ``software`` are the driver's; a node that has others refuses.
    ``driver_commits``: the store cannot create a name only once, so that workers only write parts.
    ``storage`` are the options with which stores are opened; they hold secrets.
    ``command`` is another for each command of the user: attempts tell by it which of them began them.
    """

    run: str
    catalog: str
    bundles: tuple[str, ...]
    settings: EngineSettings
    keys: pa.Schema
    carry: pa.Schema
    image: ImageSpec
    noticed: tuple[str, ...]
    digests: tuple[str, ...]
    software: str
    max_reject_fraction: float
    driver_commits: bool = False
    storage: dict[str, Any] = field(default_factory=dict, repr=False)
    command: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def columns(self) -> list[str]:
        """Catalog columns to read."""
        names = [*self.keys.names, "image", *self.carry.names]
        return list(dict.fromkeys([*names, *self.noticed]))

    def open_engine(self) -> Engine:
        """Open the bundles and build the engine, with this process's stores set up as the task says."""
        configure(self.storage)
        bundles = open_agreed(self.bundles, self.digests, self.settings, self.software)
        return Engine(bundles, self.settings, self.image, self.keys, self.carry)

    def use_threads(self) -> None:
        """Set torch's threads for the calling thread: on a CPU they are a setting of each thread."""
        if self.settings.device == "cpu":
            torch.set_num_threads(self.settings.threads)

    def read(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """Read a shard in batches of ``settings.batch_size`` rows; the last may be shorter."""
        return read_batches(
            self.catalog,
            shard.file,
            range(shard.group_start, shard.group_stop),
            self.settings.batch_size,
            self.columns,
            expect=(shard.size, shard.version),
        )

    def decode(self, batch: pa.RecordBatch, hidden: Collection[int] = ()) -> tuple[np.ndarray, Failures]:
        """Decode the images of a batch; those of the ``hidden`` rows are not looked at."""
        images = batch["image"]
        if hidden:
            mask = np.zeros(len(images), dtype=bool)
            mask[list(hidden)] = True
            images = pc.if_else(pa.array(mask), pa.scalar(None, images.type), images)
        return decode_batch(images, self.image)


@dataclass(frozen=True)
class Prediction:
    """What became of one batch: its tables, how many rows came in, and the sum of their id hashes."""

    tables: dict[str, pa.Table]
    rows: int
    ids: int


def predict_batch(
    engine: Engine,
    batch: pa.RecordBatch,
    pixels: np.ndarray,
    failures: Failures,
    first_row: int,
    condemned: dict[int, Why] | None = None,
) -> Prediction:
    """Process one decoded batch, see `surveyproc.inference.bisect.predict`."""
    tables = predict(engine, batch, pixels, failures, first_row, condemned)
    return Prediction(tables, batch.num_rows, id_sum(batch["object_id"].drop_null()))
