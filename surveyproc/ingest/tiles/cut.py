"""Cut the sources of one tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from surveyproc.catalog.pixels import pixels_to_array
from surveyproc.catalog.sky import usable_positions
from surveyproc.ingest.tiles.settings import CutSettings, image_spec, row_schema
from surveyproc.ingest.tiles.tile import Plane, Tile
from surveyproc.ingest.tiles.units import scale_factor
from surveyproc.ingest.tiles.wcs import edge_distance, local_cd, locate
from surveyproc.quality import Quality

STAGE = "tile"


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
        Bytes moved from files for this batch.
    """

    rows: pa.Table
    rejects: pa.Table
    bytes_read: int = 0


def cut_tile(tile: Tile, sources: pa.Table, settings: CutSettings) -> Iterator[Cutouts]:
    """Cut all sources of a tile, in batches of bounded size.

    Every source is in exactly one batch, as a row or as a reject.

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
        yield Cutouts(_no_rows(tile, sources, settings), _rejects(sources, *tile.problem))
        return
    images = [None if band.image is None else _map_plane(band.image) for band in tile.bands]
    rows = max(1, settings.batch_bytes // (settings.size**2 * len(tile.bands) * 4))
    for start in range(0, sources.num_rows, rows):
        yield _cut_batch(tile, sources.slice(start, rows), settings, images)


def _cut_batch(
    tile: Tile, sources: pa.Table, settings: CutSettings, images: list[np.ndarray | None]
) -> Cutouts:
    ra, dec = (sources[n].to_numpy().astype(np.float64) for n in ("ra", "dec"))
    known = usable_positions(ra, dec)
    x, y = locate(tile, ra, dec)
    inside = known & (edge_distance(tile, x, y) >= 0)
    rejects = [
        _rejects(sources.filter(pa.array(~known)), "no_position", "ra or dec is missing or not on the sky"),
        _rejects(sources.filter(pa.array(known & ~inside)), "outside", f"not on tile {tile.name}"),
    ]
    kept = sources.filter(pa.array(inside))
    x, y = x[inside], y[inside]
    quality = _given_quality(kept)
    size = settings.size
    left, bottom = (np.ceil(v - size / 2).astype(np.int64) for v in (x, y))
    height, width = tile.shape
    edge = (left < 0) | (bottom < 0) | (left + size > width) | (bottom + size > height)
    quality[edge] |= Quality.EDGE
    pixels = np.zeros((kept.num_rows, len(tile.bands), size, size), np.float32)
    for channel, (band, image) in enumerate(zip(tile.bands, images)):
        if image is None:
            quality |= Quality.MISSING_BAND
            continue
        _slice_into(pixels[:, channel], image, left, bottom)
        pixels[:, channel] *= np.float32(scale_factor(band.zeropoint, settings.unit))
    _mend(pixels, quality)
    cd = local_cd(tile.wcs, x, y)
    scale = 3600 * np.sqrt(np.abs(np.linalg.det(cd)))
    columns = {"quality": quality, "x0": x - left, "y0": y - bottom, "pixel_scale_arcsec": scale}
    columns |= {f"cd{i + 1}{j + 1}": cd[:, i, j] for i in (0, 1) for j in (0, 1)}
    return Cutouts(_rows(tile, kept, settings, columns, pixels), pa.concat_tables(rejects))


def _slice_into(out: np.ndarray, image: np.ndarray, left: np.ndarray, bottom: np.ndarray) -> None:
    """Copy squares of an image, those beyond its edges as far as they are on it."""
    size, (height, width) = out.shape[-1], image.shape
    for n, (x, y) in enumerate(zip(left.tolist(), bottom.tolist())):
        if x >= 0 and y >= 0 and x + size <= width and y + size <= height:
            out[n] = image[y : y + size, x : x + size]
        else:
            x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + size, width), min(y + size, height)
            out[n, y1 - y : y2 - y, x1 - x : x2 - x] = image[y1:y2, x1:x2]


def _mend(pixels: np.ndarray, quality: np.ndarray) -> None:
    """Set what is not finite to 0 and say so."""
    finite = np.isfinite(pixels)
    flawed = ~finite.all(axis=(1, 2, 3))
    quality[flawed] |= Quality.NAN_PIXELS
    pixels[~finite] = 0
    quality[~pixels.any(axis=(2, 3)).all(axis=1)] |= Quality.MISSING_BAND


def _rows(
    tile: Tile, kept: pa.Table, settings: CutSettings, columns: dict[str, np.ndarray], pixels: np.ndarray
) -> pa.Table:
    spec = image_spec(settings, [tile])
    schema = row_schema(settings, [tile], kept.schema)
    arrays: dict[str, pa.Array | pa.ChunkedArray] = {
        name: kept[name] for name in kept.column_names if name != "quality"
    }
    arrays |= {name: pa.array(values) for name, values in columns.items()}
    arrays["psf_fwhm_arcsec"] = pa.nulls(kept.num_rows, schema.field("psf_fwhm_arcsec").type)
    stored = pixels.astype(settings.dtype, copy=False)
    arrays["image"] = pixels_to_array(stored.transpose(0, 2, 3, 1), spec)
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def _no_rows(tile: Tile, sources: pa.Table, settings: CutSettings) -> pa.Table:
    return row_schema(settings, [tile], sources.schema).empty_table()


def _given_quality(sources: pa.Table) -> np.ndarray:
    if "quality" not in sources.column_names:
        return np.zeros(sources.num_rows, np.int32)
    return sources["quality"].fill_null(0).to_numpy().astype(np.int32)


def _rejects(sources: pa.Table, reason: str, detail: str) -> pa.Table:
    count = sources.num_rows
    values = {"stage": STAGE, "reason": reason, "detail": detail}
    return pa.table(
        {
            "object_id": sources["object_id"],
            **{n: pa.array([v] * count, pa.string()) for n, v in values.items()},
        }
    )


def _map_plane(plane: Plane) -> np.ndarray:
    kind = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}[plane.bitpix]
    return np.memmap(plane.uri, dtype=kind, mode="r", offset=plane.offset, shape=plane.shape)
