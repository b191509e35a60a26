"""The light of a disc, painted on a grid: arms, bar, ring, knots, seen at its inclination."""

from __future__ import annotations

import math

import numpy as np

from surveyproc.simulate.recipe import Recipe

STEP = 0.06  # disc scale lengths per grid cell
HALF_CELLS = 88  # the grid reaches 5.3 scale lengths; discs fade out at about 4
EDGE_ON_SCALE_HEIGHT = 0.16


def paint_disc(recipe: Recipe, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint the old and the young stars of a disc.

    Parameters
    ----------
    recipe : Recipe
        The galaxy.
    rng : numpy.random.Generator
        Phases, clumpiness and positions of knots.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        Old and young light, float64 ``(176, 176)`` in cells of `STEP` scale lengths, each of sum 1.
    """
    if recipe.type == "edge-on":
        old, young = _edge_on(recipe, rng)
    else:
        old, young = _inclined(recipe, rng)
    return old / old.sum(), young / young.sum()


def _inclined(recipe: Recipe, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x, y = _rotated(recipe.position_angle)
    y = y / recipe.axis_ratio
    radius, angle = np.hypot(x, y) + 1e-6, np.arctan2(y, x)
    edge = _sigmoid((4.2 - radius) / 0.3)
    old = np.exp(-radius)
    young = np.exp(-radius / 1.3) * (0.12 if recipe.arms else 1.0) * np.ones_like(radius)
    phase = rng.uniform(0, 2 * math.pi)
    if recipe.arms:
        arms = _arms(recipe, rng, radius, angle, phase)
        old *= 1 + 0.5 * arms
        young += 1.6 * np.exp(-radius / 1.9) * arms
    if recipe.ring_radius:
        ring = np.exp(-0.5 * ((radius - recipe.ring_radius) / 0.21) ** 2)
        hollow = 1 - 0.5 * np.exp(-0.5 * ((radius - 0.62 * recipe.ring_radius) / 0.35) ** 2)
        old = old * hollow + 0.22 * ring
        young = 0.5 * young * hollow + 0.5 * ring
    if recipe.bar_length:
        old += _bar(recipe.bar_length, radius, angle - phase) * 1.1
        young *= _sigmoid((radius - 0.8 * recipe.bar_length) / 0.15) + 0.1
    if recipe.type == "irregular":
        lopsided = 1 + 0.9 * np.cos(angle - phase) * np.clip(radius, 0, 1)
        old, young = old * lopsided, young * lopsided
    if recipe.type in ("merger", "irregular"):
        young = young * (1 + 0.6 * np.cos(angle - rng.uniform(0, 2 * math.pi)))
    young *= np.exp((0.9 if recipe.type == "irregular" else 0.55) * _clumpiness(rng, radius.shape))
    young += _knots(recipe, rng, young * edge)
    return old * edge, young * edge


def _edge_on(recipe: Recipe, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x, z = _rotated(recipe.position_angle)
    z = z + rng.normal(0, 0.006) * x * np.abs(x)  # a warp
    height = EDGE_ON_SCALE_HEIGHT * (1 + 2 * math.cos(math.radians(recipe.inclination or 90.0)))
    edge = _sigmoid((4.0 - np.abs(x)) / 0.25)
    along = np.exp(-np.sqrt(x**2 + 0.2**2)) * edge
    old = along / np.cosh(z / height) ** 2
    young = along**0.8 / np.cosh(2.0 * z / height) ** 2
    young *= np.exp(0.4 * _clumpiness(rng, x.shape))
    young += _knots(recipe, rng, young)
    if recipe.dust_lane:
        offset = height * math.cos(math.radians(recipe.inclination or 90.0)) * 2
        lane = 1 - 0.75 * np.exp(-0.5 * ((z - offset) / (0.45 * height)) ** 2) * _sigmoid(
            (2.8 - np.abs(x)) / 0.3
        )
        old, young = old * lane, young * lane
    return old, young


def _arms(
    recipe: Recipe, rng: np.random.Generator, radius: np.ndarray, angle: np.ndarray, phase: float
) -> np.ndarray:
    """Return the strength, 0 to 1, of logarithmic spiral arms that start at the bar's ends."""
    start = recipe.bar_length or 0.45
    handed = 1 if rng.random() < 0.5 else -1
    wind = np.log(radius / start) / math.tan(math.radians(recipe.pitch))
    ripple = rng.normal(0, 0.25) * np.sin(2 * radius + rng.uniform(0, 2 * math.pi))
    turn = recipe.arms * (handed * (angle - phase) - wind + ripple)
    sharpness = rng.uniform(1.5, 4.0)
    return np.exp(sharpness * (np.cos(turn) - 1)) * _sigmoid((radius - start) / 0.12)


def _bar(length: float, radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    along, across = np.abs(radius * np.cos(angle)) / length, np.abs(radius * np.sin(angle)) / (0.24 * length)
    return np.exp(-(along**4) - across**2)


def _knots(recipe: Recipe, rng: np.random.Generator, where: np.ndarray) -> np.ndarray:
    """Paint knots of star formation, more of them where the young light is."""
    painted = np.zeros_like(where)
    if not recipe.knots:
        return painted
    weights = np.cumsum(where.ravel())
    cells = np.searchsorted(weights, rng.uniform(0, weights[-1], recipe.knots))
    fluxes = rng.pareto(1.8, recipe.knots) + 0.3
    fluxes *= 0.012 * recipe.knots * weights[-1] / fluxes.sum()
    reach = 6
    for cell, flux in zip(cells, np.minimum(fluxes, 0.06 * weights[-1])):
        row, column = divmod(int(cell), where.shape[1])
        sigma = rng.uniform(1.0, 1.8)
        top, left = max(row - reach, 0), max(column - reach, 0)
        patch = painted[top : row + reach + 1, left : column + reach + 1]
        rows, columns = np.ogrid[top : top + patch.shape[0], left : left + patch.shape[1]]
        squared = (rows - row) ** 2 + (columns - column) ** 2
        patch += flux / (2 * math.pi * sigma**2) * np.exp(-squared / (2 * sigma**2))
    return painted


def _clumpiness(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a smooth random field of unit variance with structure of about 0.3 scale lengths."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    field = np.fft.irfft2(
        np.fft.rfft2(rng.standard_normal(shape)) * np.exp(-0.5 * (frequency / 0.06) ** 2), shape
    )
    return field / field.std()


def _rotated(position_angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates along the major and the minor axis, in scale lengths."""
    axis = (np.arange(2 * HALF_CELLS) - HALF_CELLS + 0.5) * STEP
    cosine, sine = math.cos(math.radians(position_angle)), math.sin(math.radians(position_angle))
    x, y = axis[None, :], axis[:, None]
    return x * cosine + y * sine, y * cosine - x * sine


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
