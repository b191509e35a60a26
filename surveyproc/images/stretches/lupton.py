"""The asinh stretches of three bands that keep colours, after Lupton et al. (2004)."""

from __future__ import annotations

import math
from typing import Any

from surveyproc.images.stretches.arrays import doubles, namespace, stack_last, to_bytes

SDSS_PIXEL_ARCSEC = 0.396
SCALES = (1.38, 0.96, 0.80)  # with slope and softening: the colours and brightness of Galaxy Zoo 2 images
SLOPE, SOFTENING = 2.4, 6.5
LEGACY_SCALES = (6.0, 3.4, 2.2)
LEGACY_OFFSET, LEGACY_SOFTENING = 0.03, 20.0


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
    xp, flux = namespace(flux), doubles(flux)
    per_pixel = (SDSS_PIXEL_ARCSEC / pixel_scale_arcsec) ** 2
    blue, green, red = (flux[..., band, :, :] * (scales[band] * per_pixel) for band in range(3))
    intensity = (red + green + blue) / 3.0
    lit = intensity > minimum
    safe = xp.where(lit & (intensity != 0), intensity, xp.ones_like(intensity))
    gain = xp.arcsinh(slope * softening * (intensity - minimum)) / (softening * safe)
    gain = xp.where(lit, gain, xp.zeros_like(gain))
    rgb = xp.clip(stack_last([red * gain, green * gain, blue * gain]), 0.0, None)
    return to_bytes(rgb / xp.clip(xp.amax(rgb, -1), 1.0, None)[..., None])


def legacy_lupton(
    flux: Any,
    *,
    scales: tuple[float, float, float] = LEGACY_SCALES,
    m: float = LEGACY_OFFSET,
    q: float = LEGACY_SOFTENING,
) -> Any:
    """Stretch g, r, z flux to RGB as the colour images of the Legacy Surveys.

    With s_b the scale of band b and x_b its flux,

        I = mean_b max(0, s_b x_b + m),    f = asinh(q I) / sqrt(q),    out_b = clip((s_b x_b + m) f / I, 0, 1).

    Red is z, green r, blue g.

    Parameters
    ----------
    flux : numpy.ndarray or torch.Tensor
        ``(..., 3, H, W)``, bands g, r, z in nanomaggies per pixel.
    scales : (float, float, float)
        Factors of g, r, z.
    m : float
        Offset added to the scaled flux.
    q : float
        Softening.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        ``(..., H, W, 3)`` uint8, of the kind of ``flux``.
    """
    flux = doubles(flux)
    lifted = [flux[..., band, :, :] * scales[band] + m for band in range(3)]
    gain = _gain(lifted, q)
    return to_bytes(stack_last([plane * gain for plane in reversed(lifted)]))


def ssl_legacysurvey(
    flux: Any,
    *,
    scales: tuple[float, float, float] = LEGACY_SCALES,
    m: float = LEGACY_OFFSET,
    q: float = LEGACY_SOFTENING,
) -> Any:
    """Stretch g, r, z flux to RGB as the images that the ssl-legacysurvey models were trained on.

    The constants, I and f are those of `legacy_lupton`; the parenthesis stands elsewhere,

        out_b = clip(x_b (s_b + m f / I), 0, 1),

    so that the images differ, and weights trained with one must be fed that one.

    Parameters
    ----------
    flux, scales, m, q
        As in `legacy_lupton`.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        ``(..., H, W, 3)`` uint8, of the kind of ``flux``.
    """
    flux = doubles(flux)
    planes = [flux[..., band, :, :] for band in range(3)]
    gain = _gain([plane * scale + m for plane, scale in zip(planes, scales)], q) * m
    return to_bytes(stack_last([planes[band] * (scales[band] + gain) for band in (2, 1, 0)]))


def _gain(lifted: list[Any], q: float) -> Any:
    """F / I of `legacy_lupton`; 0 where I is 0."""
    xp = namespace(lifted[0])
    first, second, third = (xp.clip(plane, 0.0, None) for plane in lifted)
    intensity = (first + second + third) / 3.0
    lit = intensity > 0
    gain = xp.arcsinh(q * intensity) / (math.sqrt(q) * xp.where(lit, intensity, xp.ones_like(intensity)))
    return xp.where(lit, gain, xp.zeros_like(gain))
