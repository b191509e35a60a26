"""What a simulated galaxy is, before any light is painted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

TYPES = {
    "elliptical": 0.34,
    "lenticular": 0.08,
    "spiral": 0.30,
    "edge-on": 0.12,
    "ring": 0.05,
    "merger": 0.06,
    "irregular": 0.05,
}
SERSIC_INDICES = (2.0, 3.0, 4.0, 5.0)  # a short list: GalSim tabulates each index once per process
DISC_THICKNESS = 0.18  # minor to major axis of a disc seen exactly edge-on


@dataclass(frozen=True)
class Recipe:
    """Parameters of one galaxy; lengths are in disc scale lengths, angles in degrees.

    Attributes
    ----------
    type : str
        One of `TYPES`.
    mag_r : float
        Apparent magnitude, AB.
    petro_r90_arcsec : float
        Petrosian radius that holds 90 % of the r-band light; the stamp is 8.48 times as wide.
    position_angle : float
        Of the major axis, counter-clockwise from the image's x axis.
    inclination : float or None
        Of the disc, 0 is face-on; None without a disc.
    axis_ratio : float
        Minor over major axis of the disc, or of the spheroid where there is no disc.
    sersic_n, bulge_fraction, bulge_radius : float
        Sersic index, fraction of the r-band light, and half-light radius of the spheroid.
    bar_length, ring_radius : float
        Half length and radius, 0 where there is none.
    arms, pitch : int, float
        Number of logarithmic spiral arms (0: none) and their pitch angle.
    young_fraction : float
        Fraction of the disc's r-band light in its young, blue population.
    knots : int
        Star-forming knots.
    dust_lane : bool
        Whether an edge-on disc has one.
    """

    type: str
    mag_r: float
    petro_r90_arcsec: float
    position_angle: float
    inclination: float | None
    axis_ratio: float
    sersic_n: float
    bulge_fraction: float
    bulge_radius: float
    bar_length: float = 0.0
    ring_radius: float = 0.0
    arms: int = 0
    pitch: float = 0.0
    young_fraction: float = 0.0
    knots: int = 0
    dust_lane: bool = False


def draw_recipe(rng: np.random.Generator) -> Recipe:
    """Draw the parameters of one galaxy.

    Magnitudes follow Euclidean counts (0.6 dex per magnitude) down to r = 17, the limit of Galaxy Zoo 2
    (Willett et al. 2013, section 2); radii grow with brightness at a constant mean surface brightness, with
    0.09 dex of scatter.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.

    Returns
    -------
    Recipe
    """
    kind = str(rng.choice(list(TYPES), p=list(TYPES.values())))
    mag_r = max(13.5, 17.0 + math.log10(rng.uniform(1e-4, 1.0)) / 0.6)
    radius = float(np.clip(5.2 * 10 ** (0.2 * (17.0 - mag_r) + rng.normal(0, 0.09)), 3.0, 25.0))
    return Recipe(
        type=kind,
        mag_r=mag_r,
        petro_r90_arcsec=radius,
        position_angle=float(rng.uniform(0, 180)),
        **_DRAW[kind](rng),
    )


def _elliptical(rng: np.random.Generator) -> dict[str, Any]:
    low, high = [(0.85, 1.0), (0.5, 0.85), (0.25, 0.5)][int(rng.choice(3, p=[0.4, 0.45, 0.15]))]
    return {
        "inclination": None,
        "axis_ratio": float(rng.uniform(low, high)),
        "sersic_n": float(rng.choice(SERSIC_INDICES)),
        "bulge_fraction": 1.0,
        "bulge_radius": 1.8,
    }


def _disc(rng: np.random.Generator, inclination: float, bulge: tuple[float, float]) -> dict[str, Any]:
    cosine = math.cos(math.radians(inclination))
    return {
        "inclination": inclination,
        "axis_ratio": math.sqrt(cosine**2 * (1 - DISC_THICKNESS**2) + DISC_THICKNESS**2),
        "sersic_n": float(rng.choice(SERSIC_INDICES[:3])),
        "bulge_fraction": float(rng.uniform(*bulge)),
        "bulge_radius": float(rng.uniform(0.25, 0.5)),
    }


def _tilt(rng: np.random.Generator, steepest: float) -> float:
    """Draw the inclination of a randomly oriented disc, up to the steepest given."""
    return math.degrees(math.acos(rng.uniform(math.cos(math.radians(steepest)), 1.0)))


def _lenticular(rng: np.random.Generator) -> dict[str, Any]:
    disc = _disc(rng, _tilt(rng, 75), (0.3, 0.6))
    return disc | {"bar_length": float(rng.uniform(0.8, 1.3)) if rng.random() < 0.2 else 0.0}


def _spiral(rng: np.random.Generator) -> dict[str, Any]:
    barred = rng.random() < 0.4
    return _disc(rng, _tilt(rng, 68), (0.03, 0.3)) | {
        "bar_length": float(rng.uniform(0.8, 1.5)) if barred else 0.0,
        "ring_radius": float(rng.uniform(1.3, 1.8)) if rng.random() < 0.08 else 0.0,
        "arms": int(rng.choice([2, 3, 4], p=[0.7, 0.18, 0.12])),
        "pitch": float(rng.uniform(12, 32)),
        "young_fraction": float(rng.uniform(0.45, 0.8)),
        "knots": int(rng.integers(6, 40)),
    }


def _edge_on(rng: np.random.Generator) -> dict[str, Any]:
    return _disc(rng, float(rng.uniform(85, 90)), (0.02, 0.3)) | {
        "young_fraction": float(rng.uniform(0.1, 0.5)),
        "knots": int(rng.integers(0, 8)),
        "dust_lane": bool(rng.random() < 0.35),
    }


def _ring(rng: np.random.Generator) -> dict[str, Any]:
    return _disc(rng, _tilt(rng, 60), (0.15, 0.45)) | {
        "bar_length": float(rng.uniform(0.7, 1.1)) if rng.random() < 0.3 else 0.0,
        "ring_radius": float(rng.uniform(1.6, 2.4)),
        "young_fraction": float(rng.uniform(0.55, 0.8)),
        "knots": int(rng.integers(0, 15)),
    }


def _merger(rng: np.random.Generator) -> dict[str, Any]:
    return _disc(rng, _tilt(rng, 65), (0.1, 0.5)) | {
        "arms": int(rng.choice([1, 2])),
        "pitch": float(rng.uniform(32, 50)),
        "young_fraction": float(rng.uniform(0.4, 0.7)),
        "knots": int(rng.integers(0, 20)),
    }


def _irregular(rng: np.random.Generator) -> dict[str, Any]:
    return _disc(rng, _tilt(rng, 70), (0.0, 0.03)) | {
        "young_fraction": float(rng.uniform(0.6, 0.95)),
        "knots": int(rng.integers(8, 30)),
    }


_DRAW: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "elliptical": _elliptical,
    "lenticular": _lenticular,
    "spiral": _spiral,
    "edge-on": _edge_on,
    "ring": _ring,
    "merger": _merger,
    "irregular": _irregular,
}
