"""The HATS layout of a table: partitions by HEALPix pixel, and the small files around them."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.sky import ORDER

COMMON_METADATA, METADATA = "dataset/_common_metadata", "dataset/_metadata"
PARTITION_INFO, PROPERTIES, COLLECTION = "partition_info.csv", "hats.properties", "collection.properties"
PROPERTY_NAMES = (PROPERTIES, "properties")
HEALPIX_29 = "_healpix_29"
STANDARD_LEAF = "dataset/Norder={order}/Dir={dir}/Npix={pixel}{suffix}"
CREATION_DATE = "hats_creation_date"


def leaf_path(order: int, pixel: int) -> str:
    """Path of the leaf of a pixel below the catalog's folder."""
    return leaf_name(STANDARD_LEAF, order, pixel, ".parquet")


def leaf_name(pattern: str, order: int, pixel: int, suffix: str) -> str:
    """Fill a pattern of leaf paths; the folder ``Npix=n`` itself where the suffix is ``/``."""
    return pattern.format(order=order, pixel=pixel, dir=pixel // 10000 * 10000, suffix=suffix.rstrip("/\\"))


def choose_pixels(histogram: np.ndarray, order: int, most: int) -> Iterator[tuple[int, int]]:
    """Cover all occupied pixels with the largest ones that hold at most ``most`` rows.

    Parameters
    ----------
    histogram : numpy.ndarray
        Rows in each nested pixel at ``order``.
    order : int
        Finest order, taken where even it holds more.
    most : int
        Rows of one partition.

    Yields
    ------
    (int, int)
        Order and pixel; no two overlap; sorted by order, then pixel.
    """
    counts = {order: histogram}
    for coarser in range(order - 1, -1, -1):
        counts[coarser] = counts[coarser + 1].reshape(-1, 4).sum(axis=1)
    open_pixels = np.flatnonzero(counts[0])
    for level in range(order + 1):
        rows = counts[level][open_pixels]
        fits = (rows <= most) | (level == order)
        for pixel in open_pixels[fits]:
            yield level, int(pixel)
        children = (open_pixels[~fits][:, None] * 4 + np.arange(4)).reshape(-1)
        open_pixels = children[counts[level + 1][children] > 0] if level < order else children


def metadata_files(
    name: str, schema: pa.Schema, pixels: list[tuple[int, int, int]], provenance: dict[str, str]
) -> dict[str, bytes]:
    """Make ``_common_metadata``, ``partition_info.csv`` and ``hats.properties`` of a finished table.

    Parameters
    ----------
    name : str
        ``obs_collection``.
    schema : pyarrow.Schema
        Of every leaf.
    pixels : list of (int, int, int)
        Order, pixel and rows of each leaf.
    provenance : dict of str to str
        Further properties, under ``surveyproc_`` keys.

    Returns
    -------
    dict of str to bytes
        The files, by their paths below the table's folder.

    Notes
    -----
    HATS 1.0 (https://www.ivoa.net/documents/Notes/HATS/). List columns are left out of the default
    columns, so that readers do not load embeddings unasked.
    """
    sink = io.BytesIO()
    pq.write_metadata(schema, sink)
    lines = "".join(f"{order},{pixel}\n" for order, pixel, _ in sorted(pixels))
    defaults = [f.name for f in schema if not pa.types.is_nested(f.type)]
    properties = {
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_nrows": str(sum(rows for _, _, rows in pixels)),
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": "_healpix_29",
        "hats_col_healpix_order": str(ORDER),
        "hats_cols_default": " ".join(defaults),
        "hats_npix_suffix": ".parquet",
        "hats_builder": "surveyproc",
        CREATION_DATE: time.strftime("%Y-%m-%dT%H:%MUTC", time.gmtime()),
        "hats_version": "v1.0",
        **provenance,
    }
    text = "#HATS catalog\n" + "".join(f"{key}={value}\n" for key, value in properties.items())
    return {
        COMMON_METADATA: sink.getvalue(),
        PARTITION_INFO: f"Norder,Npix\n{lines}".encode(),
        PROPERTIES: text.encode(),
    }
