"""Which cutouts have usable pixels."""

from __future__ import annotations

import numpy as np

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
        Row to reason and detail: ``no_finite_pixels`` or ``constant_pixels``.
    """
    flat = pixels.reshape(len(pixels), -1)
    quality = np.zeros(len(pixels), dtype=np.int32)
    rejects: dict[int, tuple[str, str]] = {}
    if pixels.dtype.kind == "f":
        finite = np.isfinite(flat)
        whole = finite.all(axis=1)
        if not whole.all():
            for row in np.flatnonzero(~finite.any(axis=1)):
                rejects[int(row)] = ("no_finite_pixels", "every pixel is NaN or infinite")
            quality[~whole] |= Quality.NAN_PIXELS
            flat = np.where(finite, flat, 0).astype(pixels.dtype)
            pixels = flat.reshape(pixels.shape)
    low, high = flat.min(axis=1), flat.max(axis=1)
    for row in np.flatnonzero(low == high):
        rejects.setdefault(int(row), ("constant_pixels", f"every pixel is {low[row]}"))
    if pixels.shape[-1] > 1:
        signal = pixels.reshape(len(pixels), -1, pixels.shape[-1])
        missing = (signal.min(axis=1) == signal.max(axis=1)).any(axis=1)
        quality[missing] |= Quality.MISSING_BAND
    return pixels, quality, rejects
