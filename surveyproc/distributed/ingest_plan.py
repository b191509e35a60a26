"""The first steps of an ingest, in the driver: sources to tiles, and the plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.config.ingest import PiecesConfig
from surveyproc.errors import InputError, PartialError
from surveyproc.identifiers import id_sum
from surveyproc.ingest.assign import coverage
from surveyproc.ingest.cutting import REJECT_GROUP, REJECTS, count_reasons, row_bytes
from surveyproc.ingest.partitions import Histogram, choose_partitions
from surveyproc.ingest.plan import CutPlan, chunk_name, cut_units, load_plan, slices_of, store_plan
from surveyproc.ingest.sorting import TILE, repeated_rows, sort_out
from surveyproc.ingest.sources import SourceTable
from surveyproc.ingest.tiles import Tile
from surveyproc.runs.making import Making
from surveyproc.steps import step

MB = 2**20
SOURCE_GROUP = 8_192  # a unit reads whole row groups, and may want a few rows of each chunk


def planned(
    making: Making, table: SourceTable, tiles: Sequence[Tile], schema: pa.Schema, pieces: PiecesConfig
) -> CutPlan:
    """Read the plan of an ingest, or make it: every chunk of the sources is assigned and committed first.

    Raises
    ------
    InputError
        When no tile holds a source; the folder is left as it was then.
    """
    plan = load_plan(making.work)
    if plan is not None:
        return plan
    chunks = _assign_all(making, table, tiles, pieces.chunk_rows)
    histogram = Histogram()
    slices = []
    for number, columns in enumerate(_keys(making, chunks)):
        histogram.add(columns["_healpix_29"].to_numpy())
        slices.append(slices_of(number, columns[TILE].to_numpy()))
    if not len(histogram.pixels):
        raise _nothing(making, tiles, chunks)
    pixel_bytes = row_bytes(schema)
    partitions = choose_partitions(histogram, max(1, int(pieces.partition_mb * MB) // pixel_bytes))
    units = cut_units(slices, max(1, int(pieces.unit_mb * MB) // pixel_bytes))
    store_plan(making.work, units, partitions)
    step("ingest.planned")
    stored = load_plan(making.work)
    if stored is None:
        raise PartialError(
            "the plan cannot be read back", where=making.work.uri, fix="give the command again"
        )
    return stored


def _assign_all(making: Making, table: SourceTable, tiles: Sequence[Tile], chunk_rows: int) -> int:
    """Assign every chunk that is not committed yet; returns the number of chunks."""
    done = making.ledger.committed(chunk_name(0)[:-7])
    covered = coverage(tiles)
    repeated = repeated_rows(table, chunk_rows)
    number = -1
    for chunk in table.chunks(chunk_rows):
        number, name = chunk.number, chunk_name(chunk.number)
        if name in done:
            continue
        attempt = making.ledger.begin(name)
        sources, rejects = sort_out(chunk, tiles, covered, repeated.get(number))
        attempt.write_table("sources", sources, SOURCE_GROUP, compression="zstd")
        if rejects.num_rows:
            attempt.write_table(REJECTS, rejects, REJECT_GROUP, compression="zstd")
        facts = {
            "id_sum": str(id_sum(chunk.rows["object_id"].drop_null())),
            "reasons": count_reasons({}, rejects),
            "printed": chunk.printed,
        }
        attempt.commit(sources.num_rows, rejects.num_rows, facts)
    return number + 1


def _keys(making: Making, chunks: int) -> Iterator[pa.Table]:
    for commit in making.ledger.commits_of(chunk_name(n) for n in range(chunks)):
        if commit is None:
            raise PartialError(
                "a chunk of the sources is not committed", where=making.work.uri, fix="give the command again"
            )
        with making.work.open(commit.parts["sources"].path) as raw:
            yield pq.read_table(raw, columns=["_healpix_29", TILE], use_threads=False)


def _nothing(making: Making, tiles: Sequence[Tile], chunks: int) -> InputError:
    """Explain that there is nothing to cut, and leave the folder as it was."""
    found: dict[str, int] = {}
    for commit in making.ledger.commits_of(chunk_name(n) for n in range(chunks)):
        for reason, (rows, _) in (commit.facts["reasons"] if commit else {}).items():
            found[reason] = found.get(reason, 0) + rows
    placed = [tile for tile in tiles if tile.wcs]
    where = "no tile has a usable position"
    if placed:
        first = placed[0]
        where = f"{len(placed)} tiles; {first.name} is at RA {first.centre[0]:.4f} Dec {first.centre[1]:.4f}"
        where += f", radius {first.radius_deg:.4f} degrees"
    making.give_up()
    return InputError(
        "no source lies on a tile: " + ", ".join(f"{rows:,} {reason}" for reason, rows in found.items()),
        where=where,
        fix="check --ra, --dec (decimal degrees, ICRS) and the pattern of --tiles",
    )
