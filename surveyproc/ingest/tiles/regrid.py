"""Bring a band that is on another pixel grid to the grid of its tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from surveyproc.errors import ResourceError
from surveyproc.ingest.tiles.blocks import touched_blocks
from surveyproc.ingest.tiles.intervals import Boxes
from surveyproc.ingest.tiles.reading import Files, Held
from surveyproc.ingest.tiles.stamps import to_values
from surveyproc.ingest.tiles.tile import Plane, Tile
from surveyproc.ingest.tiles.wcs import celestial, pixel_to_sky, sky_to_pixel

BLOCK_PX = 256
MARGIN_PX = 8


def regridded(tile: Tile, plane: Plane, cards: str, files: Files, boxes: Boxes) -> Held:
    """Resample those parts of a band that boxes need to the grid of the tile, conserving flux.

    Parameters
    ----------
    tile : Tile
    plane : Plane
        The band's image.
    cards : str
        Its own WCS.
    files : Files
    boxes : Boxes
        On the grid of the tile.

    Returns
    -------
    Held
        float32 of the tile's shape, flux per pixel of the tile; NaN where the band has no pixels.

    Raises
    ------
    ResourceError
        When the library is not installed.

    Notes
    -----
    Adaptive resampling with flux conservation (DeForest 2004, Solar Physics 219, 3), of the package ``reproject``.
    """
    grid = touched_blocks(tile.shape, (BLOCK_PX, BLOCK_PX), boxes)
    windows = [_window(tile.shape, int(row), int(column)) for row, column in np.argwhere(grid)]
    sources = [_source_box(tile, plane, cards, window) for window in windows]
    some = [box for box in sources if box is not None]
    held = files.read(plane, Boxes(*(np.array([box[n] for box in some], np.int64) for n in range(4))))
    out = np.full(tile.shape, np.nan, np.float32)
    for window, box in zip(windows, sources):
        if box is not None:
            out[window] = _resampled(tile, held, cards, window, box)
    return Held(out)


def _window(shape: tuple[int, int], row: int, column: int) -> tuple[slice, slice]:
    bottom, left = row * BLOCK_PX, column * BLOCK_PX
    return slice(bottom, min(bottom + BLOCK_PX, shape[0])), slice(left, min(left + BLOCK_PX, shape[1]))


def _source_box(
    tile: Tile, plane: Plane, cards: str, window: tuple[slice, slice]
) -> tuple[int, int, int, int] | None:
    """Box of the band's image (left, bottom, right, top) under a window of the tile; None when there is none."""
    rows, columns = window
    y, x = np.mgrid[rows.start : rows.stop : 16, columns.start : columns.stop : 16].reshape(2, -1)
    x = np.concatenate([x, [columns.stop, columns.start, columns.stop]])
    y = np.concatenate([y, [rows.stop, rows.stop, rows.start]])
    across, along = sky_to_pixel(cards, *pixel_to_sky(tile.wcs, x.astype(float), y.astype(float)))
    if not np.isfinite(across).any():
        return None
    height, width = plane.shape
    spread = int(np.ceil(max(np.nanmax(across) - np.nanmin(across), 1) / BLOCK_PX)) * MARGIN_PX
    left, right = int(np.nanmin(across)) - spread, int(np.nanmax(across)) + spread + 1
    bottom, top = int(np.nanmin(along)) - spread, int(np.nanmax(along)) + spread + 1
    left, right, bottom, top = max(left, 0), min(right, width), max(bottom, 0), min(top, height)
    return (left, bottom, right, top) if left < right and bottom < top else None


def _resampled(
    tile: Tile, held: Held, cards: str, window: tuple[slice, slice], box: tuple[int, int, int, int]
) -> np.ndarray:
    try:
        from reproject import reproject_adaptive
    except ImportError as error:
        raise ResourceError(
            "resampling needs the package reproject",
            where="--resample",
            fix="pip install 'surveyproc[resample]'",
        ) from error
    left, bottom, right, top = box
    values = held.numbers[bottom:top, left:right].astype(np.float32)
    to_values(values, held)
    rows, columns = window
    found, _ = reproject_adaptive(
        (values, _moved(cards, left, bottom)),
        _moved(tile.wcs, columns.start, rows.start),
        shape_out=(rows.stop - rows.start, columns.stop - columns.start),
        conserve_flux=True,
        boundary_mode="strict",
    )
    return np.asarray(found, np.float32)


def _moved(cards: str, x: int, y: int) -> Any:
    """WCS of the part of an image that begins at (x, y)."""
    wcs = celestial(cards).deepcopy()
    wcs.wcs.crpix -= (x, y)
    if wcs.sip is not None:
        from astropy.wcs import Sip

        sip = wcs.sip
        wcs.sip = Sip(sip.a, sip.b, sip.ap, sip.bp, sip.crpix - (x, y))
    return wcs
