"""Finalising: committed parts become the tables that users read, unit by unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from surveyproc.catalog.hats import choose_pixels, leaf_path
from surveyproc.catalog.sky import parent_pixel, pixel_range
from surveyproc.identifiers import ROW
from surveyproc.runs.duplicates import find_duplicates
from surveyproc.runs.ledger import Commit, Ledger, Part
from surveyproc.steps import step
from surveyproc.storage import Storage

TABLE_BYTES = 128 * 2**20
ROW_GROUP_ROWS = 131_072
HISTOGRAM_ORDER = 8


@dataclass(frozen=True)
class MergeUnit:
    """One file of one table: the parts of ``shards``, or what of all parts lies in a HEALPix pixel."""

    name: str
    table: str
    target: str
    shards: tuple[int, ...]
    pixel: tuple[int, int] | None = None


@dataclass(frozen=True)
class Survey:
    """What one pass over the ids of all committed parts tells.

    ``drops`` maps a shard to positions of duplicates; ``histogram`` counts rows per pixel at order 8.
    """

    drops: dict[int, np.ndarray]
    histogram: np.ndarray | None


def survey_parts(storage: Storage, commits: list[Commit], primary: str, positions: bool) -> Survey:
    """Read the key columns of all parts once: duplicates, and rows per pixel of the sky."""
    histogram = np.zeros(12 * 4**HISTOGRAM_ORDER, dtype=np.int64) if positions else None

    def columns() -> Iterator[tuple[int, np.ndarray, pa.Array]]:
        wanted = [ROW, "object_id", *(["_healpix_29"] if positions else [])]
        for shard, commit in enumerate(commits):
            table = _read(storage, commit.parts[primary], wanted)
            if histogram is not None:
                pixels = parent_pixel(table["_healpix_29"].to_numpy(), HISTOGRAM_ORDER)
                np.add.at(histogram, pixels, 1)
            yield shard, table[ROW].to_numpy(), table["object_id"].combine_chunks()

    drops = find_duplicates(columns(), sum(c.rows for c in commits))
    return Survey(drops, histogram)


def merge_units(commits: list[Commit], tables: list[str], survey: Survey) -> list[MergeUnit]:
    """List the files to write, the same for everyone who reads the same commits.

    Parameters
    ----------
    commits : list of Commit
        Of all shards, in plan order.
    tables : list of str
        Tables to write; ``rejects`` is always flat.
    survey : Survey
    """
    units: list[MergeUnit] = []
    everything = tuple(range(len(commits)))
    for table in tables:
        size = sum(c.parts[table].bytes for c in commits)
        rows = sum(c.parts[table].rows for c in commits)
        if survey.histogram is None or table == "rejects" or not rows:
            for number, shards in enumerate(_consecutive(commits, table)):
                target = f"{table}/{table}-{number:05d}.parquet"
                units.append(MergeUnit(f"merge-{table}-{number:05d}", table, target, shards))
        else:
            most = max(1, TABLE_BYTES * rows // size)
            for order, pixel in choose_pixels(survey.histogram, HISTOGRAM_ORDER, most):
                name = f"merge-{table}-{order}-{pixel}"
                units.append(
                    MergeUnit(name, table, f"{table}/{leaf_path(order, pixel)}", everything, (order, pixel))
                )
    return units


def merge_unit(
    storage: Storage, ledger: Ledger, commits: list[Commit], unit: MergeUnit, survey: Survey, primary: str
) -> Commit:
    """Write one file of a table, commit it, and give it its final name.

    Doing it again, or at the same time as somebody else, leaves the same file.
    """
    done = ledger.commit_of(unit.name)
    if done is None:
        attempt = ledger.begin(unit.name)
        rows = 0
        schema = _schema(storage, commits, unit)
        with attempt.part_writer(unit.table, schema, ROW_GROUP_ROWS, **parquet_settings(schema)) as writer:
            for table in _content(storage, commits, unit, survey, primary):
                rows += table.num_rows
                writer.write(table)
        done = attempt.commit(rows, 0, {"target": unit.target})
    storage.publish(done.parts[unit.table].path, unit.target)
    step("merge.published", unit.name)
    return done


def parquet_settings(schema: pa.Schema) -> dict[str, Any]:
    """Writer settings of user tables: measured smaller and faster than pyarrow's defaults."""
    leaves = {f"{f.name}.list.element" if _is_list(f.type) else f.name: f for f in schema}
    text = [n for n, f in leaves.items() if pa.types.is_string(f.type) and f.name != "object_id"]
    encodings = {}
    for name, field in leaves.items():
        kind = field.type.value_type if _is_list(field.type) else field.type
        if pa.types.is_float32(kind) or pa.types.is_float64(kind):
            encodings[name] = "BYTE_STREAM_SPLIT"
        elif name == "_healpix_29":
            encodings[name] = "DELTA_BINARY_PACKED"
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": text,
        "column_encoding": encodings,
        "bloom_filter_options": {"object_id": {"ndv": ROW_GROUP_ROWS, "fpp": 0.01}},
    }


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind)


