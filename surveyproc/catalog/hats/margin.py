"""Margins: the rows just outside a partition, kept with it so that a crossmatch misses nothing at its border."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from surveyproc.catalog.sky import ORDER, healpix29, pixel_range
from surveyproc.errors import UsageError

AVERAGE_WIDTH_ARCSEC = math.degrees(math.sqrt(4 * math.pi / 12)) * 3600  # of a cell at order 0
NARROWEST = 0.5  # width of the narrowest cell of an order over the average one, from below
CURVED_BELOW, STEPS = 9, 8  # at coarser orders an edge is cut into this many straight pieces
TOLERANCE = 1.001  # of a distance in the tangent plane


@dataclass(frozen=True)
class Cover:
    """The whole sky as cells that do not overlap: partitions, and what lies between them.

    Attributes
    ----------
    orders, pixels : numpy.ndarray
        Of the cells, in sky order.
    starts : numpy.ndarray
        First index of each at order 29.
    """

    orders: np.ndarray
    pixels: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, partitions: Iterable[tuple[int, int]]) -> Cover:
        """Cover the sky with partitions and, between them, the largest cells that fit."""
        cells, at = [], 0
        for order, pixel in sorted(partitions, key=lambda p: pixel_range(*p)):
            low, high = pixel_range(order, pixel)
            cells += [*_gap(at, low), (order, pixel)]
            at = high
        cells += _gap(at, pixel_range(0, 11)[1])
        orders, pixels = (np.array(column, np.int64) for column in zip(*cells))
        return cls(orders, pixels, pixels << (2 * (ORDER - orders)))

    def find(self, healpix29: np.ndarray) -> np.ndarray:
        """Number of the cell that each index at order 29 lies in."""
        return np.searchsorted(self.starts, healpix29, side="right") - 1


def _gap(low: int, high: int) -> list[tuple[int, int]]:
    """Fill a range of indices at order 29 with the largest cells."""
    cells = []
    while low < high:
        order = 0
        while (width := 4 ** (ORDER - order)) > high - low or low % width:
            order += 1
        cells.append((order, low // width))
        low += width
    return cells


def margin_rows(
    ra: np.ndarray, dec: np.ndarray, cover: Cover, threshold_arcsec: float
) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows that lie within a distance of a cell other than their own.

    Parameters
    ----------
    ra, dec : numpy.ndarray, shape (N,)
        Degrees, ICRS.
    cover : Cover
        Of the catalog's partitions.
    threshold_arcsec : float
        The distance.

    Returns
    -------
    rows, cells : numpy.ndarray
        Pairs of a row and the number of a cell in ``cover`` whose margin it belongs to; none twice.

    Raises
    ------
    UsageError
        When a partition is narrower than the threshold.

    Notes
    -----
    At an order whose cells are wider than the threshold, the circle around a row lies within its cell and
    the neighbours of that. Only to these are distances computed, point to edge in the tangent plane.
    """
    from astropy import units as u
    from astropy.coordinates import Latitude, Longitude
    from cdshealpix import nested

    depth = require_narrow(threshold_arcsec, int(cover.orders.max()))
    here = np.ma.getdata(healpix29(ra, dec))
    cells = nested.neighbours((here >> (2 * (ORDER - depth))).astype(np.uint64), depth, num_threads=1)
    around = np.asarray(np.ma.filled(cells, -1)).astype(np.int64)
    targets = cover.find(around << (2 * (ORDER - depth)))
    rows, columns = np.nonzero((targets != cover.find(here)[:, None]) & (around >= 0))
    if not len(rows):
        return rows, columns
    steps = STEPS if depth < CURVED_BELOW else 1
    lon, lat = nested.vertices(around[rows, columns].astype(np.uint64), depth, step=steps, num_threads=1)
    distances = _distance_to_border(
        Longitude(ra[rows], u.deg).rad,
        Latitude(dec[rows], u.deg).rad,
        np.asarray(lon.rad),
        np.asarray(lat.rad),
    )
    near = distances <= math.radians(threshold_arcsec / 3600) * TOLERANCE
    pairs = np.unique(np.stack([rows[near], targets[rows, columns][near]]), axis=1)
    return pairs[0], pairs[1]


def require_narrow(threshold_arcsec: float, order: int) -> int:
    """Check that a margin is narrower than the smallest partitions, those at ``order``.

    Returns
    -------
    int
        Finest order at which every cell is wider than the threshold.

    Raises
    ------
    UsageError
        When it is not, or is no width of a margin at all.
    """
    depth = _depth(threshold_arcsec)
    if order > depth:
        raise UsageError(
            f"a margin of {threshold_arcsec:g} arcsec is wider than the smallest partitions (order {order})",
            where="margin",
            fix=f"choose a smaller margin, or partitions with more rows (order {depth} at most)",
        )
    return depth


def _depth(threshold_arcsec: float) -> int:
    """Finest order at which every cell is wider than the threshold."""
    if not 0 < threshold_arcsec <= AVERAGE_WIDTH_ARCSEC * NARROWEST / 4:
        raise UsageError(f"a margin of {threshold_arcsec:g} arcsec is not between 0 and 7 degrees")
    return min(ORDER, int(math.log2(AVERAGE_WIDTH_ARCSEC * NARROWEST / threshold_arcsec)))


def _distance_to_border(ra: np.ndarray, dec: np.ndarray, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Smallest distance in radians of M points to closed outlines of K vertices each, ``(M, K)``."""
    away = lon - ra[:, None]
    x = np.cos(lat) * np.sin(away)
    y = np.sin(lat) * np.cos(dec)[:, None] - np.cos(lat) * np.sin(dec)[:, None] * np.cos(away)
    next_x, next_y = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    along_x, along_y = next_x - x, next_y - y
    length2 = np.maximum(along_x**2 + along_y**2, np.finfo(float).tiny)
    part = np.clip(-(x * along_x + y * along_y) / length2, 0, 1)
    return np.hypot(x + part * along_x, y + part * along_y).min(axis=1)
