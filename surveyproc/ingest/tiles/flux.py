"""Cutouts in one flux unit, and what is wrong with their pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surveyproc.images.blank import blank_centres
from surveyproc.ingest.tiles.places import Places
from surveyproc.ingest.tiles.reading import Held
from surveyproc.ingest.tiles.settings import CutSettings
from surveyproc.ingest.tiles.stamps import chunks, copy_stamps
from surveyproc.ingest.tiles.tile import Band, Tile
from surveyproc.ingest.tiles.units import scale_factor
from surveyproc.quality import Quality

FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class Flux:
    """Cutouts of a batch.

    Attributes
    ----------
    pixels : ndarray, shape (N, C, size, size), float32
        In the flux unit of the settings; finite.
    quality : ndarray, shape (N,), int32
    signal_bands : ndarray, shape (N,), int64
        Bands with a pixel that is finite and not 0.
    """

    pixels: np.ndarray
    quality: np.ndarray
    signal_bands: np.ndarray


def cut_flux(tile: Tile, settings: CutSettings, places: Places, images: list[Held | None]) -> Flux:
    """Cut the bands of a tile.

    Parameters
    ----------
    tile : Tile
    settings : CutSettings
    places : Places
        N sources.
    images : list
        Pixels of each band, None where it is missing.
    """
    count, size = len(places.x), settings.size
    pixels = np.empty((count, len(images), size, size), np.float32)
    beyond = places.beyond(tile.shape)
    quality = np.where(beyond, np.int32(Quality.EDGE), np.int32(0))
    signal_bands = np.zeros(count, np.int64)
    for channel, (band, image) in enumerate(zip(tile.bands, images)):
        stamps = pixels[:, channel]
        if image is None:
            stamps[...] = 0
            quality |= Quality.MISSING_BAND
            continue
        stamps[beyond] = 0
        signal = np.empty(count, bool)
        for part in chunks(count, size):
            signal[part] = _cut_band(stamps[part], quality[part], band, image, places[part], settings)
        quality[~signal] |= Quality.MISSING_BAND
        signal_bands += signal
    return Flux(pixels, quality, signal_bands)


def _cut_band(
    stamps: np.ndarray,
    quality: np.ndarray,
    band: Band,
    image: Held,
    places: Places,
    settings: CutSettings,
) -> np.ndarray:
    """Fill stamps of a band; returns which of them have a signal."""
    copy_stamps(stamps, image, places)
    if band.saturation is not None:
        quality[_reaches(stamps, band.saturation, places, settings.size)] |= Quality.SATURATED
    stamps *= np.float32(scale_factor(band.zeropoint, settings.unit))
    power = np.einsum("nij,nij->n", stamps, stamps)
    suspect = np.flatnonzero(~np.isfinite(power))
    if len(suspect):
        _mend(stamps, quality, suspect)
        power[suspect] = np.abs(stamps[suspect]).max(axis=(1, 2))
    if settings.dtype == "float16":
        large = np.flatnonzero(power >= FLOAT16_MAX)
        over = large[np.abs(stamps[large]).max(axis=(1, 2), initial=0) > FLOAT16_MAX]
        quality[over] |= Quality.SATURATED
        stamps[over] = np.clip(stamps[over], -FLOAT16_MAX, FLOAT16_MAX)
    quality[blank_centres(stamps)] |= Quality.MISSING_BAND
    return power > 0


def _mend(stamps: np.ndarray, quality: np.ndarray, suspect: np.ndarray) -> None:
    """Set what is not finite to 0 and say so."""
    values = stamps[suspect]
    finite = np.isfinite(values)
    quality[suspect[~finite.all(axis=(1, 2))]] |= Quality.NAN_PIXELS
    stamps[suspect] = np.where(finite, values, 0)


def _reaches(stamps: np.ndarray, level: float, places: Places, size: int) -> np.ndarray:
    """Which stamps have a pixel at or above a level, in units of the image.

    In resampled stamps flux per pixel has changed with the area, and with it the level.
    """
    if places.span is None:
        return np.fmax.reduce(stamps.reshape(len(stamps), -1), axis=1, initial=-np.inf) >= level
    levels = level * (places.span / size) ** 2
    return np.fmax.reduce(stamps.reshape(len(stamps), -1), axis=1, initial=-np.inf) >= levels
