"""Planes beside the flux: weights, masks, and the width of the PSF."""

from __future__ import annotations

import numpy as np

from surveyproc.ingest.tiles.places import Places
from surveyproc.ingest.tiles.reading import Held
from surveyproc.ingest.tiles.settings import CutSettings
from surveyproc.ingest.tiles.stamps import copy_stamps, cut_box, overlaps
from surveyproc.ingest.tiles.tile import Tile
from surveyproc.ingest.tiles.units import scale_factor

NO_DATA = np.int32(-(2**31))


def cut_weights(tile: Tile, settings: CutSettings, places: Places, planes: list[Held | None]) -> np.ndarray:
    """Cut inverse variances.

    Returns
    -------
    ndarray, shape (N, C, size, size), float32
        In 1 / unit^2; 0 where nothing is known. In resampled stamps variances are added with the squares
        of the shares, neighbours taken as independent; a pixel with any share of unknown variance is unknown.
    """
    size = settings.size
    out = np.zeros((len(places.x), len(planes), size, size), np.float32)
    for channel, (band, plane) in enumerate(zip(tile.bands, planes)):
        if plane is None:
            continue
        factor = scale_factor(band.zeropoint, settings.unit)
        if places.span is None:
            copy_stamps(out[:, channel], plane, places)
            out[:, channel] = _ivar(out[:, channel], band.weight_kind) / np.float32(factor**2)
            continue
        for n in range(len(out)):
            ivar = _ivar(cut_box(plane, places, n), band.weight_kind)
            across, along = overlaps(places, n, size)
            known = ivar > 0
            variance = along**2 @ np.where(known, 1 / np.where(known, ivar, 1), 0) @ (across**2).T
            unknown = along @ ~known @ across.T > 0
            out[n, channel] = np.where(unknown | (variance == 0), 0, 1 / np.where(variance > 0, variance, 1))
        out[:, channel] /= np.float32(factor**2)
    return out


def _ivar(values: np.ndarray, kind: str) -> np.ndarray:
    good = np.isfinite(values) & (values > 0)
    safe = np.where(good, values, 1)
    found = {"ivar": safe, "variance": 1 / safe, "rms": 1 / safe**2}[kind]
    return np.where(good, found, 0)


def cut_masks(
    tile: Tile, settings: CutSettings, places: Places, planes: list[Held | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Cut bit masks.

    Returns
    -------
    masks : ndarray, shape (N, C, size, size), int32
        The survey's bits; `NO_DATA` (the sign bit alone) beyond the tile and where there is no mask. A resampled
        pixel has all bits of the pixels that it shares area with.
    saturated : ndarray, shape (N,), bool
        Which have a pixel with a bit that means saturated.
    """
    size = settings.size
    out = np.full((len(places.x), len(planes), size, size), NO_DATA, np.int32)
    saturated = np.zeros(len(out), bool)
    for channel, (band, plane) in enumerate(zip(tile.bands, planes)):
        if plane is None:
            continue
        for n in range(len(out)):
            stamp = cut_box(plane, places, n, np.int32, int(NO_DATA))
            out[n, channel] = stamp if places.span is None else _joined_bits(stamp, places, n, size)
        bits = np.int32(band.saturated_bits)
        saturated |= ((out[:, channel] & bits) != 0).any(axis=(1, 2))
    return out, saturated


def _joined_bits(stamp: np.ndarray, places: Places, n: int, size: int) -> np.ndarray:
    across, along = (shares > 0 for shares in overlaps(places, n, size))
    rows = np.stack([np.bitwise_or.reduce(stamp[line], axis=0) for line in along])
    return np.stack([np.bitwise_or.reduce(rows[:, line], axis=1) for line in across], axis=1)


def cut_psf(tile: Tile, places: Places, planes: list[Held | None]) -> np.ndarray:
    """Width of the PSF at the sources.

    Returns
    -------
    ndarray, shape (N, C), float32
        FWHM in arcsec, from a map of it where there is one, else from the header; NaN where unknown.
    """
    out = np.full((len(places.x), len(tile.bands)), np.nan, np.float32)
    for channel, (band, plane) in enumerate(zip(tile.bands, planes)):
        if band.psf_fwhm_arcsec is not None:
            out[:, channel] = band.psf_fwhm_arcsec
        if plane is not None:
            column, row = (np.clip(np.rint(v).astype(np.int64), 0, None) for v in (places.x, places.y))
            height, width = plane.numbers.shape
            row, column = np.minimum(row, height - 1), np.minimum(column, width - 1)
            out[:, channel] = plane.numbers[row, column] * plane.bscale + plane.bzero
    out[~(out > 0)] = np.nan
    return out
