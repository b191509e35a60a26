"""Where a survey has no data, its images say 0."""

from __future__ import annotations

import numpy as np

CENTRAL = 0.25


def blank_centres(planes: np.ndarray) -> np.ndarray:
    """Find planes of flux that are exactly 0 all over the middle, where the object is.

    Noise is never 0 in so many pixels, and a saturated core is not 0.

    Parameters
    ----------
    planes : numpy.ndarray
        ``(N, H, W)``, finite.

    Returns
    -------
    numpy.ndarray
        ``(N,)`` bool: the central `CENTRAL` of both sides, at least 3 pixels, is 0.
    """
    blank = planes[:, planes.shape[1] // 2, planes.shape[2] // 2] == 0
    rows = np.flatnonzero(blank)
    if len(rows):
        height, width = (_middle(side) for side in planes.shape[1:])
        blank[rows] = ~planes[rows, height, width].any(axis=(1, 2))
    return blank


def _middle(side: int) -> slice:
    kept = min(side, max(3, round(CENTRAL * side)))
    start = (side - kept) // 2
    return slice(start, start + kept)
