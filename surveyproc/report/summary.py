"""What the report says of the tables, gathered in one pass and bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.storage import arrow_filesystem
from surveyproc.identifiers import hash_ids
from surveyproc.runs.run import Run

BINS = 25
BATCH_ROWS = 16_384
SKY_CELLS_PER_DEGREE = 1
BEST, RANDOM, TAIL = 8, 16, 16
CONFIDENT = 0.3  # an answer's gallery holds galaxies whose lower limit is at least this,
FAMILIAR = 0.97  # whose domain_distance is at most this, and that have no flaw


@dataclass
class Histogram:
    """Counts of values in [0, 1].

    Attributes
    ----------
    counts : numpy.ndarray
        int64 ``(BINS,)``.
    total : float
        Sum of the values counted.
    missing : int
        Nulls and NaN.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    total: float = 0.0
    missing: int = 0

    def update(self, values: np.ndarray) -> None:
        """Count a batch; NaN stands for null."""
        known = values[np.isfinite(values)]
        self.missing += len(values) - len(known)
        self.total += float(known.sum())
        self.counts += np.histogram(np.clip(known, 0, 1), BINS, (0, 1))[0]

    @property
    def rows(self) -> int:
        """Values counted."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Mean of the values counted; NaN without any."""
        return self.total / self.rows if self.rows else float("nan")


@dataclass
class Pick:
    """One object chosen for a gallery."""

    score: float
    object_id: int | str
    facts: dict[str, Any]


class TopK:
    """The k objects with the highest scores; among equals the ones that came first."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.picks: list[Pick] = []

    def update(self, scores: np.ndarray, batch: pa.RecordBatch, facts: dict[str, str]) -> None:
        """Offer a batch.

        Parameters
        ----------
        scores : numpy.ndarray
            ``(N,)``; NaN never enters.
        batch : pyarrow.RecordBatch
            With ``object_id``.
        facts : dict of str to str
            Name of a fact to the column it is taken from.
        """
        floor = self.picks[-1].score if len(self.picks) == self.k else -np.inf
        candidates = np.flatnonzero(scores > floor)
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")][: self.k]
        for row in candidates.tolist():
            values = {name: batch[column][row].as_py() for name, column in facts.items()}
            self.picks.append(Pick(float(scores[row]), batch["object_id"][row].as_py(), values))
        self.picks.sort(key=lambda pick: -pick.score)
        del self.picks[self.k :]


@dataclass
class Summary:
    """All that the page shows of the tables.

    Attributes
    ----------
    rows : int
        Rows of ``morphology``.
    questions : dict of str to list of str
        Answers of each question, in table order.
    fractions : dict of str to Histogram
        By ``{question}_{answer}``.
    difficulty, domain_distance : Histogram
    sky : numpy.ndarray or None
        Objects per square degree cell, ``(180, 360)`` from Dec -90 and RA 0; None without positions.
    galleries : dict of str to TopK
        By ``{question}_{answer}``, and ``random``, ``uncertain``, ``distant``, ``flawed``.
    flawed : Counter
        Values of ``quality`` other than 0.
    rejects : list of dict
        The first few.
    reject_counts : Counter
        By (stage, reason).
    """

    rows: int = 0
    questions: dict[str, list[str]] = field(default_factory=dict)
    fractions: dict[str, Histogram] = field(default_factory=dict)
    difficulty: Histogram = field(default_factory=Histogram)
    domain_distance: Histogram = field(default_factory=Histogram)
    sky: np.ndarray | None = None
    galleries: dict[str, TopK] = field(default_factory=dict)
    flawed: Counter[int] = field(default_factory=Counter)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    reject_counts: Counter[tuple[str, str]] = field(default_factory=Counter)


def questions_of(names: list[str]) -> dict[str, list[str]]:
    """Read the questions and their answers off the column names of ``morphology``."""
    questions = [n.removesuffix("_proportion_asked") for n in names if n.endswith("_proportion_asked")]
    return {
        question: [
            n[len(question) + 1 : -len("_fraction")]
            for n in names
            if n.startswith(f"{question}_") and n.endswith("_fraction")
        ]
        for question in questions
    }


def answers_shown(questions: dict[str, list[str]]) -> list[str]:
    """Choose the ``{question}_{answer}`` that get a gallery: every answer but a plain no."""
    return [f"{q}_{a}" for q, answers in questions.items() for a in answers if a != "no"]


def summarise(run: Run) -> Summary:
    """Stream the tables of a run once.

    Parameters
    ----------
    run : Run
        Finished or not.

    Returns
    -------
    Summary
    """
    summary = Summary()
    if "morphology" in run.tables:
        _read_morphology(run, summary)
    if "rejects" in run.tables:
        for batch in _stream(run, "rejects", ["object_id", "stage", "reason", "detail"]):
            summary.reject_counts.update(zip(batch["stage"].to_pylist(), batch["reason"].to_pylist()))
            missing = TAIL - len(summary.rejects)
            summary.rejects += batch.slice(0, missing).to_pylist() if missing > 0 else []
    return summary


def _read_morphology(run: Run, summary: Summary) -> None:
    names = _names(run, "morphology")
    summary.questions = questions_of(names)
    fractions = [f"{q}_{a}" for q, answers in summary.questions.items() for a in answers]
    shown = answers_shown(summary.questions)
    summary.fractions = {name: Histogram() for name in fractions}
    summary.galleries = {name: TopK(BEST) for name in shown}
    summary.galleries |= {
        "random": TopK(RANDOM),
        "uncertain": TopK(TAIL),
        "distant": TopK(TAIL),
        "flawed": TopK(BEST),
    }
    positions = {"ra", "dec"} <= set(names)
    if positions:
        summary.sky = np.zeros((180 * SKY_CELLS_PER_DEGREE, 360 * SKY_CELLS_PER_DEGREE), dtype=np.int64)
    limits = [f"{name}_fraction{end}" for name in shown for end in ("_lower", "_upper")]
    wanted = [
        "object_id",
        *(["ra", "dec"] if positions else []),
        *(f"{name}_fraction" for name in fractions),
        *limits,
        *(n for n in ("difficulty", "domain_distance", "quality") if n in names),
    ]
    for batch in _stream(run, "morphology", wanted):
        _count(batch, summary)
        _offer(batch, summary, shown)


def _stream(run: Run, table: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Read a table file by file: unlike a dataset's scanner, that keeps nothing of the files before."""
    filesystem = arrow_filesystem(run.storage.fs)
    for path in run.table_files(table):
        with pq.ParquetFile(path, filesystem=filesystem) as parquet:
            yield from parquet.iter_batches(BATCH_ROWS, columns=columns, use_threads=False)


