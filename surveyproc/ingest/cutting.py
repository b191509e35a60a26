"""One unit of an ingest: the sources of a tile become parts, one for each partition they lie in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any

import numpy as np
import pyarrow as pa

from surveyproc.catalog.writer import ROW_GROUP_BYTES, cutout_parquet
from surveyproc.identifiers import id_sum
from surveyproc.ingest.partitions import Partitions
from surveyproc.ingest.sources import rechunked
from surveyproc.ingest.tiles import Cutouts
from surveyproc.quality import Quality
from surveyproc.runs.accounts import Count, account_checks, require_balance, total
from surveyproc.runs.ledger import Attempt
from surveyproc.steps import step

REJECTS = "rejects"
REJECT_GROUP = 131_072


@dataclass
class Tally:
    """What became of the sources of a unit, for its commit.

    Attributes
    ----------
    quality : Counter
        Rows by the name of each quality bit.
    reasons : dict of str to list
        Rejects and their first detail by reason.
    bytes_read : int
        Moved from the files of the tile.
    """

    quality: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, list[Any]] = field(default_factory=dict)
    rejects: list[pa.Table] = field(default_factory=list)
    bytes_read: int = 0

    def add(self, batch: Cutouts) -> None:
        """Count a batch."""
        self.bytes_read += batch.bytes_read
        bits = batch.rows["quality"].to_numpy()
        for bit in Quality:
            self.quality[str(bit.name)] += int(np.count_nonzero(bits & bit))
        if batch.rejects.num_rows:
            self.rejects.append(batch.rejects)
            count_reasons(self.reasons, batch.rejects)


def count_reasons(found: dict[str, list[Any]], rejects: pa.Table) -> dict[str, list[Any]]:
    """Add rejects to the number of rows and the first detail of each reason."""
    reasons = rejects["reason"].combine_chunks().dictionary_encode()
    codes = reasons.indices.to_numpy()
    for code, reason in enumerate(reasons.dictionary.to_pylist()):
        rows = np.flatnonzero(codes == code)
        found.setdefault(reason, [0, rejects["detail"][int(rows[0])].as_py()])[0] += len(rows)
    return found


def group_rows(row_bytes: int) -> int:
    """Rows of a row group: 16 MiB of pixels."""
    return max(1, ROW_GROUP_BYTES // row_bytes)


def row_bytes(schema: pa.Schema) -> int:
    """Bytes of the fixed-size columns of a row: its pixels."""
    return sum(f.type.byte_width for f in schema if pa.types.is_fixed_size_binary(f.type))


def write_part(attempt: Attempt, name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> Count:
    """Write cutouts as the part ``name`` of an attempt, in row groups of 16 MiB of pixels."""
    rows = group_rows(row_bytes(schema))
    groups = rechunked(tables, rows)
    first = next(groups, schema.empty_table())
    with attempt.part_writer(name, schema, rows, **cutout_parquet(schema, rows, first["image"])) as writer:
        for table in chain([first], groups):
            writer.write(table)
    return Count(writer.rows, writer.id_sum)


def write_cutouts(
    attempt: Attempt,
    sources: pa.Table,
    batches: Iterable[Cutouts],
    partitions: Partitions,
    schema: pa.Schema,
    check_stop: Callable[[], None],
) -> Tally:
    """Write what was cut: rows into one part for each partition, rejects into another; the accounts balance.

    Parameters
    ----------
    attempt : Attempt
    sources : pyarrow.Table
        What was to be cut, sorted by ``_healpix_29``.
    batches : iterable of Cutouts
        In that order.
    partitions : Partitions
    schema : pyarrow.Schema
        Columns to write.
    check_stop : callable
        Called between batches.

    Raises
    ------
    SurveyprocError
        When rows and rejects are not the sources.
    """
    tally = Tally()

    def pieces() -> Iterator[tuple[int, pa.Table]]:
        for batch in batches:
            check_stop()
            tally.add(batch)
            yield from _split(batch.rows.select(schema.names), partitions)

    written = [
        write_part(attempt, partitions.name(number), schema, (piece for _, piece in group))
        for number, group in groupby(pieces(), key=lambda piece: piece[0])
    ]
    rejects = pa.concat_tables(tally.rejects) if tally.rejects else None
    rejected = Count(rejects.num_rows, id_sum(rejects["object_id"].drop_null())) if rejects else Count(0, 0)
    if rejects is not None:
        attempt.write_table(REJECTS, rejects, REJECT_GROUP, compression="zstd")
    came_in = Count(sources.num_rows, id_sum(sources["object_id"]))
    require_balance(account_checks({"cutouts": total(written)}, rejected, came_in), attempt.folder)
    step("ingest.cut", attempt.unit)
    return tally


def _split(rows: pa.Table, partitions: Partitions) -> Iterator[tuple[int, pa.Table]]:
    """Cut sorted rows where a partition ends."""
    if not rows.num_rows:
        return
    numbers = partitions.of(rows["_healpix_29"].to_numpy())
    starts = np.concatenate([[0], np.flatnonzero(np.diff(numbers)) + 1, [len(numbers)]])
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist()):
        yield int(numbers[start]), rows.slice(start, stop - start)
