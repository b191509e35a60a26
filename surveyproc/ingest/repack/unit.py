"""One unit of a repack: rows become parts, one for each partition they lie in, and rejects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from surveyproc.catalog.pixels import image_field, pixels_to_array
from surveyproc.identifiers import id_sum
from surveyproc.images.decode import Failures
from surveyproc.ingest.cutting import REJECT_GROUP, REJECTS, count_reasons, group_rows, write_part
from surveyproc.ingest.partitions import Partitions
from surveyproc.ingest.repack.source import HEALPIX, Batch, Source
from surveyproc.ingest.sorting import reject_schema
from surveyproc.runs.accounts import Count, account_checks, require_balance, total
from surveyproc.runs.ledger import Attempt
from surveyproc.runs.plan import Shard
from surveyproc.steps import step
from surveyproc.voparquet import with_votable

ROWS = "rows"


@dataclass
class Tally:
    """What became of the rows of a unit."""

    rows_in: int = 0
    ids_in: int = 0
    written: list[Count] = field(default_factory=list)
    rejects: list[pa.Table] = field(default_factory=list)
    reasons: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """Rows that are rejects."""
        return sum(table.num_rows for table in self.rejects)


def schema_of(source: Source) -> pa.Schema:
    """Columns of the new catalog."""
    schema = pa.schema([*source.columns, image_field(source.spec)])
    return with_votable(schema, "catalog", "Cutouts of one object per row")


def write_unit(
    attempt: Attempt,
    source: Source,
    shard: Shard,
    partitions: Partitions | None,
    repeated: np.ndarray,
    piece_bytes: int,
    check_stop: Callable[[], None],
) -> Tally:
    """Read a unit, and write its rows and rejects; the accounts balance.

    Parameters
    ----------
    attempt : Attempt
    source : Source
    shard : Shard
    partitions : Partitions or None
        Of the sky; without them the rows stay in their order.
    repeated : numpy.ndarray
        Positions in the unit whose id came before.
    piece_bytes : int
        A new part begins with as many bytes of pixels, which are held at once where there are partitions:
        units are whole row groups, and those of others may be larger than memory.
    check_stop : callable
        Called between batches.

    Raises
    ------
    SurveyprocError
        When rows and rejects are not what was read.
    """
    tally, schema = Tally(), schema_of(source)
    good = _good_rows(source, shard, repeated, tally, check_stop)
    for number, piece in enumerate(_pieces(good, schema, piece_bytes)):
        if partitions is None:
            tally.written.append(write_part(attempt, f"{ROWS}.{number:04d}", schema, piece))
            continue
        for partition, rows in _by_partition(piece, schema, partitions):
            check_stop()
            part = f"{partitions.name(partition)}.{number:04d}"
            tally.written.append(write_part(attempt, part, schema, rows))
    if tally.rejects:
        attempt.write_table(REJECTS, pa.concat_tables(tally.rejects), REJECT_GROUP, compression="zstd")
    rejects = Count(tally.rejected, sum(id_sum(t["object_id"].drop_null()) for t in tally.rejects) % 2**64)
    came_in = Count(tally.rows_in, tally.ids_in)
    require_balance(account_checks({"rows": total(tally.written)}, rejects, came_in), attempt.folder)
    if tally.rows_in != shard.rows:
        raise RuntimeError(f"{shard.unit} gave {tally.rows_in} rows where {shard.rows} were planned")
    step("repack.written", attempt.unit)
    return tally


def _good_rows(
    source: Source, shard: Shard, repeated: np.ndarray, tally: Tally, check_stop: Callable[[], None]
) -> Iterator[pa.Table]:
    """Yield the rows that can be written, and note the others."""
    for batch in source.batches(shard):
        check_stop()
        again = repeated[(repeated >= tally.rows_in) & (repeated < tally.rows_in + len(batch.pixels))]
        failures = _all_failures(batch, again - tally.rows_in)
        ids = batch.columns["object_id"]
        tally.rows_in += len(ids)
        tally.ids_in = (tally.ids_in + id_sum(ids.drop_null())) % 2**64
        if failures:
            _reject(ids, failures, tally)
        good = np.setdiff1d(np.arange(len(ids)), list(failures))
        pixels = batch.pixels if len(good) == len(ids) else batch.pixels[good]
        rows = batch.columns if len(good) == len(ids) else batch.columns.take(pa.array(good))
        yield rows.append_column(image_field(source.spec), [pixels_to_array(pixels, source.spec)])


def _all_failures(batch: Batch, again: np.ndarray) -> Failures:
    """Failures of the pixels, and of ids and positions, which go first."""
    failures = dict(batch.failures)
    columns = batch.columns
    if HEALPIX in columns.column_names and columns[HEALPIX].null_count:
        for row in np.flatnonzero(columns[HEALPIX].is_null().to_numpy()):
            where = " ".join(f"{name} {columns[name][int(row)]}" for name in ("ra", "dec"))
            failures[int(row)] = ("no_position", f"the position is not on the sky: {where}")
    for row in again:
        failures[int(row)] = ("duplicate_id", "the id came earlier in the input")
    if columns["object_id"].null_count:
        for row in np.flatnonzero(columns["object_id"].is_null().to_numpy()):
            failures[int(row)] = ("missing_id", "the id is null")
    return failures


def _reject(ids: pa.ChunkedArray, failures: Failures, tally: Tally) -> None:
    rows = sorted(failures)
    reasons, details = ([failures[row][k] for row in rows] for k in (0, 1))
    columns = [ids.take(pa.array(rows)), ["repack"] * len(rows), reasons, details]
    found = pa.table(dict(zip(("object_id", "stage", "reason", "detail"), columns)))
    rejects = found.cast(reject_schema(ids.type))
    tally.rejects.append(rejects)
    count_reasons(tally.reasons, rejects)


def _pieces(tables: Iterator[pa.Table], schema: pa.Schema, piece_bytes: int) -> Iterator[Iterator[pa.Table]]:
    """Cut a stream of tables into streams of about so many bytes; each is to be read before the next."""
    width = schema.field("image").type.byte_width

    def piece(first: pa.Table) -> Iterator[pa.Table]:
        held, table = 0, first
        while True:
            held += table.num_rows * width
            yield table
            following = next(tables, None) if held < piece_bytes else None
            if following is None:
                return
            table = following

    while (first := next(tables, None)) is not None:
        yield piece(first)


def _by_partition(
    tables: Iterable[pa.Table], schema: pa.Schema, partitions: Partitions
) -> Iterator[tuple[int, Iterator[pa.Table]]]:
    """Rows of a whole unit, by partition and sorted in it."""
    whole = pa.concat_tables([schema.empty_table(), *tables])
    index = whole[HEALPIX].to_numpy()
    order = np.argsort(index, kind="stable")
    numbers = partitions.of(index[order])
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    step_rows = group_rows(schema.field("image").type.byte_width)

    def sorted_rows(start: int, stop: int) -> Iterator[pa.Table]:
        for low in range(start, stop, step_rows):
            yield whole.take(pa.array(order[low : min(stop, low + step_rows)]))

    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(order)]):
        yield int(numbers[start]), sorted_rows(start, stop)
