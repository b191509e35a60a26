"""Many cutouts of many bands, fast: a few hundred scenes drawn once, turned, dimmed, reddened and observed again and again.

A scene costs GalSim some tenths of a second, a row of it a millisecond. Rows of one scene are therefore not independent
galaxies: such a catalog is for speed, plumbing and recovery of known flux, and no science is to be measured on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import galsim
import numpy as np

from surveyproc.cutouts import ImageSpec
from surveyproc.quality import Quality
from surveyproc.simulate.recipe import Recipe, draw_recipe
from surveyproc.simulate.scene import ACCURACY, Component, galaxy

NJY_ZEROPOINT = 31.4  # AB magnitude of one nJy
UNIT_ROWS = 256
# Magnitudes relative to r of a young, a disc and an old population, by their g - r.
_G_R = (0.22, 0.66, 0.80)
_COLOURS = {
    "u": (1.10, 2.00, 2.60),
    "g": (0.22, 0.66, 0.80),
    "r": (0.0, 0.0, 0.0),
    "i": (-0.06, -0.33, -0.40),
    "z": (-0.10, -0.55, -0.70),
    "y": (-0.12, -0.65, -0.85),
    "VIS": (-0.05, -0.22, -0.27),
    "Y": (-0.15, -0.70, -0.90),
    "J": (-0.20, -0.90, -1.15),
    "H": (-0.25, -1.10, -1.40),
}


@dataclass(frozen=True)
class Survey:
    """What a telescope makes of a galaxy.

    Attributes
    ----------
    name : str
        Its name.
    bands : tuple of str
        In order of wavelength.
    pixel_arcsec : float
        Side of a pixel.
    seeing_arcsec, depth : tuple of float
        FWHM, and 5 sigma AB magnitude of a point source, of each band.
    pixels : int
        Side of a cutout.
    dtype : str
        Of the stored flux in nJy.
    magnitudes, radii_arcsec : (float, float)
        Range of r magnitudes and of Petrosian r90.
    """

    name: str
    bands: tuple[str, ...]
    pixel_arcsec: float
    seeing_arcsec: tuple[float, ...]
    depth: tuple[float, ...]
    pixels: int
    dtype: str
    magnitudes: tuple[float, float]
    radii_arcsec: tuple[float, float]

    @property
    def sigma(self) -> np.ndarray:
        """``(bands,)`` sky noise of a pixel, nJy: 5 sigma over the noise area 4 pi s^2 of a Gaussian of that FWHM."""
        width = np.array(self.seeing_arcsec) / 2.3548 / self.pixel_arcsec
        return 10 ** (0.4 * (NJY_ZEROPOINT - np.array(self.depth))) / 5 / np.sqrt(4 * math.pi * width**2)

    @property
    def image(self) -> ImageSpec:
        """The pixels of its catalogs."""
        return ImageSpec(
            "raw",
            (self.pixels, self.pixels, len(self.bands)),
            self.dtype,
            layout="CHW",
            bands=self.bands,
            unit="nJy",
            stretch="none",
            orientation="bottom-up",
        )


SURVEYS = {
    "lsst": Survey(
        "lsst",
        ("u", "g", "r", "i", "z", "y"),
        0.2,
        (0.92, 0.87, 0.83, 0.80, 0.78, 0.76),
        (26.1, 27.4, 27.5, 26.8, 26.1, 24.9),
        48,
        "float32",
        (18.0, 22.5),
        (0.9, 2.2),
    ),
    "euclid": Survey(
        "euclid",
        ("VIS", "Y", "J", "H"),
        0.1,
        (0.16, 0.45, 0.47, 0.49),
        (26.2, 24.4, 24.5, 24.5),
        64,
        "float16",
        (18.0, 22.0),
        (0.5, 1.2),
    ),
}


@dataclass(frozen=True)
class Scenes:
    """Galaxies without noise.

    Attributes
    ----------
    survey : Survey
    light : numpy.ndarray
        ``(S, bands, H, W)`` float32, nJy.
    recipes : tuple of Recipe
        What they are.
    """

    survey: Survey
    light: np.ndarray
    recipes: tuple[Recipe, ...]


def draw_scenes(survey: Survey, count: int, seed: int = 0) -> Scenes:
    """Draw ``count`` galaxies through the survey's seeing, each depending on ``(seed, number)`` alone."""
    light = np.empty((count, len(survey.bands), survey.pixels, survey.pixels), np.float32)
    recipes = []
    for number in range(count):
        rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(0, number)))
        recipe = replace(
            draw_recipe(rng),
            mag_r=float(rng.uniform(*survey.magnitudes)),
            petro_r90_arcsec=float(rng.uniform(*survey.radii_arcsec)),
        )
        parts = galaxy(recipe, rng)
        for plane, band, seeing in zip(light[number], survey.bands, survey.seeing_arcsec):
            plane[:] = _draw(parts, band, survey, seeing)
        recipes.append(recipe)
    return Scenes(survey, light, tuple(recipes))


