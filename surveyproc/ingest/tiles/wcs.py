"""Sky positions to pixels of a tile and back, vectorised, and what is wrong with a header's WCS."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np

from surveyproc.ingest.tiles.headers import BadFile
from surveyproc.ingest.tiles.quiet import quiet
from surveyproc.ingest.tiles.tile import Tile

BORDER_POINTS = 8
_STEP = 0.5


def celestial(cards: str) -> Any:
    """Make the celestial WCS of header cards; each thread has its own, as wcslib's are not for several.

    Raises
    ------
    BadFile
        ``no_wcs`` when there is none: without this check astropy takes pixels for (ra - 1, dec - 1).
    """
    return _celestial(cards, threading.get_ident())


@functools.lru_cache(maxsize=4096)
def _celestial(cards: str, _thread: int) -> Any:
    from astropy.io.fits import Header
    from astropy.wcs import WCS
    from astropy.wcs.utils import wcs_to_celestial_frame

    with quiet():
        try:
            wcs = WCS(Header.fromstring(cards), naxis=2, relax=True)
            if wcs.has_celestial:
                wcs_to_celestial_frame(wcs)
        except Exception as error:  # wcslib and astropy raise many kinds for damaged cards
            raise BadFile(
                "no_wcs", f"the WCS cannot be read: {str(error).strip().splitlines()[0]}"
            ) from error
    if not wcs.has_celestial:
        raise BadFile("no_wcs", "the header has no celestial WCS (CTYPE1/2 are no sky coordinates)")
    return wcs


def locate(tile: Tile, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project sky positions into the pixels of a tile.

    Parameters
    ----------
    tile : Tile
        With a WCS.
    ra, dec : ndarray, shape (N,)
        Degrees, ICRS.

    Returns
    -------
    x, y : ndarray, shape (N,)
        0-based, the centre of the first pixel is (0, 0). NaN where the position is not usable or farther
        from the tile than its own radius, where projections give finite nonsense.
    """
    ra, dec = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
    near = separation_deg(*tile.centre, ra, dec) <= 2 * tile.radius_deg
    x, y = np.full(len(ra), np.nan), np.full(len(ra), np.nan)
    if near.any():
        x[near], y[near] = sky_to_pixel(tile.wcs, ra[near], dec[near])
    return x, y


def edge_distance(tile: Tile, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance in pixels from positions to the nearest outer edge of a tile; negative outside, NaN for NaN."""
    height, width = tile.shape
    return np.minimum(np.minimum(x + 0.5, width - 0.5 - x), np.minimum(y + 0.5, height - 0.5 - y))


def footprint(tile: Tile) -> np.ndarray:
    """Positions (N, 2) in ICRS degrees along the outer edge of a tile, in order, `BORDER_POINTS` to a side."""
    return np.column_stack(border(tile.wcs, tile.shape))


def sky_to_pixel(cards: str, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project ICRS degrees to 0-based pixels with one vectorised call, distortions included."""
    wcs = celestial(cards)
    lon, lat = _to_frame(wcs, ra, dec)
    world = (lon, lat) if wcs.wcs.lng == 0 else (lat, lon)
    with np.errstate(invalid="ignore"):
        x, y = wcs.all_world2pix(*world, 0, quiet=True)
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def pixel_to_sky(cards: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deproject 0-based pixels to ICRS degrees."""
    wcs = celestial(cards)
    world = wcs.all_pix2world(x, y, 0)
    lon, lat = world if wcs.wcs.lng == 0 else world[::-1]
    return _from_frame(wcs, np.asarray(lon), np.asarray(lat))


def local_cd(cards: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Linear map from pixels to the tangent plane at each position.

    A tile's own CD matrix holds at its reference point only: elsewhere north turns and distortions add up.

    Parameters
    ----------
    cards : str
    x, y : ndarray, shape (N,)

    Returns
    -------
    ndarray, shape (N, 2, 2)
        ``[[cd11, cd12], [cd21, cd22]]`` in degrees per pixel, by central differences; a TAN projection with
        it and (x, y) as the reference point is the tile's WCS around (x, y).
    """
    ra0, dec0 = pixel_to_sky(cards, x, y)
    cd = np.empty((len(x), 2, 2))
    for axis, (dx, dy) in enumerate(((_STEP, 0.0), (0.0, _STEP))):
        ahead = tangent_plane(ra0, dec0, *pixel_to_sky(cards, x + dx, y + dy))
        behind = tangent_plane(ra0, dec0, *pixel_to_sky(cards, x - dx, y - dy))
        for row in (0, 1):
            cd[:, row, axis] = (ahead[row] - behind[row]) / (2 * _STEP)
    return cd


def tangent_plane(
    ra0: np.ndarray, dec0: np.ndarray, ra: np.ndarray, dec: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gnomonic projection of (ra, dec) on the plane that touches the sky at (ra0, dec0); all in degrees."""
    a, d, d0 = np.radians(ra - ra0), np.radians(dec), np.radians(dec0)
    cosine = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    xi = np.cos(d) * np.sin(a) / cosine
    eta = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / cosine
    return np.degrees(xi), np.degrees(eta)


def separation_deg(ra0: float, dec0: float, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Angle between one position and others (haversine), degrees."""
    a, d, d0 = np.radians(ra - ra0), np.radians(dec), np.radians(dec0)
    with np.errstate(invalid="ignore"):
        h = np.sin((d - d0) / 2) ** 2 + np.cos(d) * np.cos(d0) * np.sin(a / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(h, 0, 1))))


def border(cards: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions along the outer edge of a tile, `BORDER_POINTS` to a side, in order."""
    height, width = shape
    along = np.arange(BORDER_POINTS) / BORDER_POINTS
    low, one = np.zeros(BORDER_POINTS), np.ones(BORDER_POINTS)
    x = np.concatenate([along, one, 1 - along, low]) * width - 0.5
    y = np.concatenate([low, along, one, 1 - along]) * height - 0.5
    return pixel_to_sky(cards, x, y)


def pixel_scale(cards: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Side in arcsec of the square with a pixel's area, at each position."""
    return 3600 * np.sqrt(np.abs(np.linalg.det(local_cd(cards, x, y))))


def _to_frame(wcs: Any, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frame = _frame(wcs)
    if frame is None:
        return np.asarray(ra, np.float64), np.asarray(dec, np.float64)
    from astropy.coordinates import SkyCoord

    moved = SkyCoord(ra, dec, unit="deg", frame="icrs").transform_to(frame)
    return moved.spherical.lon.deg, moved.spherical.lat.deg


def _from_frame(wcs: Any, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frame = _frame(wcs)
    if frame is None:
        return lon, lat
    from astropy.coordinates import SkyCoord

    moved = SkyCoord(lon, lat, unit="deg", frame=frame).icrs
    return moved.ra.deg, moved.dec.deg


def _frame(wcs: Any) -> Any:
    """Frame of a WCS, None for ICRS."""
    from astropy.wcs.utils import wcs_to_celestial_frame

    frame = wcs_to_celestial_frame(wcs)
    return None if frame.name == "icrs" else frame
