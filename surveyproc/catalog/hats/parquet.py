"""How the Parquet files of user tables are written."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from surveyproc.catalog.hats.layout import HEALPIX_29

ROW_GROUP_ROWS = 131_072


def parquet_settings(schema: pa.Schema) -> dict[str, Any]:
    """Writer settings of user tables: measured smaller and faster than pyarrow's defaults."""
    leaves = {f"{f.name}.list.element" if _is_list(f.type) else f.name: f for f in schema}
    text = [n for n, f in leaves.items() if pa.types.is_string(f.type) and f.name != "object_id"]
    encodings = {}
    for name, field in leaves.items():
        kind = field.type.value_type if _is_list(field.type) else field.type
        if pa.types.is_float32(kind) or pa.types.is_float64(kind):
            encodings[name] = "BYTE_STREAM_SPLIT"
        elif name == HEALPIX_29:
            encodings[name] = "DELTA_BINARY_PACKED"
    settings: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": text,
        "column_encoding": encodings,
    }
    if "object_id" in schema.names:
        settings["bloom_filter_options"] = {"object_id": {"ndv": ROW_GROUP_ROWS, "fpp": 0.01}}
    return settings


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind)
