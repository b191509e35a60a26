"""Decoded pixels to those of the new catalog."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from surveyproc.cutouts import ImageSpec
from surveyproc.errors import UsageError
from surveyproc.quality import Quality

SCALED = ("pixel_scale_arcsec", "cd11", "cd12", "cd21", "cd22")
PLACED = ("x0", "y0")


@dataclass(frozen=True)
class Wanted:
    """What the pixels are to be.

    Attributes
    ----------
    size : int, optional
        Side to resize square display images to (PIL's LANCZOS, antialiased).
    dtype : str, optional
        ``float16`` for flux in half the space; by default what the file has.
    """

    size: int | None = None
    dtype: str | None = None

    def spec(self, source: ImageSpec) -> ImageSpec:
        """Describe the pixels of the new catalog.

        Raises
        ------
        UsageError
            For a size or type that these pixels cannot have.
        """
        display = source.dtype == "uint8"
        problems = []
        if self.size is not None and self.size < 1:
            problems.append(f"--size {self.size} is not a number of pixels")
        if self.size is not None and not display:
            problems.append(
                "--size is for display images: flux per pixel would change with the size of a pixel"
            )
        if self.dtype is not None and display != (self.dtype == "uint8"):
            more = "flux becomes uint8 by a stretch only" if not display else "display images stay uint8"
            problems.append(f"--dtype {self.dtype}, but the pixels are {source.dtype}: {more}")
        if problems:
            raise UsageError("; ".join(problems), fix="leave it out")
        height, width, channels = source.shape
        shape = (self.size or height, self.size or width, channels)
        return replace(source, encoding="raw", shape=shape, dtype=self.dtype or source.dtype)


def narrowed(pixels: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Cast pixels; says which rows have finite values beyond the range, which become its ends.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(N, H, W, C)``.
    dtype : numpy.dtype

    Returns
    -------
    pixels : numpy.ndarray
        Of ``dtype``.
    quality : numpy.ndarray
        ``(N,)`` int32: `Quality.SATURATED` where a value was beyond.
    """
    quality = np.zeros(len(pixels), np.int32)
    if pixels.dtype == dtype:
        return pixels, quality
    if dtype == np.float16:
        most = np.float32(np.finfo(np.float16).max)
        beyond = np.isfinite(pixels) & (np.abs(pixels) > most)
        rows = beyond.any(axis=(1, 2, 3))
        quality[rows] = Quality.SATURATED
        if rows.any():
            pixels = np.where(beyond, np.clip(pixels, -most, most), pixels)
    return pixels.astype(dtype), quality
