"""Bootstrap intervals over galaxies."""

from __future__ import annotations

import numpy as np

from surveyproc.votes.metrics import HIGH_AGREEMENT, Comparison

DRAWS = 1000
SEED = 20130435
LEVEL = 0.95
CHUNK_BYTES = 64e6
BLOCKS = 6


def resampled_sums(columns: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """Sums of columns over galaxies drawn with replacement.

    Parameters
    ----------
    columns : numpy.ndarray
        ``(N, P)`` one row for each galaxy.

    Returns
    -------
    numpy.ndarray
        ``(draws, P)``; the same on every call.
    """
    rng = np.random.default_rng(SEED)
    count = len(columns)
    chunk = max(1, int(CHUNK_BYTES // (8 * max(count, 1))))
    found = []
    for start in range(0, draws, chunk):
        drawn = (rng.integers(0, count, count) for _ in range(min(chunk, draws - start)))
        times = np.stack([np.bincount(rows, minlength=count) for rows in drawn])
        found.append(times.astype(np.float64) @ columns)
    return np.concatenate(found)


def interval(values: np.ndarray) -> list[float] | None:
    """Central 95 % of bootstrap values; None when a figure could not be computed in most of them."""
    finite = values[np.isfinite(values)]
    if 2 * len(finite) < len(values):
        return None
    return [float(v) for v in np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]


def bootstrap(comparison: Comparison) -> tuple[list[float] | None, dict[str, dict[str, list[float] | None]]]:
    """Intervals of the Kaggle RMSE and of each question's figures.

    Returns
    -------
    rmse : list of float
        95 % interval.
    questions : dict
        For each question ``rmse_interval``, ``accuracy_interval``, ``balanced_accuracy_interval`` and the last two at
        high agreement.
    """
    known = np.isfinite(comparison.said_joint)
    squared = np.where(known, (comparison.joint - comparison.said_joint) ** 2, 0.0)
    blocks = []
    for q, s in enumerate(comparison.slices.values()):
        scored = comparison.scored[:, q]
        said = np.where(scored[:, None], comparison.said[:, s], 0.0)
        best = said.argmax(1)
        right = comparison.fractions[:, s].argmax(1) == best
        high = (said.max(1) > HIGH_AGREEMENT) & scored
        answer = best[:, None] == np.arange(s.stop - s.start)
        blocks += [values[:, s].sum(1, keepdims=True) for values in (squared, known)]
        blocks += [answer & chosen[:, None] for chosen in (scored, scored & right, high, high & right)]
    columns = np.concatenate(blocks, axis=1, dtype=np.float64)
    ends = np.cumsum([block.shape[1] for block in blocks])
    sums = np.split(resampled_sums(columns), ends[:-1], axis=1)
    questions: dict[str, dict[str, list[float] | None]] = {}
    for q, name in enumerate(comparison.slices):
        error, cells, of, right, of_high, right_high = sums[BLOCKS * q : BLOCKS * (q + 1)]
        questions[name] = {
            "rmse_interval": interval(np.sqrt(_ratio(error, cells))),
            "accuracy_interval": interval(_ratio(right.sum(1), of.sum(1))),
            "balanced_accuracy_interval": interval(_balanced(right, of)),
            "accuracy_high_agreement_interval": interval(_ratio(right_high.sum(1), of_high.sum(1))),
            "balanced_accuracy_high_agreement_interval": interval(_balanced(right_high, of_high)),
        }
    errors, cells = (np.concatenate(sums[first::BLOCKS], axis=1).sum(1) for first in (0, 1))
    return interval(np.sqrt(_ratio(errors, cells))), questions


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _balanced(right: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Mean over the answers that were drawn at all."""
    present = (of > 0).sum(1)
    return _ratio(np.nansum(_ratio(right, of), axis=1), present.astype(np.float64))
