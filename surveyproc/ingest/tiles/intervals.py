"""Rectangles of an image, and the rows and runs that hold them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Boxes:
    """Rectangles of a plane, one for each cutout, cut off at the plane's edges.

    Attributes
    ----------
    left, bottom, right, top : ndarray, shape (N,)
        int64; columns ``[left, right)`` and rows ``[bottom, top)``.
    """

    left: np.ndarray
    bottom: np.ndarray
    right: np.ndarray
    top: np.ndarray

    @classmethod
    def on(cls, shape: tuple[int, int], left: np.ndarray, bottom: np.ndarray, size: np.ndarray) -> Boxes:
        """Squares of some sizes on a plane of this shape."""
        height, width = shape
        return cls(
            np.clip(left, 0, width),
            np.clip(bottom, 0, height),
            np.clip(left + size, 0, width),
            np.clip(bottom + size, 0, height),
        )


def covered(length: int, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Which positions of a line lie in at least one of some intervals."""
    steps = np.zeros(length + 1, np.int64)
    real = stops > starts
    np.add.at(steps, starts[real], 1)
    np.add.at(steps, stops[real], -1)
    return np.cumsum(steps[:-1]) > 0


def runs(wanted: np.ndarray) -> list[tuple[int, int]]:
    """Intervals ``[first, last)`` of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def close_gaps(wanted: np.ndarray, fraction: float) -> np.ndarray:
    """Fill the smallest gaps between runs, as long as that adds no more than a fraction: fewer requests."""
    gaps = [(a, b) for a, b in runs(~wanted) if a > 0 and b < len(wanted)]
    budget = int(fraction * wanted.sum())
    filled = wanted.copy()
    for first, last in sorted(gaps, key=lambda gap: gap[1] - gap[0]):
        budget -= last - first
        if budget < 0:
            break
        filled[first:last] = True
    return filled
