"""The stretches of images that Galaxy Zoo volunteers were shown."""

from __future__ import annotations

import math
from typing import Any

from surveyproc.images.stretches.arrays import (
    as_bytes,
    doubles,
    levels,
    namespace,
    percentile,
    stack_last,
    to_bytes,
)
from surveyproc.units import NANOMAGGY_ZEROPOINT

DECALS_DIVISORS = (0.008, 0.014, 0.019)
DECALS_RANGE = (-0.5, 300.0)
DECALS_DESATURATION = 2.5
EUCLID_Q = (100.0, 0.2)
EUCLID_ZEROPOINTS = (24.6, 29.8)
EUCLID_PERCENTILE = 99.85


def gz_decals(
    flux: Any,
    *,
    divisors: tuple[float, float, float] = DECALS_DIVISORS,
    span: tuple[float, float] = DECALS_RANGE,
    desaturation: float = DECALS_DESATURATION,
) -> Any:
    """Stretch g, r, z flux to RGB as the images of Galaxy Zoo DECaLS.

    Each band is divided by its divisor, and y_b = (asinh(x_b) - asinh(low)) / (asinh(high) - asinh(low)) for the
    span low to high. Then colours fade where one band dominates: with a the mean of the y_b and

        w = sin(pi/2 (1 - min(1, max_b(y_b / a) / 2.5))),    out_b = y_b w + a (1 - w) + a (1 - w)^2 y_b,

    clipped to [0, 1]. Red is z, green r, blue g. The published images were then resized to 424 px by Lanczos and
    flipped up-down: rows are left as they come here, a catalog's ``orientation`` says which way they go.

    Parameters
    ----------
    flux : numpy.ndarray or torch.Tensor
        ``(..., 3, H, W)``, bands g, r, z in nanomaggies per pixel.
    divisors : (float, float, float)
        Of g, r, z, in nanomaggies per pixel.
    span : (float, float)
        Scaled flux shown as 0 and as 1.
    desaturation : float
        Ratio to the mean from which a pixel is grey.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        ``(..., H, W, 3)`` uint8, of the kind of ``flux``.
    """
    xp, flux = namespace(flux), doubles(flux)
    low, high = (math.asinh(limit) for limit in span)
    rgb = stack_last(
        [(xp.arcsinh(flux[..., band, :, :] / divisors[band]) - low) / (high - low) for band in (2, 1, 0)]
    )
    mean = ((rgb[..., 0] + rgb[..., 1] + rgb[..., 2]) / 3.0)[..., None]
    safe = xp.where(mean == 0, xp.ones_like(mean), mean)
    strength = xp.clip(xp.amax(rgb / safe, -1) / desaturation, None, 1.0)[..., None]
    keep = xp.sin((1.0 - strength) * (math.pi / 2.0))
    return to_bytes(rgb * keep + mean * (1.0 - keep) + mean * (1.0 - keep) ** 2 * rgb)


def gz_euclid(
    flux: Any,
    *,
    q: tuple[float, ...] = EUCLID_Q,
    zeropoints: tuple[float, ...] = EUCLID_ZEROPOINTS,
    percent: float = EUCLID_PERCENTILE,
) -> Any:
    """Stretch VIS and NISP flux to RGB as the images of Galaxy Zoo Euclid.

    Flux is brought to the counts of its mosaic by the zero point; each band is asinh(q x), clipped to 0 and its own
    percentile over the cutout, and divided by that. Red is NISP, blue VIS, green the mean of their bytes, rounded half
    up; VIS alone is grey. The percentile is taken on each cutout: brightness is not comparable between galaxies. The published
    images were flipped vertically: rows are left as they come here, a catalog's ``orientation`` says which way they go.

    Parameters
    ----------
    flux : numpy.ndarray or torch.Tensor
        ``(..., 2, H, W)``, bands VIS and one of NISP, or ``(..., 1, H, W)``, VIS; in nanomaggies per pixel.
    q : tuple of float
        Factor of each band.
    zeropoints : tuple of float
        AB magnitude of one count of each band.
    percent : float
        Percentile shown as 1.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        ``(..., H, W, 3)`` uint8, of the kind of ``flux``.
    """
    xp, flux = namespace(flux), doubles(flux)
    shown = []
    for band, (factor, zeropoint) in enumerate(zip(q, zeropoints)):
        counts = 10 ** (0.4 * (zeropoint - NANOMAGGY_ZEROPOINT))
        plane = xp.arcsinh(flux[..., band, :, :] * (factor * counts))
        top = percentile(plane, percent)
        lit = top > 0
        part = plane / xp.where(lit, top, xp.ones_like(top))
        shown.append(levels(xp.where(lit, part, xp.zeros_like(part))))
    vis, nisp = shown[0], shown[-1]
    return as_bytes(stack_last([nisp, xp.floor((vis + nisp + 1.0) / 2.0), vis]))
