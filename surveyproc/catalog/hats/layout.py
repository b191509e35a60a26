"""The HATS layout of a table: partitions by HEALPix pixel, and the small files around them."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.hats.properties import format_properties
from surveyproc.catalog.sky import ORDER

COMMON_METADATA, METADATA = "dataset/_common_metadata", "dataset/_metadata"
PARTITION_INFO, PROPERTIES, COLLECTION = "partition_info.csv", "hats.properties", "collection.properties"
PROPERTY_NAMES = (PROPERTIES, "properties")
HEALPIX_29 = "_healpix_29"
STANDARD_LEAF = "dataset/Norder={order}/Dir={dir}/Npix={pixel}{suffix}"
FOLDER_SUFFIX = "/"
CREATION_DATE = "hats_creation_date"


def leaf_path(order: int, pixel: int, part: str | None = None) -> str:
    """Path of the leaf of a pixel below the catalog's folder.

    With ``part`` the leaf is a folder, and this the path of the file ``<part>.parquet`` in it; the properties of the
    catalog must then say so (``suffix`` of `metadata_files`).
    """
    if part is None:
        return leaf_name(STANDARD_LEAF, order, pixel, ".parquet")
    return f"{leaf_name(STANDARD_LEAF, order, pixel, FOLDER_SUFFIX)}/{part}.parquet"


def leaf_name(pattern: str, order: int, pixel: int, suffix: str) -> str:
    """Fill a pattern of leaf paths; the folder ``Npix=n`` itself where the suffix is ``/``."""
    return pattern.format(order=order, pixel=pixel, dir=pixel // 10000 * 10000, suffix=suffix.rstrip("/\\"))


def choose_pixels(histogram: np.ndarray, order: int, most: int) -> Iterator[tuple[int, int]]:
    """Cover all occupied pixels with the largest ones that hold at most ``most``.

    Parameters
    ----------
    histogram : numpy.ndarray
        Rows, or bytes, in each nested pixel at ``order``.
    order : int
        Finest order, taken where even it holds more.
    most : int
        Rows, or bytes, of one partition.

    Yields
    ------
    (int, int)
        Order and pixel; no two overlap; sorted by order, then pixel.
    """
    occupied = np.flatnonzero(histogram)
    yield from choose_occupied_pixels(occupied, histogram[occupied], order, most)


def choose_occupied_pixels(
    pixels: np.ndarray, weights: np.ndarray, order: int, most: int
) -> Iterator[tuple[int, int]]:
    """Do what `choose_pixels` does from the occupied pixels alone, at any order.

    Parameters
    ----------
    pixels : numpy.ndarray
        Distinct nested pixels at ``order``, in ascending order.
    weights : numpy.ndarray
        Rows, or bytes, in each; more than 0.
    order, most : int
        As for `choose_pixels`.

    Yields
    ------
    (int, int)
        Order and pixel; no two overlap; sorted by order, then pixel.
    """
    levels = {order: (np.asarray(pixels, np.int64), np.asarray(weights))}
    for coarser in range(order - 1, -1, -1):
        finer, held = levels[coarser + 1]
        parents, starts = np.unique(finer >> 2, return_index=True)
        levels[coarser] = parents, np.add.reduceat(held, starts) if len(held) else held
    open_pixels = levels[0][0]
    for level in range(order + 1):
        known, held = levels[level]
        here = np.isin(known, open_pixels)
        fits = here & ((held <= most) | (level == order))
        for pixel in known[fits]:
            yield level, int(pixel)
        open_pixels = (known[here & ~fits][:, None] * 4 + np.arange(4)).reshape(-1)


def metadata_files(
    name: str,
    schema: pa.Schema,
    pixels: list[tuple[int, int, int]],
    provenance: Mapping[str, str],
    kind: str = "object",
    suffix: str = ".parquet",
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
    provenance : mapping of str to str
        Further properties, ours under ``surveyproc_`` keys; it may also replace those made here.
    kind : str
        ``dataproduct_type``.
    suffix : str
        What follows ``Npix=n``; ``/`` when leaves are folders of files.

    Returns
    -------
    dict of str to bytes
        The files, by their paths below the table's folder.

    Notes
    -----
    HATS 1.0 (https://www.ivoa.net/documents/Notes/HATS/). The default columns are the scalar ones, so that
    readers do not load embeddings and pixels unasked.
    """
    sink = io.BytesIO()
    pq.write_metadata(schema, sink)
    lines = "".join(f"{order},{pixel}\n" for order, pixel, _ in sorted(pixels))
    properties = {
        "obs_collection": name,
        "dataproduct_type": kind,
        "hats_nrows": str(sum(rows for _, _, rows in pixels)),
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": HEALPIX_29,
        "hats_col_healpix_order": str(ORDER),
        "hats_cols_default": " ".join(field.name for field in schema if is_scalar(field.type)),
        "hats_npix_suffix": suffix,
        "hats_order": str(max((order for order, _, _ in pixels), default=0)),
        "moc_sky_fraction": f"{sum(4.0**-order for order, _, _ in pixels) / 12:.5f}",
        "hats_builder": "surveyproc",
        CREATION_DATE: creation_date(),
        "hats_version": "v1.0",
        **provenance,
    }
    return {
        COMMON_METADATA: sink.getvalue(),
        PARTITION_INFO: f"Norder,Npix\n{lines}".encode(),
        PROPERTIES: format_properties("HATS catalog", properties),
    }


def is_scalar(kind: pa.DataType) -> bool:
    """Whether a column is read unasked: neither lists and structures nor bytes."""
    heavy = (
        pa.types.is_nested,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
    )
    return not any(test(kind) for test in heavy)


def creation_date() -> str:
    """Now, as HATS writes it."""
    return time.strftime("%Y-%m-%dT%H:%MUTC", time.gmtime())
