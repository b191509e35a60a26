"""What the telescope adds: seeing, sky, photon noise, and the flaws of real survey images."""

from __future__ import annotations

import math

import galsim
import numpy as np

from surveyproc.images.stretches.lupton import SDSS_PIXEL_ARCSEC
from surveyproc.simulate.scene import ACCURACY, BANDS, Component, draw

SKY_SIGMA = {"g": 0.018, "r": 0.022, "i": 0.032}  # nanomaggies per SDSS pixel
SEEING = {"g": 1.07, "r": 1.0, "i": 0.94}  # FWHM relative to r
ELECTRONS_PER_NANOMAGGY = 900.0
ARTIFACTS = {"satellite_trail": 0.012, "saturated_star": 0.012, "missing_band": 0.010, "unusable": 0.008}


def draw_artifact(rng: np.random.Generator) -> str:
    """Draw what is wrong with a cutout: ``none`` or a key of `ARTIFACTS`."""
    names = ["none", *ARTIFACTS]
    return str(rng.choice(names, p=[1 - sum(ARTIFACTS.values()), *ARTIFACTS.values()]))


def observe(
    parts: list[Component], rng: np.random.Generator, pixels: int, scale: float, seeing_arcsec: float
) -> np.ndarray:
    """Draw a scene through the seeing and add sky and photon noise.

    Parameters
    ----------
    parts : list of Component
        The scene, in nanomaggies and arcseconds.
    rng : numpy.random.Generator
        Noise.
    pixels : int
        Side of the stamp.
    scale : float
        Arcseconds per pixel.
    seeing_arcsec : float
        FWHM of the r-band point spread function, a Moffat profile of beta 3.5.

    Returns
    -------
    numpy.ndarray
        Sky-subtracted flux, float32 ``(3, pixels, pixels)`` in nanomaggies per pixel, bands g, r, i.
    """
    cube = np.empty((len(BANDS), pixels, pixels), dtype=np.float32)
    per_pixel = scale / SDSS_PIXEL_ARCSEC
    blur = _resampling_blur(pixels, per_pixel)
    for plane, band in zip(cube, BANDS):
        psf = galsim.Moffat(beta=3.5, fwhm=seeing_arcsec * SEEING[band], gsparams=ACCURACY)
        light = draw(parts, band, pixels, scale, psf)
        sigma = np.sqrt(
            (SKY_SIGMA[band] * per_pixel) ** 2 + np.clip(light, 0, None) / ELECTRONS_PER_NANOMAGGY
        )
        noise = rng.standard_normal((pixels, pixels))
        plane[:] = light + sigma * np.fft.irfft2(np.fft.rfft2(noise) * blur, (pixels, pixels))
    return cube


def spoil(cube: np.ndarray, artifact: str, rng: np.random.Generator) -> np.ndarray:
    """Put an artifact into an observed cube; returns a cube of the same shape.

    ``unusable`` gives zeros: a stamp with no picture in it.
    """
    if artifact == "unusable":
        return np.zeros_like(cube)
    if artifact == "missing_band":
        spoiled = cube.copy()
        edge = int(cube.shape[2] * rng.uniform(0.1, 0.6)) if rng.random() < 0.4 else 0
        spoiled[int(rng.integers(3)), :, edge:] = 0.0
        return spoiled
    if artifact == "satellite_trail":
        return cube + _trail(cube.shape[1], rng)
    if artifact == "saturated_star":
        return cube + _bleed(cube, rng)
    return cube


def _resampling_blur(pixels: int, per_pixel: float) -> np.ndarray:
    """Return the transfer function that gives noise the grain of SDSS pixels seen through finer ones.

    The sum of squares is that of interpolated white noise: it keeps the noise of one SDSS pixel.
    """
    frequency = np.hypot(np.fft.fftfreq(pixels)[:, None], np.fft.rfftfreq(pixels)[None, :])
    if per_pixel >= 1:
        return np.ones_like(frequency)
    return np.exp(-0.5 * (frequency / (0.4 * per_pixel)) ** 2) / per_pixel


def _trail(pixels: int, rng: np.random.Generator) -> np.ndarray:
    """A satellite crosses in one of the three exposures, so the trail has one colour."""
    angle, offset = rng.uniform(0, math.pi), rng.uniform(-0.3, 0.3) * pixels
    rows, columns = np.indices((pixels, pixels)) - (pixels - 1) / 2
    across = columns * math.sin(angle) - rows * math.cos(angle) - offset
    line = np.exp(-0.5 * (across / rng.uniform(0.7, 1.4)) ** 2).astype(np.float32)
    trail = np.zeros((3, pixels, pixels), dtype=np.float32)
    trail[int(rng.integers(3))] = line * np.float32(rng.uniform(0.3, 2.5))
    return trail


def _bleed(cube: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A saturated star with halo, diffraction spikes and a bleed along the columns."""
    pixels = cube.shape[1]
    angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 0.5) * pixels
    rows, columns = np.indices((pixels, pixels)) - (pixels - 1) / 2
    y, x = rows - distance * math.sin(angle), columns - distance * math.cos(angle)
    radius = np.hypot(x, y)
    turn = math.radians(45)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    spikes = sum(np.exp(-np.abs(b) / 0.9 - np.abs(a) / (0.18 * pixels)) for a, b in ((u, v), (v, u)))
    glow = 40 / (1 + (radius / 3) ** 2) ** 1.3 + 3 * spikes
    column = 25 * np.exp(-0.5 * (x / 1.2) ** 2) * (np.abs(y) < 0.25 * pixels)
    tint = np.array([0.65, 1.0, 1.2]) * rng.uniform(0.75, 1.25) ** np.array([-1.0, 0.0, 1.0])
    return ((glow + column) * tint[:, None, None]).astype(np.float32)
