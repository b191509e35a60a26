"""FITS tiles with known contents, for tests of the ingest of tiles."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.wcs import WCS

from surveyproc.cutouts import METADATA_KEY, ImageSpec
from surveyproc.ingest.tiles import cut_tile


def tan_header(shape, *, ra=150.0, dec=2.0, scale=0.2, angle=0.0, **cards):
    """Header of a TAN image centred at (ra, dec) with square pixels of ``scale`` arcsec, turned by ``angle``."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    step = scale / 3600
    wcs.wcs.cd = np.array([[-step * c, step * s], [step * s, step * c]])
    header = wcs.to_header()
    for name in ("PC1_1", "PC1_2", "PC2_1", "PC2_2", "CDELT1", "CDELT2"):
        header.remove(name, ignore_missing=True)
    for i in (1, 2):
        for j in (1, 2):
            header[f"CD{i}_{j}"] = wcs.wcs.cd[i - 1, j - 1]
    for key, value in ({"BUNIT": "nJy"} | cards).items():
        if value is not None:
            header[key] = value
    return header


def noise(shape, seed=0):
    """Pixels that differ everywhere; positive and negative."""
    return np.random.default_rng(seed).normal(10, 3, shape).astype(np.float32)


def write_tile(path, pixels, header=None, **cards):
    """Write one image as a plain FITS file; returns its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = tan_header(pixels.shape, **cards) if header is None else header
    fits.PrimaryHDU(pixels, header).writeto(path, overwrite=True)
    return header


def sources_at(header, x, y, **columns):
    """Table of sources at 0-based pixels of a header's WCS (astropy's own projection)."""
    ra, dec = WCS(header, naxis=2).all_pix2world(np.asarray(x, float), np.asarray(y, float), 0)
    return pa.table({"object_id": np.arange(len(ra)), "ra": ra, "dec": dec} | columns)


def cut(tile, sources, settings):
    """Cut all batches: rows, rejects and bytes read together."""
    batches = list(cut_tile(tile, sources, settings))
    rows = pa.concat_tables([b.rows for b in batches])
    rejects = pa.concat_tables([b.rejects for b in batches])
    assert rows.num_rows + rejects.num_rows == sources.num_rows
    return rows, rejects, sum(b.bytes_read for b in batches)


def pixels_of(rows):
    """Pixels of the image column, (N, C, H, W) for flux."""
    spec = ImageSpec.from_json(rows.schema.field("image").metadata[METADATA_KEY])
    height, width, channels = spec.shape
    data = b"".join(rows["image"].to_pylist())
    shape = (channels, height, width) if spec.layout == "CHW" else (height, width, channels)
    return np.frombuffer(data, spec.dtype).reshape(-1, *shape)


def wcs_of_row(row):
    """WCS of a cutout, rebuilt from its row alone: TAN with the source as reference point."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [row["ra"], row["dec"]]
    wcs.wcs.crpix = [row["x0"] + 1, row["y0"] + 1]
    wcs.wcs.cd = [[row["cd11"], row["cd12"]], [row["cd21"], row["cd22"]]]
    return wcs
