"""Bytes of the ``image`` column to pixels, row by row where a row is bad."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from surveyproc.cutouts import ImageSpec

Failures = dict[int, tuple[str, str]]
_MODES = {"L": 1, "RGB": 3, "RGBA": 4, "LA": 2, "CMYK": 4}


class BadImage(ValueError):
    """An image that cannot become a cutout.

    Parameters
    ----------
    reason : str
        Stable word for the rejects table, such as ``unreadable_image``.
    detail : str
        What was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def decode_batch(column: pa.Array, spec: ImageSpec) -> tuple[np.ndarray, Failures]:
    """Decode one batch of the ``image`` column.

    Parameters
    ----------
    column : pyarrow.Array
        N values, binary or fixed-size binary.
    spec : ImageSpec
        What they are.

    Returns
    -------
    pixels : ndarray, shape (N, H, W, C)
        Of ``spec.dtype``. Raw values in HWC order share the column's memory (read-only); raw CHW is a
        transposed view of it. Rows that failed are zeros.
    failures : dict of int to (str, str)
        Row of each failure, with its reason (``missing_image``, ``unreadable_image``, ``wrong_shape``,
        ``wrong_channels``, ``wrong_size``) and detail.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if spec.encoding == "raw":
        return _decode_raw(column, spec)
    return _decode_encoded(column, spec)


def decode_image(data: bytes, encoding: str | None = None) -> np.ndarray:
    """Decode a whole JPEG or PNG.

    Parameters
    ----------
    data : bytes
        The file.
    encoding : str, optional
        ``jpeg`` or ``png``; either when not given.

    Returns
    -------
    ndarray, shape (H, W, C)
        uint8; C is 1 for greyscale. Palettes become RGB.

    Raises
    ------
    BadImage
        Truncated, damaged, of the other encoding, or with more than 8 bits per channel.
    """
    formats = ("JPEG", "PNG") if encoding is None else (encoding.upper(),)
    try:
        with Image.open(io.BytesIO(data), formats=formats) as opened:
            opened.load()
            image: Image.Image = opened
            if opened.mode in ("P", "1"):
                image = opened.convert("RGB" if opened.mode == "P" else "L")
            if image.mode not in _MODES:
                raise BadImage(
                    "unreadable_image", f"pixels of mode {image.mode}; 8 bits per channel are needed"
                )
            pixels = np.asarray(image)
    except UnidentifiedImageError as error:
        raise BadImage(
            "unreadable_image", f"not a {' or '.join(formats)} file ({len(data)} bytes)"
        ) from error
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # damaged files raise nearly anything in PIL; one of them must not end a run
        raise BadImage("unreadable_image", str(error) or type(error).__name__) from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def check_shape(found: tuple[int, ...], shape: tuple[int, int, int]) -> None:
    """Compare a decoded image with the catalog's shape.

    Raises
    ------
    BadImage
        ``wrong_channels`` or ``wrong_shape``.
    """
    if found[2] != shape[2]:
        raise BadImage("wrong_channels", f"image has {found[2]} channels, the catalog {shape[2]}")
    if tuple(found) != tuple(shape):
        raise BadImage(
            "wrong_shape", f"image is {found[0]} x {found[1]} px, the catalog {shape[0]} x {shape[1]}"
        )


def find_unusable(pixels: np.ndarray) -> Failures:
    """Find cutouts that hold no information.

    Parameters
    ----------
    pixels : ndarray, shape (N, H, W, C)
        Any real dtype.

    Returns
    -------
    dict of int to (str, str)
        ``nan_pixels`` where no pixel is finite, ``constant_pixels`` where every channel is constant over
        its finite pixels.
    """
    found: Failures = {}
    for row in _suspects(pixels):
        values = pixels[row]
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.any():
                found[row] = ("nan_pixels", "no pixel is finite")
                continue
            low = np.where(finite, values, np.inf).min(axis=(0, 1))
            high = np.where(finite, values, -np.inf).max(axis=(0, 1))
        else:
            low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
        if (low >= high).all():
            found[row] = ("constant_pixels", f"every pixel is {'/'.join(f'{v:g}' for v in low)}")
    return found


def _suspects(pixels: np.ndarray) -> list[int]:
    """Rows worth a full look: those whose sparse sample of pixels is constant or not finite."""
    if pixels.size == 0:
        return []
    height, width = pixels.shape[1:3]
    sample = pixels[:, :: max(1, height // 8), :: max(1, width // 8)]
    differs = sample != sample[:, :1, :1]
    if pixels.dtype.kind == "f":
        differs &= np.isfinite(sample) & np.isfinite(sample[:, :1, :1])
    return np.flatnonzero(~differs.any(axis=(1, 2, 3))).tolist()


def _decode_raw(column: pa.Array, spec: ImageSpec) -> tuple[np.ndarray, Failures]:
    rows, nbytes = len(column), spec.nbytes
    failures: Failures = {}
    if column.null_count == 0 and (flat := _contiguous_bytes(column, nbytes)) is not None:
        data = flat
    else:
        data = np.zeros((rows, nbytes), dtype=np.uint8)
        for row in range(rows):
            value = column[row].as_buffer() if column[row].is_valid else None
            if value is None:
                failures[row] = ("missing_image", "the image is null")
            elif value.size != nbytes:
                failures[row] = (
                    "wrong_size",
                    f"image has {value.size} bytes, {spec.shape} {spec.dtype} needs {nbytes}",
                )
            else:
                data[row] = np.frombuffer(value, np.uint8)
    height, width, channels = spec.shape
    if spec.layout == "CHW":
        pixels = data.view(spec.dtype).reshape(rows, channels, height, width)
        return pixels.transpose(0, 2, 3, 1), failures
    return data.view(spec.dtype).reshape(rows, height, width, channels), failures


def _contiguous_bytes(column: pa.Array, nbytes: int) -> np.ndarray | None:
    """View the values as (N, nbytes) without a copy; None when their lengths differ."""
    rows = len(column)
    if rows == 0:
        return np.zeros((0, nbytes), dtype=np.uint8)
    if pa.types.is_fixed_size_binary(column.type):
        if column.type.byte_width != nbytes:
            return None
        start = column.offset * nbytes
        data = column.buffers()[1]
    else:
        width = np.int64 if pa.types.is_large_binary(column.type) else np.int32
        offsets = np.frombuffer(column.buffers()[1], dtype=width)[column.offset : column.offset + rows + 1]
        if (np.diff(offsets) != nbytes).any():
            return None
        start = int(offsets[0])
        data = column.buffers()[2]
    return np.frombuffer(data, np.uint8, rows * nbytes, start).reshape(rows, nbytes)


def _decode_encoded(column: pa.Array, spec: ImageSpec) -> tuple[np.ndarray, Failures]:
    pixels = np.zeros((len(column), *spec.shape), dtype=spec.dtype)
    failures: Failures = {}
    for row, value in enumerate(column):
        if not value.is_valid:
            failures[row] = ("missing_image", "the image is null")
            continue
        try:
            image = decode_image(value.as_buffer(), spec.encoding)
            check_shape(image.shape, spec.shape)
            pixels[row] = image
        except BadImage as error:
            failures[row] = (error.reason, error.detail)
    return pixels, failures
