"""Where the sources of a tile are in its pixels, and which of them cannot be cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from surveyproc.catalog.sky import usable_positions
from surveyproc.ingest.tiles.intervals import Boxes
from surveyproc.ingest.tiles.settings import CutSettings
from surveyproc.ingest.tiles.tile import Tile
from surveyproc.ingest.tiles.wcs import edge_distance, local_cd, locate

MAX_SPAN = 8192
WHOLE_PIXEL_NOISE = 1e-6  # a source on a whole pixel comes out of a projection as x ± 1e-9


@dataclass(frozen=True)
class Places:
    """Boxes of sources in a tile.

    Attributes
    ----------
    x, y : ndarray, shape (N,)
        Position, 0-based.
    left, bottom, side : ndarray, shape (N,)
        int64; first column and row, and pixels on a side, of the box that is read. It may reach
        beyond the tile.
    span : ndarray, shape (N,), or None
        Side of the field in pixels when each source has its own; None when boxes are the stamps.
    cd : ndarray, shape (N, 2, 2)
        Degrees per pixel of the tile.
    """

    x: np.ndarray
    y: np.ndarray
    left: np.ndarray
    bottom: np.ndarray
    side: np.ndarray
    span: np.ndarray | None
    cd: np.ndarray

    def __getitem__(self, part: slice | np.ndarray) -> Places:
        """Some of them."""
        span = None if self.span is None else self.span[part]
        return Places(
            self.x[part],
            self.y[part],
            self.left[part],
            self.bottom[part],
            self.side[part],
            span,
            self.cd[part],
        )

    def boxes(self, shape: tuple[int, int]) -> Boxes:
        """What of the boxes is on the tile."""
        return Boxes.on(shape, self.left, self.bottom, self.side)

    def beyond(self, shape: tuple[int, int]) -> np.ndarray:
        """Which boxes reach beyond the tile."""
        height, width = shape
        low = (self.left < 0) | (self.bottom < 0)
        return low | (self.left + self.side > width) | (self.bottom + self.side > height)


@dataclass(frozen=True)
class Placed:
    """What became of sources before any pixel was read.

    Attributes
    ----------
    good : ndarray, shape (N,), bool
    reasons : dict of str to (ndarray, str)
        Reject reason to which sources it hits, and the detail.
    places : Places
        Of the good ones, in order.
    """

    good: np.ndarray
    reasons: dict[str, tuple[np.ndarray, str]]
    places: Places


def place(tile: Tile, sources: pa.Table, settings: CutSettings) -> Placed:
    """Project sources into a tile with one vectorised call, and check them.

    A stamp of N pixels has its first column at ``ceil(x - N/2)``, so that the source is within half a pixel of
    the centre (N - 1)/2, as in astropy's Cutout2D.
    """
    ra, dec = (_floats(sources, name) for name in ("ra", "dec"))
    known = usable_positions(ra, dec)
    x, y = locate(tile, ra, dec)
    with np.errstate(invalid="ignore"):
        on_tile = known & (edge_distance(tile, x, y) >= 0)
    reasons = {
        "no_position": (~known, "ra or dec is missing or not on the sky"),
        "outside": (known & ~on_tile, f"the position is not on tile {tile.name}"),
    }
    cd = local_cd(tile.wcs, x[on_tile], y[on_tile])
    if settings.size_column is None:
        side = np.full(int(on_tile.sum()), settings.size, np.int64)
        first = settings.size / 2 + WHOLE_PIXEL_NOISE
        left, bottom = (np.ceil(v[on_tile] - first).astype(np.int64) for v in (x, y))
        return Placed(on_tile, reasons, Places(x[on_tile], y[on_tile], left, bottom, side, None, cd))
    field = _floats(sources, settings.size_column)[on_tile]
    with np.errstate(invalid="ignore"):
        span = field / scale_of(cd)
        sized = (span > 0) & (span <= MAX_SPAN)
    good = on_tile.copy()
    good[on_tile] = sized
    detail = f"{settings.size_column} is no field of view in arcsec up to {MAX_SPAN} pixels of the tile"
    reasons["bad_size"] = (on_tile & ~good, detail)
    x, y, span = x[good], y[good], span[sized]
    left, bottom = (np.floor(v - span / 2 + 0.5).astype(np.int64) for v in (x, y))
    ends = [np.ceil(v + span / 2 + 0.5).astype(np.int64) for v in (x, y)]
    side = np.maximum(ends[0] - left, ends[1] - bottom)
    return Placed(good, reasons, Places(x, y, left, bottom, side, span, cd[sized]))


def scale_of(cd: np.ndarray) -> np.ndarray:
    """Side in arcsec of the square with a pixel's area."""
    return 3600 * np.sqrt(np.abs(np.linalg.det(cd)))


def _floats(sources: pa.Table, name: str) -> np.ndarray:
    return sources[name].cast(pa.float64()).to_numpy()
