"""The mark on a catalog that says its galaxies are simulated; readable without GalSim."""

from __future__ import annotations

import pyarrow as pa

KEY = b"surveyproc.simulated"


def mark_simulated(schema: pa.Schema) -> pa.Schema:
    """Mark the ``object_id`` field of a schema; field metadata travels with the Parquet files."""
    index = schema.get_field_index("object_id")
    field = schema.field(index)
    return schema.set(index, field.with_metadata({**(field.metadata or {}), KEY: b"true"}))


def is_simulated(schema: pa.Schema) -> bool:
    """Whether a catalog's schema carries the mark."""
    if "object_id" not in schema.names:
        return False
    return (schema.field("object_id").metadata or {}).get(KEY) == b"true"
