"""Cutouts as rows of a catalog."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from surveyproc.catalog.pixels import pixels_to_array
from surveyproc.ingest.tiles.display import stretched_pixels
from surveyproc.ingest.tiles.flux import Flux
from surveyproc.ingest.tiles.places import Places, scale_of
from surveyproc.ingest.tiles.settings import CutSettings, flux_spec, image_spec, row_schema


def make_rows(
    sources: pa.Table, settings: CutSettings, places: Places, flux: Flux, planes: dict[str, np.ndarray]
) -> pa.Table:
    """Put cutouts, their geometry and their planes beside the columns of the sources.

    Parameters
    ----------
    sources : pyarrow.Table
        N sources.
    settings : CutSettings
    places : Places
    flux : Flux
    planes : dict of str to ndarray
        ``weight``, ``mask`` and ``psf_fwhm_arcsec``.

    Returns
    -------
    pyarrow.Table
        With the columns of `row_schema`.
    """
    schema = row_schema(settings, (), sources.schema)
    geometry = _geometry(places, settings.size)
    columns: dict[str, Any] = {name: sources[name] for name in sources.column_names}
    columns |= {name: pa.array(values) for name, values in geometry.items()}
    columns["quality"] = pa.array(_given_quality(sources) | flux.quality)
    columns["psf_fwhm_arcsec"] = _per_band(planes["psf_fwhm_arcsec"])
    for name in ("weight", "mask"):
        if name in planes:
            columns[name] = _packed(planes[name], schema.field(name).type)
    columns["image"] = _image(settings, flux, geometry["pixel_scale_arcsec"])
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _geometry(places: Places, size: int) -> dict[str, np.ndarray]:
    """Position in the stamp, CD matrix and pixel scale; those of a resampled stamp are scaled with its pixels."""
    if places.span is None:
        x0, y0, cd = places.x - places.left, places.y - places.bottom, places.cd
    else:
        x0 = y0 = np.full(len(places.x), (size - 1) / 2)
        cd = places.cd * (places.span / size)[:, None, None]
    found = {"x0": x0, "y0": y0, "pixel_scale_arcsec": scale_of(cd)}
    return found | {f"cd{i + 1}{j + 1}": cd[:, i, j] for i in (0, 1) for j in (0, 1)}


def _given_quality(sources: pa.Table) -> np.ndarray:
    if "quality" not in sources.column_names:
        return np.zeros(sources.num_rows, np.int32)
    return sources["quality"].fill_null(0).to_numpy().astype(np.int32)


def _per_band(values: np.ndarray) -> pa.FixedSizeListArray:
    known = np.isfinite(values)
    flat = pa.array(values.reshape(-1), pa.float32(), mask=~known.reshape(-1))
    nothing = pa.array(~known.any(axis=1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=nothing)


def _packed(values: np.ndarray, kind: pa.DataType) -> pa.FixedSizeBinaryArray:
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, buffer])


def _image(settings: CutSettings, flux: Flux, pixel_scale_arcsec: np.ndarray) -> pa.FixedSizeBinaryArray:
    spec = image_spec(settings)
    if settings.stretch != "none":
        pixels = stretched_pixels(settings.stretch, flux.pixels, flux_spec(settings), pixel_scale_arcsec)
    else:
        pixels = flux.pixels.astype(settings.dtype, copy=False).transpose(0, 2, 3, 1)
    return pixels_to_array(pixels, spec)
