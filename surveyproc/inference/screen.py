"""Which cutouts have usable pixels, and what is wrong with the others."""

from __future__ import annotations

import numpy as np

from surveyproc.images.blank import blank_centres
from surveyproc.images.decode import find_unusable
from surveyproc.quality import Quality


def screen_pixels(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, tuple[str, str]]]:
    """Find cutouts without a usable pixel, and repair those with a few bad ones.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(N, H, W, C)``, uint8, float16 or float32.

    Returns
    -------
    pixels : numpy.ndarray
        The same array, or a copy in which non-finite pixels are 0.
    quality : numpy.ndarray
        ``(N,)`` int32 bits of `Quality`.
    rejects : dict of int to (str, str)
        Row to reason and detail, of `surveyproc.images.decode.find_unusable`.
    """
    quality = np.zeros(len(pixels), dtype=np.int32)
    rejects = find_unusable(pixels)
    if pixels.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            totals = pixels.sum(axis=(1, 2, 3), dtype=np.float32)  # finite only where every pixel is
        suspects = np.flatnonzero(~np.isfinite(totals))
        finite = np.isfinite(pixels[suspects])
        flawed = ~finite.all(axis=(1, 2, 3))
        if flawed.any():
            quality[suspects[flawed]] |= Quality.NAN_PIXELS
            pixels = pixels.copy(order="K")
            pixels[suspects] = np.where(finite, pixels[suspects], 0)
        for band in range(pixels.shape[3]):
            quality[blank_centres(pixels[..., band])] |= Quality.MISSING_BAND
    for row in _flat_in_a_sample(pixels):
        values = pixels[row]
        if (values == values[:1, :1]).all(axis=(0, 1)).any():
            quality[row] |= Quality.MISSING_BAND
    return pixels, quality, rejects


def _flat_in_a_sample(pixels: np.ndarray) -> np.ndarray:
    """Rows with a band that is constant over a sparse sample: few, so that a full look is cheap."""
    height, width = pixels.shape[1:3]
    sample = pixels[:, :: max(1, height // 8), :: max(1, width // 8)]
    return np.flatnonzero((sample == sample[:, :1, :1]).all(axis=(1, 2)).any(axis=1))