def observed(scenes: Scenes, rows: int, seed: int = 0) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Observe scenes again and again.

    Of the rows 1 % reach beyond their tile (NaN there), 0.5 % lack a band (zeros) and 0.2 % have no pixel at all;
    pixels brighter than float16 holds are saturated.

    Yields
    ------
    pixels : numpy.ndarray
        ``(n, H, W, bands)`` flux in nJy, of the survey's dtype.
    columns : dict
        ``object_id``, ``ra``, ``dec``, ``quality``, ``scene`` (its number), ``magnitude_r``.
    """
    survey = scenes.survey
    for unit, first in enumerate(range(0, rows, UNIT_ROWS)):
        rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(1, unit)))
        yield _observe(scenes, survey, rng, np.arange(first, min(first + UNIT_ROWS, rows)))


def _observe(
    scenes: Scenes, survey: Survey, rng: np.random.Generator, numbers: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    count = len(numbers)
    chosen = numbers % len(scenes.light)
    fainter = rng.uniform(-0.7, 0.7, count)
    reddened = rng.normal(0, 0.08, (count, len(survey.bands)))
    factor = 10 ** (-0.4 * (fainter[:, None] + reddened)).astype(np.float32)
    flux = rng.standard_normal((count, len(survey.bands), survey.pixels, survey.pixels), np.float32)
    flux *= survey.sigma.astype(np.float32)[:, None, None]
    for k, (number, turn) in enumerate(zip(chosen, rng.integers(0, 8, count))):
        light = np.rot90(scenes.light[number], turn % 4, axes=(1, 2))
        flux[k] += (light[:, :, ::-1] if turn >= 4 else light) * factor[k, :, None, None]
    quality = np.zeros(count, np.int32)
    _spoil(flux, quality, rng)
    sky_z = rng.uniform(math.sin(math.radians(-35)), math.sin(math.radians(-25)), count)
    magnitudes = np.array([scenes.recipes[n].mag_r for n in chosen]) + fainter
    columns = {
        "object_id": numbers.astype(np.int64) + 1,
        "ra": rng.uniform(40.0, 70.0, count),
        "dec": np.degrees(np.arcsin(sky_z)),
        "quality": quality,
        "scene": chosen.astype(np.int32),
        "magnitude_r": magnitudes,
    }
    return flux.transpose(0, 2, 3, 1).astype(survey.dtype), columns


def _spoil(flux: np.ndarray, quality: np.ndarray, rng: np.random.Generator) -> None:
    """Flaws of real tiles, with their quality bits, in place."""
    luck, share = rng.random(len(flux)), rng.uniform(0.1, 0.4, len(flux))
    bright = flux > 60000.0
    np.minimum(flux, 60000.0, out=flux)
    quality[bright.any(axis=(1, 2, 3))] |= Quality.SATURATED
    for row in np.flatnonzero(luck < 0.017):
        if luck[row] < 0.002:
            flux[row] = np.nan
            quality[row] |= Quality.NAN_PIXELS
        elif luck[row] < 0.007:
            flux[row, int(share[row] * 100) % flux.shape[1]] = 0.0
            quality[row] |= Quality.MISSING_BAND
        else:
            flux[row, :, :, : int(share[row] * flux.shape[3])] = np.nan
            quality[row] |= Quality.EDGE | Quality.NAN_PIXELS


def _draw(parts: list[Component], band: str, survey: Survey, seeing: float) -> np.ndarray:
    unit = 10 ** (0.4 * (NJY_ZEROPOINT - 22.5))  # nJy in a nanomaggy, by the rounded zero point of nJy
    scene = galsim.Sum([p.profile.withFlux(_flux(p, band) * unit) for p in parts], gsparams=ACCURACY)
    psf = galsim.Moffat(beta=3.5, fwhm=seeing, gsparams=ACCURACY)
    image = galsim.Convolve(scene, psf, gsparams=ACCURACY)
    return image.drawImage(nx=survey.pixels, ny=survey.pixels, scale=survey.pixel_arcsec).array


def _flux(part: Component, band: str) -> float:
    """Flux of a component in any band, nanomaggies: its r flux and colours interpolated by its g - r."""
    return part.flux_r * 10 ** (-0.4 * float(np.interp(part.g_r, _G_R, _COLOURS[band])))


def facts(survey: Survey, count: int) -> dict[str, Any]:
    """Columns that are the same for every row: where the position is in the stamp, the WCS, the seeing."""
    middle, side = (survey.pixels - 1) / 2, survey.pixel_arcsec / 3600
    one = {"x0": middle, "y0": middle, "cd11": -side, "cd12": 0.0, "cd21": 0.0, "cd22": side}
    constant = {name: np.full(count, value) for name, value in one.items()}
    constant["pixel_scale_arcsec"] = np.full(count, survey.pixel_arcsec)
    constant["psf_fwhm_arcsec"] = [list(survey.seeing_arcsec)] * count
    return constant
