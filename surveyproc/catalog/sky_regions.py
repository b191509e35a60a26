"""Regions of the sky: which positions lie inside, and which HEALPix pixels may hold such positions."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from surveyproc.catalog.sky import ORDER, healpix29, pixel_centres, pixel_radius
from surveyproc.errors import InputError, SurveyprocError, UsageError
from surveyproc.stores import local_copy

COVER_PIXELS = 256
STEP = 2
WIDEST_POLYGON = 80.0  # degrees from the centre to a corner: the projection has no points from 90 on


class Region(ABC):
    """A part of the sky."""

    @abstractmethod
    def contains(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Say which positions (degrees) lie inside; NaN does not."""

    @abstractmethod
    def near(self, ra: np.ndarray, dec: np.ndarray, margin: float) -> np.ndarray:
        """Say around which positions there may be a point of the region within ``margin`` degrees.

        It may err on the side of True only.
        """

    def cover(self) -> np.ndarray:
        """Cover the region with pixels.

        Returns
        -------
        ndarray of int64, shape (N, 2)
            Ranges ``[low, high)`` of pixels at order 29, ascending and apart. Each position inside is in one;
            pixels are a good deal smaller than the region, so that little else is.
        """
        order, pixels = 0, np.arange(12)
        while True:
            pixels = pixels[self.near(*pixel_centres(order, pixels), pixel_radius(order))]
            if len(pixels) > COVER_PIXELS or order + STEP > ORDER:
                break
            order += STEP
            pixels = (pixels[:, None] * 4**STEP + np.arange(4**STEP)).reshape(-1)
        shift = 2 * (ORDER - order)
        return _joined(np.stack([pixels << shift, (pixels + 1) << shift], axis=1))


