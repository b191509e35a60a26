"""Finalising: committed parts become the tables that users read, unit by unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from surveyproc.catalog.hats import choose_pixels, leaf_path
from surveyproc.catalog.hats.parquet import ROW_GROUP_ROWS, parquet_settings
from surveyproc.catalog.sky import pixel_range
from surveyproc.columns import known
from surveyproc.identifiers import ROW
from surveyproc.runs import skymap
from surveyproc.runs.duplicates import find_duplicates
from surveyproc.runs.ledger import Commit, Ledger
from surveyproc.runs.skymap import SkyMap
from surveyproc.runs.winners import Winners
from surveyproc.steps import step
from surveyproc.storage import Storage
from surveyproc.threads import map_ahead
from surveyproc.voparquet import with_votable

TABLE_BYTES = 128 * 2**20
READ_THREADS = 8


@dataclass(frozen=True)
class MergeUnit:
    """One file of one table: the parts of consecutive ``shards``, or what lies in a HEALPix ``pixel``."""

    name: str
    table: str
    target: str
    shards: range | None
    pixel: tuple[int, int] | None = None


@dataclass(frozen=True)
class Survey:
    """What one pass over the ids of all committed parts tells.

    ``drops`` maps a shard to positions of duplicates; ``sky`` tells where its rows are.
    """

    drops: dict[int, np.ndarray]
    sky: SkyMap | None

    def shards(self, unit: MergeUnit) -> Sequence[int]:
        """Shards whose parts have rows of a unit."""
        if self.sky is None or unit.pixel is None:
            return unit.shards or ()
        return self.sky.shards_in(*unit.pixel).tolist()


def survey_parts(storage: Storage, winners: Winners, primary: str, positions: bool) -> Survey:
    """Read the key columns of all parts once: duplicates, and where on the sky the rows of a shard are."""
    sky = SkyMap() if positions else None
    wanted = [ROW, "object_id", *(["_healpix_29"] if positions else [])]

    def read(shard: int) -> pa.Table:
        return _read(storage, winners.path(shard, primary), wanted)

    def columns() -> Iterator[tuple[int, np.ndarray, pa.Array]]:
        for shard, table in enumerate(map_ahead(read, range(len(winners)), READ_THREADS)):
            if sky is not None:
                sky.add(table["_healpix_29"].to_numpy())
            yield shard, table[ROW].to_numpy(), table["object_id"].combine_chunks()

    drops = find_duplicates(columns(), int(winners.rows[primary].sum()))
    return Survey(drops, sky)


def merge_units(winners: Winners, tables: list[str], survey: Survey) -> list[MergeUnit]:
    """List the files to write, the same for everyone who reads the same commits.

    Parameters
    ----------
    winners : Winners
    tables : list of str
        Tables to write; ``rejects`` is always flat.
    survey : Survey
    """
    units: list[MergeUnit] = []
    for table in tables:
        rows, size = int(winners.rows[table].sum()), int(winners.bytes[table].sum())
        if survey.sky is None or table == "rejects" or not rows:
            for number, shards in enumerate(_consecutive(winners, table)):
                target = f"{table}/{table}-{number:05d}.parquet"
                units.append(MergeUnit(f"merge-{table}-{number:05d}", table, target, shards))
        else:
            most = max(1, TABLE_BYTES * rows // size)
            for order, pixel in choose_pixels(survey.sky.histogram, skymap.ORDER, most):
                name = f"merge-{table}-{order}-{pixel}"
                target = f"{table}/{leaf_path(order, pixel)}"
                units.append(MergeUnit(name, table, target, None, (order, pixel)))
    return units


def merge_unit(
    storage: Storage, ledger: Ledger, winners: Winners, unit: MergeUnit, survey: Survey, primary: str
) -> Commit:
    """Write one file of a table, commit it, and give it its final name.

    Doing it again, or at the same time as somebody else, leaves the same file.
    """
    done = ledger.commit_of(unit.name)
    if done is None:
        attempt = ledger.begin(unit.name)
        rows = 0
        schema = _schema(storage, winners, unit.table)
        with attempt.part_writer(unit.table, schema, ROW_GROUP_ROWS, **parquet_settings(schema)) as writer:
            for table in _content(storage, winners, unit, survey, primary):
                rows += table.num_rows
                writer.write(table)
        facts = {"targets": [[unit.table, unit.target]], "pixel": unit.pixel}
        done = attempt.commit(rows, 0, facts)
    for target, part in done.targets.items():
        storage.publish(part.path, target)
    step("merge.published", unit.name)
    return done


def _schema(storage: Storage, winners: Winners, table: str) -> pa.Schema:
    with storage.open(winners.path(0, table)) as file:
        return with_votable(user_schema(pq.read_schema(file), table), table, DESCRIPTIONS.get(table, ""))


def user_schema(part: pa.Schema, table: str) -> pa.Schema:
    """Schema of a table from that of its parts: without ``_row``, and ``rejects`` with its shard."""
    fields = [f for f in part if f.name != ROW]
    if table == "rejects":
        fields = [part.field("object_id"), known("shard", pa.int32())]
        fields += [part.field(n) for n in ("stage", "reason", "detail", "quality")]
    return pa.schema(fields)


def _content(
    storage: Storage, winners: Winners, unit: MergeUnit, survey: Survey, primary: str
) -> Iterator[pa.Table]:
    shards = survey.shards(unit)
    if unit.table == "rejects":
        for shard in shards:
            if shard in survey.drops or winners.rows["rejects"][shard]:
                yield _rejects(storage, winners, shard, survey.drops.get(shard), primary)
    elif unit.pixel is None:
        for shard in shards:
            for table in _row_groups(storage, winners.path(shard, unit.table)):
                yield _without(table, survey.drops.get(shard)).drop_columns([ROW])
    else:
        order, pixel = unit.pixel

        def read(shard: int) -> pa.Table | None:
            return _read_pixel(storage, winners.path(shard, unit.table), order, pixel)

        pieces = []
        for shard, piece in zip(shards, map_ahead(read, shards, READ_THREADS)):
            if piece is not None:
                pieces.append(_without(piece, survey.drops.get(shard)))
        merged = pa.concat_tables(pieces)
        rows = np.argsort(merged["_healpix_29"].to_numpy(), kind="stable")
        yield merged.take(pa.array(rows)).drop_columns([ROW])


def _rejects(
    storage: Storage, winners: Winners, shard: int, drops: np.ndarray | None, primary: str
) -> pa.Table:
    table = _read(storage, winners.path(shard, "rejects"))
    if drops is not None:
        keys = _read(storage, winners.path(shard, primary), [c for c in table.column_names if c not in _WHY])
        keys = keys.filter(pa.array(np.isin(keys[ROW].to_numpy(), drops)))
        for name, value in _WHY.items():
            keys = keys.append_column(name, pa.array([value] * keys.num_rows, pa.string()))
        table = pa.concat_tables([table, keys.select(table.column_names).cast(table.schema)]).sort_by(ROW)
    table = table.append_column("shard", pa.array(np.full(table.num_rows, shard, dtype=np.int32)))
    schema = user_schema(table.schema, "rejects")
    return table.select(schema.names).cast(schema)


DESCRIPTIONS = {
    "morphology": "expected vote fractions of each galaxy with 90 % intervals",
    "morphology_posterior": "mean and concentration of the answers to each question",
    "embeddings": "features of the encoder for each galaxy",
    "rejects": "rows that could not be processed, and why",
}
_WHY = {"stage": "finalise", "reason": "duplicate_id", "detail": "the id came earlier in the input"}


def _without(table: pa.Table, drops: np.ndarray | None) -> pa.Table:
    return table if drops is None else table.filter(pa.array(~np.isin(table[ROW].to_numpy(), drops)))


def _read(storage: Storage, path: str, columns: list[str] | None = None) -> pa.Table:
    with storage.open(path) as file:
        return pq.read_table(file, columns=columns, use_threads=False)


def _row_groups(storage: Storage, path: str) -> Iterator[pa.Table]:
    with storage.open(path) as raw:
        file = pq.ParquetFile(raw)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, use_threads=False)


def _read_pixel(storage: Storage, path: str, order: int, pixel: int) -> pa.Table | None:
    low, high = pixel_range(order, pixel)
    with storage.open(path) as raw:
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


def _consecutive(winners: Winners, table: str) -> Iterator[range]:
    start = size = 0
    for shard, part_bytes in enumerate(winners.bytes[table]):
        size += int(part_bytes)
        if size >= TABLE_BYTES or shard + 1 == len(winners):
            yield range(start, shard + 1)
            start, size = shard + 1, 0
