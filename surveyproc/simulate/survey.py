"""A small survey of simulated galaxies with known truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from surveyproc.images.stretches.lupton import sdss_lupton
from surveyproc.simulate.marker import id_of
from surveyproc.simulate.observe import SEEING, draw_artifact, observe, spoil
from surveyproc.simulate.recipe import Recipe, draw_recipe
from surveyproc.simulate.scene import BANDS, field, galaxy

PIXELS = 128
STAMP_R90 = 8.48  # width of a Galaxy Zoo 2 stamp: 424 px of 0.02 R90


def simulate_galaxy(seed: int, index: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Simulate one cutout; it depends on ``(seed, index)`` alone.

    Parameters
    ----------
    seed : int
        The survey.
    index : int
        The galaxy in it, 0 to 999,999.

    Returns
    -------
    cube : numpy.ndarray
        Flux, float32 ``(3, 128, 128)`` in nanomaggies per pixel, bands g, r, i.
    truth : dict
        ``object_id``, ``ra``, ``dec`` (degrees), ``pixel_scale_arcsec``, ``psf_fwhm_arcsec`` (g, r, i)
        and the ``truth_*`` columns; None where a quantity has no meaning.
    """
    rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(index,)))
    ra, dec = _position(rng, index)
    recipe = draw_recipe(rng)
    artifact = draw_artifact(rng)
    scale = recipe.petro_r90_arcsec * STAMP_R90 / PIXELS
    seeing = 1.3 * math.exp(rng.normal(0, 0.09))
    parts = galaxy(recipe, rng) + field(rng, scale * PIXELS)
    cube = spoil(observe(parts, rng, PIXELS, scale, seeing), artifact, rng)
    return cube, {
        "object_id": id_of(seed, index),
        "ra": ra,
        "dec": dec,
        "pixel_scale_arcsec": scale,
        "psf_fwhm_arcsec": [seeing * SEEING[band] for band in BANDS],
        **_truth(recipe, artifact),
    }


def simulate_rows(seed: int, indices: Sequence[int]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Simulate several cutouts as display images.

    Parameters
    ----------
    seed : int
        The survey.
    indices : sequence of int
        The galaxies.

    Returns
    -------
    pixels : numpy.ndarray
        uint8 ``(N, 128, 128, 3)``, stretched by `surveyproc.images.stretches.lupton.sdss_lupton`.
    truths : list of dict
        One per cutout, as `simulate_galaxy` returns them.
    """
    pixels = np.empty((len(indices), PIXELS, PIXELS, 3), dtype=np.uint8)
    truths = []
    for k, index in enumerate(indices):
        cube, truth = simulate_galaxy(seed, index)
        pixels[k] = sdss_lupton(cube, truth["pixel_scale_arcsec"])
        truths.append(truth)
    return pixels, truths


def _position(rng: np.random.Generator, index: int) -> tuple[float, float]:
    """Draw a place in a patch of 30 by 10 degrees, or, for one in 50, close to the meridian of RA 0."""
    low, high = math.sin(math.radians(15.0)), math.sin(math.radians(25.0))
    dec = math.degrees(math.asin(rng.uniform(low, high)))
    ra = rng.uniform(-0.5, 0.5) % 360.0 if index % 50 == 49 else rng.uniform(165.0, 195.0)
    return float(ra), dec


def _truth(recipe: Recipe, artifact: str) -> dict[str, Any]:
    disc = recipe.inclination is not None
    return {
        "truth_type": recipe.type,
        "truth_mag_r": recipe.mag_r,
        "truth_petro_r90_arcsec": recipe.petro_r90_arcsec,
        "truth_position_angle": recipe.position_angle,
        "truth_inclination": recipe.inclination,
        "truth_axis_ratio": recipe.axis_ratio,
        "truth_sersic_n": recipe.sersic_n,
        "truth_bulge_fraction": recipe.bulge_fraction,
        "truth_has_bar": recipe.bar_length > 0,
        "truth_has_ring": recipe.ring_radius > 0,
        "truth_arms": recipe.arms if recipe.type == "spiral" else 0,
        "truth_pitch": recipe.pitch if recipe.type == "spiral" else None,
        "truth_knots": recipe.knots,
        "truth_dust_lane": recipe.dust_lane,
        "truth_is_merger": recipe.type == "merger",
        "truth_young_fraction": recipe.young_fraction if disc else None,
        "truth_artifact": artifact,
    }