@dataclass(frozen=True)
class Cone(Region):
    """Positions within a distance of a centre.

    Parameters
    ----------
    ra, dec : float
        Centre in degrees, ICRS.
    radius_arcsec : float
        Up to 648,000 (180 degrees); positions at this distance are inside.

    Raises
    ------
    UsageError
        For values that are not on the sky; all of them are named.
    """

    ra: float
    dec: float
    radius_arcsec: float

    def __post_init__(self) -> None:
        problems = _off_the_sky([self.ra], [self.dec])
        if not 0 < self.radius_arcsec <= 648_000:
            problems.append(f"radius {self.radius_arcsec:g}: arcseconds, above 0 and up to 648000")
        _refuse(problems, "cone")

    def contains(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Positions within the radius."""
        return self.distance_arcsec(ra, dec) <= self.radius_arcsec

    def near(self, ra: np.ndarray, dec: np.ndarray, margin: float) -> np.ndarray:
        """Positions within radius and margin."""
        return self.distance_arcsec(ra, dec) <= self.radius_arcsec + 3600 * margin

    def distance_arcsec(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Distance from the centre."""
        return separation_arcsec(ra, dec, self.ra, self.dec)


@dataclass(frozen=True)
class Box(Region):
    """Positions between two meridians and two parallels, edges included.

    Parameters
    ----------
    ra : (float, float)
        Degrees, from west to east: (350, 10) goes through 0. A span of 360 or more is every RA.
    dec : (float, float)
        Degrees, ascending.

    Raises
    ------
    UsageError
        For values that are not on the sky, or ``dec`` that descends; all problems are named.
    """

    ra: tuple[float, float]
    dec: tuple[float, float]

    def __post_init__(self) -> None:
        problems = _off_the_sky(self.ra, self.dec)
        if self.dec[0] > self.dec[1]:
            problems.append(f"dec {self.dec[0]:g} to {self.dec[1]:g}: give the southern edge first")
        _refuse(problems, "box")

    def contains(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Positions between the edges."""
        inside = (dec >= self.dec[0]) & (dec <= self.dec[1]) & np.isfinite(ra)
        return inside & self._between(np.asarray(ra) % 360, self.ra[0] % 360, self.ra[1] % 360)

    def near(self, ra: np.ndarray, dec: np.ndarray, margin: float) -> np.ndarray:
        """Positions between edges that are moved outwards by the margin."""
        low, high = self.dec[0] - margin, self.dec[1] + margin
        # A circle of radius r around dec spans asin(sin r / cos dec) to either side, or all of RA with a pole in it.
        ratio = np.sin(np.radians(margin)) / np.maximum(np.cos(np.radians(dec)), 1e-300)
        spans = np.degrees(np.arcsin(np.minimum(ratio, 1)))
        around_pole = (np.abs(dec) + margin >= 90) | (margin >= 90)
        from_west = (np.asarray(ra) - self.ra[0] + spans) % 360
        beside = around_pole | (from_west <= (self.ra[1] - self.ra[0]) % 360 + 2 * spans + 1e-9)
        return (dec >= low) & (dec <= high) & (beside | self._every_ra)

    @property
    def _every_ra(self) -> bool:
        return self.ra[1] - self.ra[0] >= 360

    def _between(self, ra: np.ndarray, west: float, east: float) -> np.ndarray:
        if self._every_ra:
            return np.ones(len(ra), dtype=bool)
        return (ra >= west) & (ra <= east) if west <= east else (ra >= west) | (ra <= east)


@dataclass(frozen=True)
class Polygon(Region):
    """Positions inside a polygon whose edges are great circles.

    Parameters
    ----------
    corners : sequence of (float, float)
        RA and Dec in degrees of three corners or more, in either sense; the last is joined to the first. All
        within 80 degrees of their mean direction; the inside is the side that its opposite is not on.

    Raises
    ------
    UsageError
        For fewer corners, corners that are not on the sky, or a polygon that is too large.
    """

    corners: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        problems = [] if len(self.corners) >= 3 else [f"{len(self.corners)} corners: at least 3"]
        problems += _off_the_sky([c[0] for c in self.corners], [c[1] for c in self.corners])
        _refuse(problems, "polygon")
        if (self._vectors @ self._axes[2]).min() < np.cos(np.radians(WIDEST_POLYGON)):
            raise UsageError(
                f"a corner is more than {WIDEST_POLYGON:g} degrees from the middle of the polygon",
                where="polygon",
                fix="cut it into smaller polygons, or give a MOC",
            )

    def contains(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Positions inside, by the crossings of a ray; of positions on an edge some are."""
        x, y, front = self._project(unit_vectors(ra, dec))
        corners_x, corners_y, _ = self._project(self._vectors)
        inside = np.zeros(len(x), dtype=bool)
        for i in range(len(corners_x)):
            x1, y1, x2, y2 = corners_x[i - 1], corners_y[i - 1], corners_x[i], corners_y[i]
            if y1 == y2:
                continue
            inside ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
        return inside & front

    def near(self, ra: np.ndarray, dec: np.ndarray, margin: float) -> np.ndarray:
        """Positions inside, or within the margin of an edge."""
        points, found = unit_vectors(ra, dec), self.contains(ra, dec)
        for i in range(len(self._vectors)):
            found |= _distance_to_arc(points, self._vectors[i - 1], self._vectors[i]) <= margin
        return found

    @cached_property
    def _vectors(self) -> np.ndarray:
        return unit_vectors(*np.transpose(np.asarray(self.corners, np.float64)))

    @cached_property
    def _axes(self) -> np.ndarray:
        """Right-handed axes with the mean direction as the third."""
        middle = self._vectors.sum(axis=0)
        length = np.linalg.norm(middle)
        middle = middle / length if length > 1e-9 else -self._vectors[0]
        across = np.cross(np.eye(3)[np.argmin(np.abs(middle))], middle)
        across /= np.linalg.norm(across)
        return np.stack([across, np.cross(middle, across), middle])

    def _project(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gnomonic projection, in which great circles are straight lines; and which points are in front."""
        x, y, depth = (vectors @ self._axes.T).T
        front = depth > 1e-6
        depth = np.where(front, depth, 1)
        return x / depth, y / depth, front


@dataclass(frozen=True, eq=False)
class Moc(Region):
    """Positions in the pixels of a Multi-Order Coverage map.

    Parameters
    ----------
    ranges : ndarray of int64, shape (N, 2)
        Half-open ranges of nested pixels at order 29, ascending and apart.
    """

    ranges: np.ndarray

    @classmethod
    def load(cls, uri: str | os.PathLike[str]) -> Moc:
        """Read a MOC from a file anywhere: FITS, or JSON and ASCII by their suffixes ``.json`` and ``.txt``.

        Raises
        ------
        InputError
            When it is not there, or no MOC, or an empty one.
        """
        from mocpy import MOC

        form = {".json": "json", ".txt": "ascii"}.get(os.path.splitext(uri)[1], "fits")
        try:
            with local_copy(str(uri)) as path:
                loaded: Any = MOC.load(str(path), form)
        except SurveyprocError:
            raise
        except Exception as error:
            raise InputError(
                f"the MOC cannot be read: {str(error).splitlines()[0] or type(error).__name__}",
                where=str(uri),
                fix="give a MOC file: .fits, .json, or ASCII as .txt",
            ) from error
        ranges = np.asarray(loaded.to_depth29_ranges, np.int64).reshape(-1, 2)
        if not len(ranges):
            raise InputError("the MOC is empty", where=str(uri), fix="check what made it")
        return cls(ranges)

    def contains(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Positions in a pixel of the map."""
        pixels = healpix29(ra, dec)
        place = np.searchsorted(self.ranges[:, 0], pixels.data, side="right") - 1
        inside = (place >= 0) & (pixels.data < self.ranges[np.maximum(place, 0), 1])
        return inside & ~np.ma.getmaskarray(pixels)

    def near(self, ra: np.ndarray, dec: np.ndarray, margin: float) -> np.ndarray:
        """Everywhere: its own ranges say more."""
        return np.ones(len(ra), dtype=bool)

    def cover(self) -> np.ndarray:
        """Give its own ranges."""
        return self.ranges


def separation_arcsec(ra: Any, dec: Any, ra0: float, dec0: float) -> np.ndarray:
    """Compute distances on the sky.

    Parameters
    ----------
    ra, dec : array_like
        Degrees.
    ra0, dec0 : float
        Degrees.

    Returns
    -------
    ndarray
        Arcseconds; NaN where a position is.

    Notes
    -----
    Vincenty's formula: exact for near, far and opposite positions alike.
    """
    d, d0 = np.radians(dec), np.radians(dec0)
    turn = np.radians(np.asarray(ra, np.float64) - ra0)
    east = np.cos(d) * np.sin(turn)
    north = np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(turn)
    along = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(turn)
    return np.degrees(np.arctan2(np.hypot(east, north), along)) * 3600


def unit_vectors(ra: Any, dec: Any) -> np.ndarray:
    """Directions of positions in degrees, shape (N, 3)."""
    a, d = np.radians(np.asarray(ra, np.float64)), np.radians(np.asarray(dec, np.float64))
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def _distance_to_arc(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of points from the shorter arc between two directions, in degrees."""
    chords = np.minimum(np.linalg.norm(points - start, axis=-1), np.linalg.norm(points - end, axis=-1))
    nearest = np.degrees(2 * np.arcsin(np.minimum(chords / 2, 1)))
    normal = np.cross(start, end)
    length = np.linalg.norm(normal)
    if length < 1e-12:
        return nearest
    normal = normal / length
    beside = (points @ np.cross(normal, start) >= 0) & (points @ np.cross(end, normal) >= 0)
    to_circle = np.degrees(np.arcsin(np.clip(np.abs(points @ normal), -1, 1)))
    return np.where(beside, np.minimum(to_circle, nearest), nearest)


def _joined(ranges: np.ndarray) -> np.ndarray:
    """Join ascending ranges that touch."""
    if not len(ranges):
        return ranges
    breaks = np.flatnonzero(ranges[1:, 0] > ranges[:-1, 1])
    starts = ranges[np.concatenate([[0], breaks + 1]), 0]
    stops = ranges[np.concatenate([breaks, [len(ranges) - 1]]), 1]
    return np.stack([starts, stops], axis=1)


def _off_the_sky(ra: Sequence[float], dec: Sequence[float]) -> list[str]:
    problems = [f"ra {a:g}: degrees, -360 to 360" for a in ra if not abs(a) <= 360]
    return problems + [f"dec {d:g}: degrees, -90 to 90" for d in dec if not abs(d) <= 90]


def _refuse(problems: list[str], where: str) -> None:
    if problems:
        raise UsageError(
            "; ".join(problems), where=where, fix="positions are decimal degrees (ICRS), sizes arcseconds"
        )
