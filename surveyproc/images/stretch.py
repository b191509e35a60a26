"""Stretches: flux to display pixels, as pure functions of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

SDSS_PIXEL_ARCSEC = 0.396
SCALES = (1.38, 0.96, 0.80)  # with slope and softening: the colours and brightness of Galaxy Zoo 2 images
SLOPE, SOFTENING = 2.4, 6.5


def sdss_lupton(
    flux: Any,
    pixel_scale_arcsec: float = SDSS_PIXEL_ARCSEC,
    *,
    scales: tuple[float, float, float] = SCALES,
    minimum: float = 0.0,
    slope: float = SLOPE,
    softening: float = SOFTENING,
) -> Any:
    """Stretch g, r, i flux to RGB with the colour-preserving asinh of Lupton et al. (2004).

    With x_b the flux of band b times its scale, I = (x_g + x_r + x_i) / 3 and equation 2 of the paper

        f(I) = asinh(slope * softening * (I - minimum)) / softening,    out_b = x_b f(I) / I,

    where I <= minimum gives black, negative channels are clipped to 0, and a pixel whose brightest channel
    exceeds 1 is divided by that channel, so that it keeps its colour. Red is i, green r, blue g.

    Parameters
    ----------
    flux : numpy.ndarray or torch.Tensor
        ``(..., 3, H, W)``, bands g, r, i in nanomaggies per pixel.
    pixel_scale_arcsec : float
        Side of a pixel. Flux is brought to that of an SDSS pixel (0.396 arcsec) first, so that one surface
        brightness has one colour whatever the sampling.
    scales : (float, float, float)
        Factors of g, r, i.
    minimum : float
        Level shown as black, in scaled nanomaggies per SDSS pixel.
    slope : float
        Brightness per scaled nanomaggy near black (alpha in the paper).
    softening : float
        Where the stretch turns from linear to logarithmic (Q in the paper).

    Returns
    -------
    numpy.ndarray or torch.Tensor
        ``(..., H, W, 3)`` uint8, of the kind of ``flux``. The defaults were fitted by eye and by
        the medians of centres and annuli to the SDSS images of Galaxy Zoo 2.

    Notes
    -----
    Lupton et al. (2004), PASP 116, 133.
    """
    per_pixel = (SDSS_PIXEL_ARCSEC / pixel_scale_arcsec) ** 2
    i, r, g = (flux[..., band, :, :] * (scales[band] * per_pixel) for band in (2, 1, 0))
    if isinstance(flux, np.ndarray):
        return _stretch(np, np.stack([i, r, g], axis=-1), minimum, slope, softening).astype(np.uint8)
    import torch

    return _stretch(torch, torch.stack([i, r, g], dim=-1), minimum, slope, softening).to(torch.uint8)


def _stretch(xp: Any, rgb: Any, minimum: float, slope: float, softening: float) -> Any:
    intensity = rgb.mean(-1)
    lit = intensity > minimum
    safe = xp.where(lit & (intensity != 0), intensity, xp.ones_like(intensity))
    gain = xp.arcsinh(slope * softening * (intensity - minimum)) / (softening * safe)
    rgb = xp.clip(rgb * xp.where(lit, gain, xp.zeros_like(gain))[..., None], 0, None)
    brightest = xp.amax(rgb, -1)
    rgb = rgb / xp.clip(brightest, 1, None)[..., None]
    return xp.floor(rgb * 255 + 0.5)
