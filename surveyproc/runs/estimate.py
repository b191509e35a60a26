"""Sizes and decoding times that can be told before a run: from schemas and footers, not from pixels."""

from __future__ import annotations

import pyarrow as pa

from surveyproc.cutouts import ImageSpec

TEXT_BYTES = 16
# Stored over Arrow bytes of each type, and the time to decode; docs/performance.md has the commands that measure them.
STORED = {pa.float16(): 0.80, pa.float32(): 0.85, pa.float64(): 0.80, pa.int64(): 0.80, pa.int32(): 0.30}
# Milliseconds of one core to decode an image: for the call, and for each megapixel.
DECODE_MS = {"raw": (0.0, 0.0), "jpeg": (0.06, 2.7), "png": (0.04, 13.1)}


def row_bytes(schema: pa.Schema) -> float:
    """Estimate the bytes of one row of a table once it is stored.

    A text counts as 16 bytes, a list of unknown length as one value. Columns with many nulls take less.
    """
    return sum(_value_bytes(field.type) for field in schema)


def index_row_bytes(schema: pa.Schema) -> float:
    """Bytes of one row of the similarity index over a table of embeddings: float32, and the id."""
    kind = schema.field("embedding").type
    return 4 * kind.list_size + _value_bytes(schema.field("object_id").type)


def decode_ms(image: ImageSpec) -> float:
    """Estimate the milliseconds that one core takes to decode a cutout; nothing for raw pixels."""
    call, megapixel = DECODE_MS[image.encoding]
    return call + megapixel * image.shape[0] * image.shape[1] / 1e6


def _value_bytes(kind: pa.DataType) -> float:
    if pa.types.is_fixed_size_list(kind):
        return kind.list_size * _value_bytes(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _value_bytes(kind.value_type)
    try:
        return kind.bit_width / 8 * STORED.get(kind, 1.0)
    except ValueError:
        return TEXT_BYTES
