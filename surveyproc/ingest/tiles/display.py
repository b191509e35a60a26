"""Stretched cutouts: display pixels made of flux while it is at hand."""

from __future__ import annotations

import numpy as np

from surveyproc.cutouts import ImageSpec
from surveyproc.errors import UsageError


def stretched_image_spec(name: str, flux: ImageSpec) -> ImageSpec:
    """Describe what a stretch makes of flux cutouts.

    Raises
    ------
    UsageError
        For an unknown stretch, or one that needs other bands.
    """
    from surveyproc.images.stretches import find_stretch, stretch_problems, stretched_spec

    stretch = find_stretch(name)
    if problems := stretch_problems(flux, stretch, True):
        raise UsageError(
            f"the stretch {name} cannot be made: {'; '.join(problems)}",
            where=f"--stretch {name} --bands {','.join(flux.bands)}",
            fix="give the bands that it needs, in --bands",
        )
    return stretched_spec(flux, stretch)


def stretched_pixels(
    name: str, pixels: np.ndarray, flux: ImageSpec, pixel_scale_arcsec: np.ndarray
) -> np.ndarray:
    """Stretch flux cutouts.

    Parameters
    ----------
    name : str
    pixels : ndarray, shape (N, C, H, W)
        Flux.
    flux : ImageSpec
        What it is.
    pixel_scale_arcsec : ndarray, shape (N,)

    Returns
    -------
    ndarray, shape (N, H, W, C'), uint8
    """
    from surveyproc.images.stretches import find_stretch, stretched

    return np.asarray(stretched(pixels.transpose(0, 2, 3, 1), flux, find_stretch(name), pixel_scale_arcsec))
