"""Cut the sources of one tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from surveyproc.ingest.tiles.flux import Flux, cut_flux
from surveyproc.ingest.tiles.headers import BadFile
from surveyproc.ingest.tiles.places import Placed, Places, place
from surveyproc.ingest.tiles.planes import cut_masks, cut_psf, cut_weights
from surveyproc.ingest.tiles.reading import Files, Held
from surveyproc.ingest.tiles.regrid import regridded
from surveyproc.ingest.tiles.rows import make_rows
from surveyproc.ingest.tiles.settings import CutSettings, row_schema
from surveyproc.ingest.tiles.tile import Band, Plane, Tile
from surveyproc.quality import Quality

STAGE = "tile"
_NO_PIXELS = "no band has a finite pixel other than 0"


@dataclass(frozen=True)
class Cutouts:
    """A batch of what became of a tile's sources.

    Attributes
    ----------
    rows : pyarrow.Table
        With the columns of `row_schema`, in the order of the sources.
    rejects : pyarrow.Table
        ``object_id, stage, reason, detail``.
    bytes_read : int
        Bytes moved from files for this batch; the first one of a tile carries them.
    """

    rows: pa.Table
    rejects: pa.Table
    bytes_read: int = 0


def cut_tile(tile: Tile, sources: pa.Table, settings: CutSettings) -> Iterator[Cutouts]:
    """Cut all sources of a tile, in batches of bounded size.

    Every source is in exactly one batch, as a row or as a reject. Memory holds what has to be unpacked
    or fetched of the tile's planes, and one batch.

    Parameters
    ----------
    tile : Tile
    sources : pyarrow.Table
        ``object_id``, ``ra``, ``dec`` (degrees ICRS, may be null or NaN), optionally ``quality`` (int32),
        the column of `CutSettings.size_column`, and others, which are carried through.
    settings : CutSettings

    Yields
    ------
    Cutouts

    Raises
    ------
    InputError
        When a file of the tile changed since the survey.
    ResourceError
        When a store does not answer.
    """
    if tile.problem[0]:
        yield _all_rejected(tile, sources, settings, *tile.problem)
        return
    placed = place(tile, sources, settings)
    files = Files()
    try:
        pixels = [_read(tile, band, files, placed, settings) for band in tile.bands]
    except BadFile as error:
        yield _all_rejected(tile, sources, settings, error.reason, error.detail, files.moved)
        return
    step = max(1, settings.batch_bytes // settings.working_bytes)
    moved = files.moved
    for start in range(0, max(1, sources.num_rows), step):
        yield _batch(tile, sources, settings, placed, pixels, slice(start, start + step), moved)
        moved = 0


Pixels = dict[str, Held]


def _read(tile: Tile, band: Band, files: Files, placed: Placed, settings: CutSettings) -> Pixels:
    """Get what cutouts need of a band's planes."""
    places, found = placed.places, Pixels()
    if band.image is not None:
        if band.wcs:
            found["image"] = regridded(tile, band.image, band.wcs, files, places.boxes(tile.shape))
        else:
            found["image"] = files.read(band.image, places.boxes(tile.shape))
    for name in settings.planes:
        plane: Plane | None = getattr(band, name)
        if plane is not None:
            found[name] = files.read(plane, places.boxes(plane.shape))
    return found


def _batch(
    tile: Tile,
    sources: pa.Table,
    settings: CutSettings,
    placed: Placed,
    pixels: list[Pixels],
    part: slice,
    moved: int,
) -> Cutouts:
    good = placed.good[part]
    before = int(placed.good[: part.start].sum())
    places = placed.places[slice(before, before + int(good.sum()))]
    some = sources.slice(part.start, len(good))
    kept = some.filter(pa.array(good))
    flux = cut_flux(tile, settings, places, [p.get("image") for p in pixels])
    if tile.suspect_wcs:
        flux.quality[...] |= Quality.BAD_WCS
    more = _more_columns(tile, settings, places, pixels, flux)
    rows = make_rows(kept, settings, places, flux, more)
    empty = flux.signal_bands == 0
    rejects = [
        _rejects(some.filter(pa.array(hit[part])), reason, detail)
        for reason, (hit, detail) in placed.reasons.items()
    ]
    rejects.append(_rejects(kept.filter(pa.array(empty)), "no_pixels", _NO_PIXELS))
    return Cutouts(rows.filter(pa.array(~empty)) if empty.any() else rows, pa.concat_tables(rejects), moved)


def _more_columns(
    tile: Tile, settings: CutSettings, places: Places, pixels: list[Pixels], flux: Flux
) -> dict[str, np.ndarray]:
    """Planes that were asked for; saturated pixels of the mask give their bit."""
    more = {}
    if "weight" in settings.planes:
        more["weight"] = cut_weights(tile, settings, places, [p.get("weight") for p in pixels])
    if "mask" in settings.planes:
        more["mask"], saturated = cut_masks(tile, settings, places, [p.get("mask") for p in pixels])
        flux.quality[saturated] |= Quality.SATURATED
    psf = [p.get("psf") for p in pixels]
    more["psf_fwhm_arcsec"] = cut_psf(tile, places, psf)
    return more


def _all_rejected(
    tile: Tile, sources: pa.Table, settings: CutSettings, reason: str, detail: str, moved: int = 0
) -> Cutouts:
    rows = row_schema(settings, [tile], sources.schema).empty_table()
    return Cutouts(rows, _rejects(sources, reason, detail), moved)


def _rejects(sources: pa.Table, reason: str, detail: str) -> pa.Table:
    count = sources.num_rows
    said = {"stage": STAGE, "reason": reason, "detail": detail}
    columns = {name: pa.array([text] * count, pa.string()) for name, text in said.items()}
    return pa.table({"object_id": sources["object_id"], **columns})
