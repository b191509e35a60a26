"""What tells a simulated catalog: the mark in its schema and its ids; readable without GalSim."""

from __future__ import annotations

import pyarrow as pa

KEY = b"surveyproc.simulated"
IDS_PER_SEED = 1_000_000


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


def id_of(seed: int, index: int) -> int:
    """Return the object id of galaxy ``index`` of a survey."""
    return (seed + 1) * IDS_PER_SEED + index


def seed_of(object_id: int) -> int:
    """Return the seed of the survey that an object id belongs to."""
    return object_id // IDS_PER_SEED - 1
