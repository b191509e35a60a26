"""A stretch for any bands, each cutout and band by itself."""

from __future__ import annotations

import math
from typing import Any

from surveyproc.images.stretches.arrays import doubles, namespace, percentile, stack_last, to_bytes

PERCENTILE, SCALE = 99.8, 0.7


def asinh_percentile(flux: Any, *, percent: float = PERCENTILE, scale: float = SCALE) -> Any:
    """Stretch every band of every cutout between its minimum and a percentile.

    With y = (x - minimum) / (percentile - minimum), clipped to [0, 1], out = asinh(y / scale) / asinh(1 / scale). It
    needs no unit; neither brightness nor colour is comparable between galaxies.

    Parameters
    ----------
    flux : numpy.ndarray or torch.Tensor
        ``(..., C, H, W)`` in any unit.
    percent : float
        Percentile shown as 1.
    scale : float
        Where the stretch turns from linear to logarithmic, as a fraction of the range.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        ``(..., H, W, C)`` uint8, of the kind of ``flux``; 0 where a band is constant.
    """
    xp, flux = namespace(flux), doubles(flux)
    low, high = xp.amin(flux, (-2, -1))[..., None, None], percentile(flux, percent)
    span = high - low
    lit = span > 0
    part = xp.clip((flux - low) / xp.where(lit, span, xp.ones_like(span)), 0.0, 1.0)
    out = xp.where(lit, xp.arcsinh(part / scale) / math.asinh(1.0 / scale), xp.zeros_like(part))
    return to_bytes(stack_last([out[..., band, :, :] for band in range(out.shape[-3])]))
