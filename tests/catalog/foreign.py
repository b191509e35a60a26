"""Cutouts in the forms in which other people store them."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIDE = 12


def display_pixels(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, SIDE, SIDE, 3)).astype(np.uint8)


def flux_planes(rows: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    """``(N, C, H, W)`` float32."""
    return np.random.default_rng(seed).normal(size=(rows, bands, SIDE, SIDE)).astype(np.float32)


def file_of(image: np.ndarray, kind: str = "png") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, kind)
    return sink.getvalue()


def nested(values: np.ndarray, number: pa.DataType) -> pa.Array:
    kind = number
    for _ in range(values.ndim - 1):
        kind = pa.list_(kind)
    return pa.array(values.tolist(), kind)


def write(path, image: pa.Array, group_rows: int = 15, **columns):
    """Write a Parquet file with ids 0, 1, ... unless there are others."""
    columns = columns or {"object_id": pa.array(range(len(image)))}
    pq.write_table(pa.table({**columns, "image": image}), path, row_group_size=group_rows)
    return path


def universe(flux: np.ndarray, bands=("DES-G", "DES-R", "DES-Z"), scale: float = 0.262) -> list[dict]:
    """The image struct of the Multimodal Universe."""
    seeing = [1.0 + 0.125 * k for k in range(len(bands))]
    return [
        {
            "band": list(bands),
            "flux": planes.tolist(),
            "ivar": np.ones_like(planes).tolist(),
            "mask": (planes > 1).tolist(),
            "psf_fwhm": seeing,
            "scale": [scale] * len(bands),
        }
        for planes in flux
    ]


def hdf5(path, **datasets):
    """Write an HDF5 file; returns its path."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path
