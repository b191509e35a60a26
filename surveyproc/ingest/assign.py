"""Which tile a source is cut from: of the soundest that hold it, the one in which it is farthest from the edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surveyproc.catalog.sky import ORDER
from surveyproc.ingest.tiles import Tile, edge_distance, locate

NO_TILE = -1
MARGIN = 1.001
WHOLE_SKY_DEG = 60.0
RESOLUTION_ARCSEC = 1e-4


@dataclass(frozen=True)
class Coverage:
    """Where tiles are on the sky: ranges of HEALPix indices at order 29 that hold the circle around each.

    Attributes
    ----------
    low, high : numpy.ndarray
        Half-open ranges, disjoint within a tile.
    first : numpy.ndarray
        Position of each tile's first range, and one past the last tile's.
    """

    low: np.ndarray
    high: np.ndarray
    first: np.ndarray


@dataclass(frozen=True)
class Assignment:
    """What was found for each source.

    Attributes
    ----------
    tile : numpy.ndarray
        int32 number of the tile, `NO_TILE` where no tile holds the source.
    claims : numpy.ndarray
        int32 number of tiles that hold it.
    """

    tile: np.ndarray
    claims: np.ndarray


def coverage(tiles: Sequence[Tile]) -> Coverage:
    """Cover the circle around each tile with HEALPix pixels a few times smaller than it."""
    pieces = [_ranges(tile) for tile in tiles]
    first = np.concatenate([[0], np.cumsum([len(low) for low, _ in pieces])]).astype(np.int64)
    low, high = (np.concatenate([p[i] for p in pieces] or [np.empty(0, np.int64)]) for i in (0, 1))
    return Coverage(low, high, first)


def assign(
    ra: np.ndarray, dec: np.ndarray, healpix: np.ndarray, tiles: Sequence[Tile], covered: Coverage
) -> Assignment:
    """Find the tile of each source.

    Of the tiles that hold a source, one whose WCS is trusted comes before one with a suspect WCS, and either before
    one that cannot be used, from which the source can only be a reject. Among equally sound ones it is the tile in
    which the source is farthest from the edge, in arcsec; of equal ones the first by name. Only sources within the
    circle around a tile are projected into it, so that the work grows as the sources and the tiles do, not as their
    product.

    Parameters
    ----------
    ra, dec : ndarray, shape (N,)
        Usable positions, ICRS degrees.
    healpix : ndarray, shape (N,)
        Their indices at order 29.
    tiles : sequence of Tile
        Sorted by name.
    covered : Coverage
        Of these tiles.
    """
    order = np.argsort(healpix, kind="stable")
    ordered = healpix[order]
    starts, stops = np.searchsorted(ordered, covered.low), np.searchsorted(ordered, covered.high)
    best = np.full(len(healpix), NO_TILE, np.int32)
    claims = np.zeros(len(healpix), np.int32)
    farthest = np.full(len(healpix), -1.0)
    soundness = np.zeros(len(healpix), np.int8)
    for number, tile in enumerate(tiles):
        span = range(int(covered.first[number]), int(covered.first[number + 1]))
        near = [order[starts[i] : stops[i]] for i in span if stops[i] > starts[i]]
        if not near:
            continue
        rows = np.concatenate(near)
        distance = edge_distance(tile, *locate(tile, ra[rows], dec[rows])) * tile.pixel_scale_arcsec
        inside = distance >= 0
        rows = rows[inside]
        distance = np.round(distance[inside] / RESOLUTION_ARCSEC) * RESOLUTION_ARCSEC
        claims[rows] += 1
        sound = _soundness(tile)
        better = (sound > soundness[rows]) | (sound == soundness[rows]) & (distance > farthest[rows])
        best[rows[better]] = number
        farthest[rows[better]] = distance[better]
        soundness[rows[better]] = sound
    return Assignment(best, claims)


def _soundness(tile: Tile) -> int:
    """How far a tile is to be preferred by what its headers say: 1 unusable, 2 a suspect WCS, 3 neither."""
    if tile.problem[0]:
        return 1
    return 2 if tile.suspect_wcs else 3


def _ranges(tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    nothing = np.empty(0, np.int64)
    if not tile.wcs:
        return nothing, nothing
    if tile.radius_deg >= WHOLE_SKY_DEG:
        return np.zeros(1, np.int64), np.full(1, 12 << (2 * ORDER), np.int64)
    import astropy.units as u
    from astropy.coordinates import Latitude, Longitude
    from cdshealpix.nested import cone_search

    radius = max(tile.radius_deg * MARGIN, 1e-6)
    depth = int(np.clip(np.floor(np.log2(58.6 / (radius / 2))), 0, ORDER))
    ipix, depths, _ = cone_search(
        Longitude(tile.centre[0], u.deg), Latitude(tile.centre[1], u.deg), radius * u.deg, depth
    )
    shift = 2 * (ORDER - depths.astype(np.int64))
    low = ipix.astype(np.int64) << shift
    high = (ipix.astype(np.int64) + 1) << shift
    sort = np.argsort(low)
    low, high = low[sort], high[sort]
    apart = np.flatnonzero(low[1:] != high[:-1]) + 1
    return low[np.concatenate([[0], apart])], high[np.concatenate([apart - 1, [len(high) - 1]])]
