"""JPEG and PNG files in a binary column."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import pyarrow as pa

from surveyproc.catalog.adapters.given import Given
from surveyproc.catalog.adapters.needs import Needs
from surveyproc.cutouts import DISPLAY_BANDS, ImageSpec
from surveyproc.errors import InputError

_MODES = {"L": 1, "1": 1, "LA": 2, "RGB": 3, "P": 3, "RGBA": 4, "CMYK": 4}


def encoding_of(data: Any) -> str | None:
    """Say by its first bytes what a file is: ``jpeg``, ``png``, or None."""
    head = bytes(memoryview(data)[:8])
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "png" if head == b"\x89PNG\r\n\x1a\n" else None


def describe(needs: Needs, values: pa.Array, encoding: str) -> ImageSpec | None:
    """Describe encoded images by the headers of the first: most of them decide the shape."""
    shapes: Counter[tuple[int, int, int]] = Counter()
    others: Counter[str] = Counter()
    for value in values:
        found = _shape(value.as_py())
        if isinstance(found, str):
            others[found] += 1
        else:
            shapes[found] += 1
    if not shapes:
        most = next(iter(others.most_common(1)), ("",))[0]
        raise InputError(
            f"none of the first images can be read: {most}",
            where=needs.uri,
            fix="write them again as JPEG or PNG with 8 bits per channel, or as raw pixels (HDF5, lists) where they have more",
        )
    shape = shapes.most_common(1)[0][0]
    given = needs.given or Given()
    names = given.bands or (DISPLAY_BANDS if shape[2] == 3 else None)
    if names is None:
        plural = "s" * (shape[2] != 1)
        bands = ",".join(f"BAND{n + 1}" for n in range(shape[2]))
        needs.add(f"the images have {shape[2]} channel{plural}, which have no names", f"--bands {bands}")
        return None
    if len(names) != shape[2]:
        raise InputError(
            f"--bands names {len(names)} bands, the images have {shape[2]} channels",
            where=needs.uri,
            fix="name each channel in order",
        )
    return ImageSpec(
        encoding,
        shape,
        "uint8",
        bands=names,
        stretch=given.stretch or "display",
        orientation="top-down",
    )


def _shape(data: bytes) -> tuple[int, int, int] | str:
    """Shape of an image, or why it has none."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            channels = _MODES.get(image.mode)
            return (image.height, image.width, channels) if channels else f"pixels of mode {image.mode}"
    except Exception as error:  # damaged files raise nearly anything in PIL
        return str(error).partition("<")[0].strip() or type(error).__name__
