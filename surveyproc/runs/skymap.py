"""Where on the sky the rows of a run are: rows per pixel, and which shards have rows in a pixel."""

from __future__ import annotations

from array import array
from functools import cached_property

import numpy as np

from surveyproc.catalog.sky import parent_pixel

ORDER = 8
MOST_ENTRIES = 2**24


class SkyMap:
    """A histogram of rows at HEALPix order 8, and the pixels of each shard as compressed sparse rows.

    Parameters
    ----------
    most_entries : int
        Pairs of shard and pixel that are kept, 4 bytes each. Beyond them the pairs are noted at a coarser
        order, so that memory stays bounded for input in no sky order, in which every shard is everywhere.

    Attributes
    ----------
    histogram : numpy.ndarray
        Rows of each nested pixel at order 8, ``(786432,)``.
    """

    def __init__(self, most_entries: int = MOST_ENTRIES) -> None:
        self.histogram = np.zeros(12 * 4**ORDER, dtype=np.int64)
        self._most, self._order = most_entries, ORDER
        self._pixels, self._counts = array("i"), array("i")

    def add(self, healpix29: np.ndarray) -> None:
        """Note the rows of the next shard by their indices at order 29."""
        pixels, rows = np.unique(parent_pixel(healpix29, ORDER), return_counts=True)
        self.histogram[pixels] += rows
        noted = np.unique(pixels >> (2 * (ORDER - self._order))).astype(np.int32)
        self._pixels.frombytes(noted.tobytes())
        self._counts.append(len(noted))
        while len(self._pixels) > self._most and self._order > 0:
            self._coarsen()

    def shards_in(self, order: int, pixel: int) -> np.ndarray:
        """Sorted numbers of the shards that may have rows in a pixel; no other has any."""
        low, high = pixel, pixel + 1
        if order > self._order:
            low >>= 2 * (order - self._order)
            high = low + 1
        finer = 2 * max(0, self._order - order)
        pixels, shards = self._by_pixel
        first, last = np.searchsorted(pixels, [low << finer, high << finer])
        return np.unique(shards[first:last])

    @property
    def entries(self) -> int:
        """Pairs of shard and pixel that are held."""
        return len(self._pixels)

    @cached_property
    def _by_pixel(self) -> tuple[np.ndarray, np.ndarray]:
        pixels, shards = self._rows()
        order = np.argsort(pixels, kind="stable")
        return pixels[order], shards[order]

    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        counts = np.frombuffer(self._counts, dtype=np.int32)
        return np.frombuffer(self._pixels, dtype=np.int32), np.repeat(
            np.arange(len(counts), dtype=np.int32), counts
        )

    def _coarsen(self) -> None:
        pixels, shards = self._rows()
        pixels = pixels >> 2
        first = np.ones(len(pixels), dtype=bool)
        first[1:] = (pixels[1:] != pixels[:-1]) | (shards[1:] != shards[:-1])
        counts = np.bincount(shards[first], minlength=len(self._counts)).astype(np.int32)
        self._pixels, self._counts = array("i", pixels[first].tobytes()), array("i", counts.tobytes())
        self._order -= 1
