"""HEALPix pixels of a catalog that is made of cutouts: chosen by bytes before any pixel is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surveyproc.catalog.hats import choose_occupied_pixels
from surveyproc.catalog.sky import ORDER, parent_pixel

FINEST = 13


@dataclass(frozen=True)
class Partitions:
    """Pixels that do not overlap, in the order of the sky curve.

    Attributes
    ----------
    order, pixel : numpy.ndarray
        int64.
    """

    order: np.ndarray
    pixel: np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    def name(self, number: int) -> str:
        """Name of a partition among the parts of an attempt."""
        return f"{self.order[number]}-{self.pixel[number]}"

    def of(self, healpix: np.ndarray) -> np.ndarray:
        """Number of the partition that holds each index of order 29."""
        return np.searchsorted(self._lows, healpix, side="right") - 1

    @property
    def _lows(self) -> np.ndarray:
        return self.pixel << (2 * (ORDER - self.order))


class Histogram:
    """Rows in each occupied pixel at order 13 (26 arcsec), kept as sorted pairs: memory grows with the sky covered."""

    def __init__(self) -> None:
        self.pixels, self.rows = np.empty(0, np.int64), np.empty(0, np.int64)

    def add(self, healpix: np.ndarray) -> None:
        """Count rows by their indices at order 29."""
        pixels, rows = np.unique(parent_pixel(healpix, FINEST), return_counts=True)
        together = np.concatenate([self.pixels, pixels])
        self.pixels, place = np.unique(together, return_inverse=True)
        self.rows = np.bincount(place, np.concatenate([self.rows, rows]), len(self.pixels)).astype(np.int64)


def choose_partitions(histogram: Histogram, most: int) -> Partitions:
    """Cover the occupied pixels with the largest ones that hold at most ``most`` rows.

    A pixel of order 13 is taken although it holds more.
    """
    chosen = choose_occupied_pixels(histogram.pixels, histogram.rows, FINEST, most)
    orders, pixels = np.array(list(chosen), np.int64).reshape(-1, 2).T
    along = np.argsort(pixels << (2 * (ORDER - orders)))
    return Partitions(orders[along], pixels[along])
