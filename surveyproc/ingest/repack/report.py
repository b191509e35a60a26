"""What a repack reports, and what it gains."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import Any

from surveyproc.catalog import open_catalog
from surveyproc.cutouts import ImageSpec
from surveyproc.ingest.repack.converting import Wanted
from surveyproc.ingest.repack.source import CatalogSource, Source

GAIN_SECONDS = 1.0
GAIN_ROWS = 20_000
# Of pixels: less than this measures how files are opened.
GAIN_BYTES = 8 << 20


@dataclass(frozen=True)
class Gain:
    """Cutouts read, decoded and checked in a second by one thread, before and after, and the rows measured."""

    before: float
    after: float
    rows: int


@dataclass(frozen=True)
class RepackReport:
    """What a repack did: ``rows_in = rows_out + sum(rejects)``.

    Attributes
    ----------
    output : str
        The catalog.
    rows_in, rows_out : int
        Rows of the input, and cutouts written.
    rejects : dict of str to int
        Rejects by reason; each is listed in ``<output>/rejects.parquet``.
    layout : str
        ``hats`` where there are positions, ``flat`` otherwise.
    files : int
        Files of the catalog.
    left_out : list of str
        Columns of the input that were not kept.
    note : str
        What else the user may want to know.
    image : ImageSpec
        The pixels.
    bytes_before, bytes : int
        On disk, of the input and of the catalog.
    seconds : float
        Wall time of this call, without measuring the gain.
    nothing_to_do : bool
        Whether the catalog was finished before.
    gain : Gain or None
        None where nothing was done, or too little to measure.
    """

    output: str
    rows_in: int
    rows_out: int
    rejects: dict[str, int]
    layout: str
    files: int
    left_out: list[str]
    note: str
    image: ImageSpec
    bytes_before: int
    bytes: int = 0
    seconds: float = 0.0
    nothing_to_do: bool = False
    gain: Gain | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        gain = None if self.gain is None else vars(self.gain)
        return {**self.__dict__, "image": json.loads(self.image.to_json()), "gain": gain}

    @classmethod
    def of_catalog(cls, about: dict[str, Any], output: str) -> RepackReport:
        """Read what ``catalog.json`` of a finished catalog says."""
        names = ("rows_in", "rows_out", "rejects", "layout", "files", "left_out", "note", "bytes_before")
        known = {name: about[name] for name in names}
        return cls(output=output, image=ImageSpec.from_json(json.dumps(about["image"])), **known)


def measure_gain(source: Source, output: str) -> Gain | None:
    """Time the same number of rows of the input and of the catalog, from a warm cache.

    A first pass takes as many rows of the input as a second allows; of the passes that follow over each, a
    second long or one pass, the fastest counts: other work on the machine makes the others slower.

    Returns
    -------
    Gain or None
        None where there are too few rows to measure.
    """
    rows, _ = _passed(source, GAIN_ROWS, GAIN_SECONDS)
    if rows * source.spec.nbytes < GAIN_BYTES:
        return None
    made = CatalogSource(open_catalog(output), Wanted())
    return Gain(_rate(source, rows), _rate(made, rows), rows)


def _rate(source: Source, rows: int) -> float:
    started, best = time.monotonic(), 0.0
    while not best or time.monotonic() - started < GAIN_SECONDS:
        found, seconds = _passed(source, rows, math.inf)
        best = max(best, found / max(seconds, 1e-9))
    return best


def _passed(source: Source, most: int, limit: float) -> tuple[int, float]:
    """Read, decode and check the first rows; says how many, and in which time."""
    rows, started = 0, time.monotonic()
    for shard in source.shards(GAIN_ROWS):
        for batch in source.batches(shard):
            rows += len(batch.pixels)
            if rows >= most or time.monotonic() - started > limit:
                return rows, time.monotonic() - started
    return rows, time.monotonic() - started
