"""From a recipe to GalSim profiles: the galaxy, its companion, and the field around it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import galsim
import numpy as np

from surveyproc.simulate.light import STEP, paint_disc
from surveyproc.simulate.recipe import Recipe

BANDS = ("g", "r", "i")
ZEROPOINT = 22.5  # AB magnitude of one nanomaggy
ACCURACY = galsim.GSParams(folding_threshold=1e-2, maxk_threshold=5e-3)
OLD, DISC, YOUNG = (0.80, 0.40), (0.66, 0.33), (0.22, 0.06)  # g - r and r - i of stellar populations
_COARSE_CELLS, _COARSE_STEP = 96, 1 / 6  # a grid of 16 scale lengths for the Petrosian radius
_COARSE_BLUR = galsim.Gaussian(fwhm=2 * _COARSE_STEP, gsparams=ACCURACY)  # bounds the FFT of a cusp


@dataclass(frozen=True)
class Component:
    """One stellar population with one shape.

    Attributes
    ----------
    profile : galsim.GSObject
        Of unit flux.
    flux_r : float
        r-band flux.
    g_r, r_i : float
        Colours, magnitudes.
    """

    profile: galsim.GSObject
    flux_r: float
    g_r: float
    r_i: float

    def flux(self, band: str) -> float:
        """Return the flux in one band, in the unit of ``flux_r``."""
        return self.flux_r * {"g": 10 ** (-0.4 * self.g_r), "r": 1.0, "i": 10 ** (0.4 * self.r_i)}[band]


def galaxy(recipe: Recipe, rng: np.random.Generator) -> list[Component]:
    """Build the components of a galaxy in nanomaggies and arcseconds, centred on the origin.

    The shape is made in disc scale lengths, its Petrosian radius measured, and the whole dilated so that
    this radius is the recipe's.

    Parameters
    ----------
    recipe : Recipe
        The galaxy.
    rng : numpy.random.Generator
        Details below the recipe: phases, knots, scatter of the colours.

    Returns
    -------
    list of Component
    """
    parts = _spheroid(recipe, rng)
    if recipe.inclination is not None:
        parts += _disc(recipe, rng)
    radius = petrosian_r90(draw(parts, "r", _COARSE_CELLS, _COARSE_STEP, _COARSE_BLUR), _COARSE_STEP)
    if recipe.type == "merger":
        parts += _companion(recipe, rng)
    scale = recipe.petro_r90_arcsec / radius
    flux = 10 ** (0.4 * (ZEROPOINT - recipe.mag_r))
    return [Component(p.profile.dilate(scale), p.flux_r * flux, p.g_r, p.r_i) for p in parts]


def draw(parts: list[Component], band: str, pixels: int, scale: float, psf: galsim.GSObject) -> np.ndarray:
    """Draw components through a point spread function on a square stamp; returns float32 ``(pixels, pixels)``."""
    scene = galsim.Sum([p.profile.withFlux(p.flux(band)) for p in parts], gsparams=ACCURACY)
    return galsim.Convolve(scene, psf, gsparams=ACCURACY).drawImage(nx=pixels, ny=pixels, scale=scale).array


def petrosian_r90(image: np.ndarray, scale: float) -> float:
    """Measure the circular radius with 90 % of the Petrosian flux.

    The Petrosian radius is where the mean brightness of the annulus (0.8 R, 1.25 R) falls to a fifth of the
    mean brightness within R; the Petrosian flux is what two such radii hold (Strauss et al. 2002).

    Parameters
    ----------
    image : numpy.ndarray
        ``(H, W)`` noise-free light centred on the stamp.
    scale : float
        Side of a pixel.

    Returns
    -------
    float
        The radius in the unit of ``scale``.
    """
    rows, columns = np.indices(image.shape)
    distance = np.hypot(rows - (image.shape[0] - 1) / 2, columns - (image.shape[1] - 1) / 2).ravel() * scale
    order = np.argsort(distance, kind="stable")
    distance, growth = distance[order], np.cumsum(image.ravel()[order], dtype=np.float64)
    radii = np.linspace(3 * scale, 0.5 * scale * min(image.shape), 200)

    def within(r: np.ndarray | float) -> np.ndarray:
        return np.asarray(np.interp(r, distance, growth))

    ring = (within(1.25 * radii) - within(0.8 * radii)) / (1.25**2 - 0.8**2)
    below = ring < 0.2 * within(radii)
    petrosian = radii[int(np.argmax(below))] if below.any() else radii[-1] / 2
    return float(np.interp(0.9 * within(2 * petrosian), growth, distance))


def field(rng: np.random.Generator, side_arcsec: float) -> list[Component]:
    """Scatter faint stars and small background galaxies over a stamp, and now and then a bright star."""
    parts = []
    for _ in range(min(int(rng.poisson(0.0013 * side_arcsec**2)), 20)):
        magnitude = 22.3 + math.log10(rng.uniform(2e-2, 1.0)) / 0.35
        colour = _field_colour(rng)
        if rng.random() < 0.5:
            profile = galsim.DeltaFunction(gsparams=ACCURACY)
        else:
            profile = galsim.Exponential(half_light_radius=float(rng.uniform(0.5, 1.4)), gsparams=ACCURACY)
            profile = profile.shear(g1=float(rng.normal(0, 0.2)), g2=float(rng.normal(0, 0.2)))
        parts.append(
            Component(_scattered(profile, rng, side_arcsec), 10 ** (0.4 * (ZEROPOINT - magnitude)), *colour)
        )
    if rng.random() < 0.12:
        parts.append(star(rng, side_arcsec, float(rng.uniform(15.5, 18.0))))
    return parts


def star(rng: np.random.Generator, side_arcsec: float, magnitude: float) -> Component:
    """Put a star of a given magnitude somewhere off the stamp's centre."""
    colour = _field_colour(rng)
    profile = _scattered(galsim.DeltaFunction(gsparams=ACCURACY), rng, side_arcsec, keep_clear=0.18)
    return Component(profile, 10 ** (0.4 * (ZEROPOINT - magnitude)), *colour)