def _schema(storage: Storage, commits: list[Commit], unit: MergeUnit) -> pa.Schema:
    with storage.open(commits[unit.shards[0]].parts[unit.table].path) as file:
        return user_schema(pq.read_schema(file), unit.table)


def user_schema(part: pa.Schema, table: str) -> pa.Schema:
    """Schema of a table from that of its parts: without ``_row``, and ``rejects`` with its shard."""
    fields = [f for f in part if f.name != ROW]
    if table == "rejects":
        fields = [part.field("object_id"), pa.field("shard", pa.int32())]
        fields += [part.field(n) for n in ("stage", "reason", "detail")]
    return pa.schema(fields)


def _content(
    storage: Storage, commits: list[Commit], unit: MergeUnit, survey: Survey, primary: str
) -> Iterator[pa.Table]:
    if unit.table == "rejects":
        for shard in unit.shards:
            yield _rejects(storage, commits[shard], shard, survey.drops.get(shard), primary)
    elif unit.pixel is None:
        for shard in unit.shards:
            for table in _row_groups(storage, commits[shard].parts[unit.table]):
                yield _without(table, survey.drops.get(shard)).drop_columns([ROW])
    else:
        pieces = []
        for shard in unit.shards:
            piece = _read_pixel(storage, commits[shard].parts[unit.table], *unit.pixel)
            if piece is not None:
                pieces.append(_without(piece, survey.drops.get(shard)))
        merged = pa.concat_tables(pieces)
        order = np.argsort(merged["_healpix_29"].to_numpy(), kind="stable")
        yield merged.take(pa.array(order)).drop_columns([ROW])


def _rejects(
    storage: Storage, commit: Commit, shard: int, drops: np.ndarray | None, primary: str
) -> pa.Table:
    table = _read(storage, commit.parts["rejects"])
    if drops is not None:
        keys = _read(storage, commit.parts[primary], [c for c in table.column_names if c not in _WHY])
        keys = keys.filter(pa.array(np.isin(keys[ROW].to_numpy(), drops)))
        for name, value in _WHY.items():
            keys = keys.append_column(name, pa.array([value] * keys.num_rows, pa.string()))
        table = pa.concat_tables([table, keys.select(table.column_names).cast(table.schema)]).sort_by(ROW)
    table = table.append_column("shard", pa.array(np.full(table.num_rows, shard, dtype=np.int32)))
    schema = user_schema(table.schema, "rejects")
    return table.select(schema.names).cast(schema)


_WHY = {"stage": "finalise", "reason": "duplicate_id", "detail": "the id came earlier in the input"}


def _without(table: pa.Table, drops: np.ndarray | None) -> pa.Table:
    return table if drops is None else table.filter(pa.array(~np.isin(table[ROW].to_numpy(), drops)))


def _read(storage: Storage, part: Part, columns: list[str] | None = None) -> pa.Table:
    with storage.open(part.path) as file:
        return pq.read_table(file, columns=columns, use_threads=False)


def _row_groups(storage: Storage, part: Part) -> Iterator[pa.Table]:
    with storage.open(part.path) as raw:
        file = pq.ParquetFile(raw)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, use_threads=False)


def _read_pixel(storage: Storage, part: Part, order: int, pixel: int) -> pa.Table | None:
    low, high = pixel_range(order, pixel)
    with storage.open(part.path) as raw:
        file = pq.ParquetFile(raw)
        position = file.schema_arrow.get_field_index("_healpix_29")
        groups = []
        for number in range(file.num_row_groups):
            statistics = file.metadata.row_group(number).column(position).statistics
            if statistics is None or (statistics.max >= low and statistics.min < high):
                groups.append(number)
        if not groups:
            return None
        table = file.read_row_groups(groups, use_threads=False)
    column = table["_healpix_29"]
    return table.filter(pc.and_(pc.greater_equal(column, low), pc.less(column, high)))


def _consecutive(commits: list[Commit], table: str) -> Iterator[tuple[int, ...]]:
    group: list[int] = []
    size = 0
    for shard, commit in enumerate(commits):
        group.append(shard)
        size += commit.parts[table].bytes
        if size >= TABLE_BYTES:
            yield tuple(group)
            group, size = [], 0
    if group:
        yield tuple(group)
