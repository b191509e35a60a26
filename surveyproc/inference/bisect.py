"""Which rows of a batch make the model fail: the batch is run again with the other rows blanked.

Batches have one fixed shape and a blanked row is zeros in place, so that a row's neighbours keep their
values whatever is done about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch

from surveyproc.errors import SurveyprocError

MODEL_ERROR, OUT_OF_MEMORY = "model_error", "out_of_memory"
MOST_DETAIL = 200
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")

Why = tuple[str, str]


class EngineBroken(Exception):
    """The engine fails, and in this process no row can be shown to be the reason.

    Parameters
    ----------
    reason : str
        ``model_error``, ``out_of_memory`` or ``killed_engine``.
    detail : str
        What was seen.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Predicts(Protocol):
    """What is asked of an engine: `surveyproc.inference.engine.Engine.__call__`."""

    def __call__(
        self,
        columns: pa.RecordBatch,
        pixels: np.ndarray,
        failures: dict[int, Why],
        first_row: int,
        condemned: dict[int, Why],
    ) -> dict[str, pa.Table]:
        """Process one batch."""


def predict(
    engine: Predicts,
    columns: pa.RecordBatch,
    pixels: np.ndarray,
    failures: dict[int, Why],
    first_row: int = 0,
    condemned: dict[int, Why] | None = None,
) -> dict[str, pa.Table]:
    """Process one batch; a row that makes the model raise becomes a reject.

    A batch that raises is run once more, so that a passing trouble costs nothing. A row is condemned when
    the batch raised twice with this row alone, does not raise with all rows blanked, and does not raise with
    the condemned rows blanked.

    Parameters
    ----------
    engine : Predicts
    columns, pixels, failures, first_row
        As for the engine.
    condemned : dict of int to (str, str), optional
        Rows that are known not to be safe, with reason and detail.

    Returns
    -------
    dict of str to pyarrow.Table
        As of the engine; the rows found are in ``rejects`` with the reason ``model_error``.

    Raises
    ------
    EngineBroken
        When the engine raises whatever is blanked, when it raises though no row alone makes it, or when
        memory is short (which is never held against a row here).
    """
    known = dict(condemned or {})
    everything = dict.fromkeys(range(len(pixels)), (MODEL_ERROR, "blanked"))

    def attempt(blank: dict[int, Why]) -> tuple[dict[str, pa.Table], Exception | None]:
        try:
            return engine(columns, pixels, failures, first_row, known | blank), None
        except SurveyprocError:
            raise
        except Exception as error:
            return {}, error

    def failure(blank: dict[int, Why]) -> Exception | None:
        _, error = attempt(blank)
        _refuse_memory_error(error)
        return error

    tables, error = attempt({})
    if error is not None:
        release_memory()
        tables, error = attempt({})
    if error is None:
        return tables
    _refuse_memory_error(error)
    if (alike := failure(everything)) is not None:
        raise EngineBroken(MODEL_ERROR, f"{describe(alike)}, on a blank batch too") from alike
    raised: dict[int, Exception] = {}

    def fails(rows: Sequence[int]) -> bool:
        error = failure({row: why for row, why in everything.items() if row not in rows})
        if error is not None:
            raised.update(dict.fromkeys(rows, error))
        return error is not None

    candidates = [row for row in range(len(pixels)) if row not in failures and row not in known]
    culprits = {row: (MODEL_ERROR, describe(raised[row])) for row in isolate(candidates, fails)}
    tables, error = attempt(culprits)
    if error is None:
        return tables
    _refuse_memory_error(error)
    raise EngineBroken(MODEL_ERROR, f"{describe(error)}, and no row alone accounts for it") from error


def isolate(rows: Sequence[int], fails: Callable[[Sequence[int]], bool]) -> list[int]:
    """Find the rows that fail alone, each seen to do so twice.

    Parameters
    ----------
    rows : sequence of int
        Rows that fail together.
    fails : callable
        Runs the given rows with all others blanked; True when that fails.

    Returns
    -------
    list of int
        In the order of ``rows``; empty when none fails alone.

    Notes
    -----
    Halving: one culprit among n rows costs at most ``2 log2(n) + 2`` calls, n culprits ``3 n``.
    """
    return _isolate(rows, fails, 0)


def _isolate(rows: Sequence[int], fails: Callable[[Sequence[int]], bool], seen: int) -> list[int]:
    """`isolate` among rows that were seen to fail together ``seen`` times (0: it was inferred)."""
    if not rows:
        return []
    if len(rows) == 1:
        return list(rows) if all(fails(rows) for _ in range(2 - seen)) else []
    left, right = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    if not fails(left):
        return _isolate(right, fails, 0)
    found = _isolate(left, fails, 1)
    return found + (_isolate(right, fails, 1) if fails(right) else [])


def release_memory() -> None:
    """Give the GPU memory that torch holds in reserve back to the driver."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def is_memory_error(error: BaseException) -> bool:
    """Whether an exception says that memory, of the machine or of the GPU, is short."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _MEMORY_WORDS)


def describe(error: BaseException) -> str:
    """Type and first line of an exception."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".removesuffix(": ")[:MOST_DETAIL]


def _refuse_memory_error(error: Exception | None) -> None:
    if error is not None and is_memory_error(error):
        raise EngineBroken(OUT_OF_MEMORY, describe(error)) from error