def _names(run: Run, table: str) -> list[str]:
    files = run.table_files(table)
    return pq.read_schema(files[0], filesystem=arrow_filesystem(run.storage.fs)).names if files else []


def _count(batch: pa.RecordBatch, summary: Summary) -> None:
    summary.rows += batch.num_rows
    for name, histogram in summary.fractions.items():
        histogram.update(_floats(batch, f"{name}_fraction"))
    summary.difficulty.update(_floats(batch, "difficulty"))
    summary.domain_distance.update(_floats(batch, "domain_distance"))
    if "quality" in batch.schema.names:
        summary.flawed.update(v for v in batch["quality"].drop_null().to_numpy().tolist() if v)
    if summary.sky is not None:
        ra, dec = _floats(batch, "ra"), _floats(batch, "dec")
        known = np.isfinite(ra) & np.isfinite(dec)
        counts = np.histogram2d(dec[known], ra[known] % 360.0, summary.sky.shape, ((-90, 90), (0, 360)))
        summary.sky += counts[0].astype(np.int64)


def _offer(batch: pa.RecordBatch, summary: Summary, shown: list[str]) -> None:
    quality, distance = _floats(batch, "quality"), _floats(batch, "domain_distance")
    usual = ~(distance > FAMILIAR) & ~(quality > 0)
    for name in shown:
        lower = _floats(batch, f"{name}_fraction_lower")
        facts = {
            "fraction": f"{name}_fraction",
            "lower": f"{name}_fraction_lower",
            "upper": f"{name}_fraction_upper",
        }
        summary.galleries[name].update(np.where(usual & (lower >= CONFIDENT), lower, np.nan), batch, facts)
    first = f"{next(iter(summary.questions))}_" if summary.questions else ""
    main = [n for n in shown if n.startswith(first)]
    facts = {n.removeprefix(first): f"{n}_fraction" for n in main} if first else {}
    shuffled = hash_ids(batch["object_id"]).astype(np.float64)
    summary.galleries["random"].update(shuffled, batch, facts)
    if "quality" in batch.schema.names:
        flagged = np.where(quality > 0, shuffled, np.nan)
        summary.galleries["flawed"].update(flagged, batch, {"quality": "quality", **facts})
    for gallery, column in (("uncertain", "difficulty"), ("distant", "domain_distance")):
        if column in batch.schema.names:
            summary.galleries[gallery].update(_floats(batch, column), batch, {column: column, **facts})


def _floats(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """Read a column as float64, NaN for null; all NaN when the table lacks it."""
    if name not in batch.schema.names:
        return np.full(batch.num_rows, np.nan)
    return batch[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
