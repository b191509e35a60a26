"""Pixels as Arrow bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from surveyproc.cutouts import METADATA_KEY, ImageSpec


def pixels_to_array(pixels: np.ndarray, spec: ImageSpec) -> pa.FixedSizeBinaryArray:
    """Pack cutouts into the raw form of the ``image`` column.

    Parameters
    ----------
    pixels : ndarray, shape (N, H, W, C)
        Of ``spec.dtype``, whatever the layout of the column.
    spec : ImageSpec
        Raw encoding.

    Returns
    -------
    pyarrow.FixedSizeBinaryArray
        N values; shares memory with ``pixels`` where it is already in the column's layout.

    Raises
    ------
    ValueError
        When the pixels are not what ``spec`` says.
    """
    if spec.encoding != "raw" or pixels.shape[1:] != spec.shape or pixels.dtype != spec.dtype:
        raise ValueError(f"pixels {pixels.shape[1:]} {pixels.dtype} are not raw {spec.shape} {spec.dtype}")
    if spec.layout == "CHW":
        pixels = pixels.transpose(0, 3, 1, 2)
    data = pa.py_buffer(np.ascontiguousarray(pixels))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(spec.nbytes), len(pixels), [None, data])


def image_field(spec: ImageSpec) -> pa.Field:
    """Make the ``image`` field with its metadata: fixed-size binary when raw, binary when encoded."""
    stored = pa.binary(spec.nbytes) if spec.encoding == "raw" else pa.binary()
    return pa.field("image", stored, metadata={METADATA_KEY: spec.to_json().encode()})