def _field_colour(rng: np.random.Generator) -> tuple[float, float]:
    """Draw g - r and r - i along the locus of stars."""
    g_r = float(rng.uniform(0.2, 1.4))
    return g_r, 0.45 * g_r - 0.08 + float(rng.normal(0, 0.05)) + (0.4 if rng.random() < 0.2 else 0.0)


def _scattered(
    profile: galsim.GSObject, rng: np.random.Generator, side: float, keep_clear: float = 0.08
) -> galsim.GSObject:
    distance, angle = side * rng.uniform(keep_clear, 0.6), rng.uniform(0, 2 * math.pi)
    return profile.shift(distance * math.cos(angle), distance * math.sin(angle))


def _spheroid(recipe: Recipe, rng: np.random.Generator) -> list[Component]:
    if recipe.bulge_fraction == 0:
        return []
    alone = recipe.inclination is None
    ratio = recipe.axis_ratio if alone else max(0.55, recipe.axis_ratio)
    profile = galsim.Sersic(n=recipe.sersic_n, half_light_radius=recipe.bulge_radius, gsparams=ACCURACY)
    profile = profile.shear(q=ratio, beta=recipe.position_angle * galsim.degrees)
    return [Component(profile, recipe.bulge_fraction, *_scatter(OLD, rng))]


def _disc(recipe: Recipe, rng: np.random.Generator) -> list[Component]:
    old, young = (_painted(light) for light in paint_disc(recipe, rng))
    flux, blue = 1 - recipe.bulge_fraction, recipe.young_fraction
    parts = [Component(old, flux * (1 - blue), *_scatter(DISC, rng))]
    return parts + ([Component(young, flux * blue, *_scatter(YOUNG, rng))] if blue else [])


def _companion(recipe: Recipe, rng: np.random.Generator) -> list[Component]:
    """Build the second galaxy of a merger, close to the first and of comparable light."""
    profile = galsim.Sersic(
        n=float(rng.choice([2.0, 3.0])), half_light_radius=float(rng.uniform(0.5, 1.0)), gsparams=ACCURACY
    )
    profile = profile.shear(q=float(rng.uniform(0.5, 1)), beta=float(rng.uniform(0, 180)) * galsim.degrees)
    distance, angle = rng.uniform(1.3, 3.2), rng.uniform(0, 2 * math.pi)
    profile = profile.shift(distance * math.cos(angle), distance * math.sin(angle))
    colour = _scatter(OLD if rng.random() < 0.5 else DISC, rng)
    return [Component(profile, float(rng.uniform(0.3, 0.9)), *colour)]


def _painted(light: np.ndarray) -> galsim.GSObject:
    return galsim.InterpolatedImage(
        galsim.ImageD(light, scale=STEP),
        x_interpolant="linear",
        flux=1.0,
        calculate_stepk=False,
        calculate_maxk=False,
        gsparams=ACCURACY,
    )


def _scatter(colour: tuple[float, float], rng: np.random.Generator) -> tuple[float, float]:
    return colour[0] + float(rng.normal(0, 0.05)), colour[1] + float(rng.normal(0, 0.025))
