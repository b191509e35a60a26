"""The last steps of an ingest: pixels get their leaves, and the catalog its metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import surveyproc
from surveyproc.catalog.hats import CREATION_DATE, leaf_path, metadata_files
from surveyproc.distributed.units import Outcome
from surveyproc.errors import PartialError
from surveyproc.ingest.cutting import REJECT_GROUP, REJECTS
from surveyproc.ingest.plan import CutPlan, CutUnit, MergeUnit, chunk_name, load_partitions
from surveyproc.ingest.sorting import reject_schema
from surveyproc.ingest.tile_report import Totals, most_common_first
from surveyproc.runs.accounts import Count, account_checks, require_balance
from surveyproc.runs.ledger import Commit, Part
from surveyproc.runs.making import Making
from surveyproc.runs.plan import Shard
from surveyproc.runs.record import command_line, load_record
from surveyproc.steps import step
from surveyproc.threads import map_ahead

PUBLISH_THREADS = 8


@dataclass(frozen=True)
class Leaf:
    """A file of the catalog: its pixel and the committed parts that feed it, in the order of the plan."""

    order: int
    pixel: int
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(part.rows for part in self.parts)


def read_leaves(making: Making, plan: Sequence[CutUnit | Shard], totals: Totals) -> tuple[list[Leaf], Count]:
    """Read the commits of all units, add them up, and say what feeds each pixel.

    Returns
    -------
    leaves : list of Leaf
        In sky order.
    count : Count
        Rows and ids of them.

    Raises
    ------
    PartialError
        When a unit is not committed.
    """
    feeds: dict[str, list[Part]] = {}
    count = Count(0, 0)
    for commit in _commits(making, [unit.unit for unit in plan]):
        totals.add(commit.rows, commit.facts)
        for name, part in commit.parts.items():
            if name != REJECTS:
                feeds.setdefault(name.partition(".")[0], []).append(part)
                count = count.plus(part.rows, part.id_sum)
    partitions = load_partitions(making.work)
    leaves = []
    for number in range(len(partitions)):
        if parts := feeds.pop(partitions.name(number), []):
            order, pixel = int(partitions.order[number]), int(partitions.pixel[number])
            leaves.append(Leaf(order, pixel, tuple(parts)))
    return leaves, count


def merge_leaves(
    making: Making, leaves: Sequence[Leaf], run: Callable[[list[MergeUnit]], Iterator[Outcome]]
) -> None:
    """Merge the pixels that several units feed, and give every leaf its name.

    The part of a pixel that one unit feeds is its leaf as it is: nothing is written twice.
    """
    several = [leaf for leaf in leaves if len(leaf.parts) > 1]
    units = [MergeUnit(leaf.order, leaf.pixel, [p.path for p in leaf.parts]) for leaf in several]
    done = making.ledger.committed("merge-")
    for _ in run([unit for unit in units if unit.unit not in done]):
        pass
    for commit, leaf in zip(_commits(making, [unit.unit for unit in units]), several):
        _require_same(commit, leaf)
        making.publish(commit)
    step("ingest.merged")
    single = [leaf for leaf in leaves if len(leaf.parts) == 1]

    def publish(leaf: Leaf) -> None:
        making.publish_part(leaf.parts[0], leaf_path(leaf.order, leaf.pixel))
        step("ingest.published", f"{leaf.order}-{leaf.pixel}")

    for _ in map_ahead(publish, single, PUBLISH_THREADS):
        pass


def merge_rejects(
    making: Making, plan: Sequence[CutUnit | Shard], chunks: list[Commit], id_type: pa.DataType
) -> Count:
    """Write ``rejects.parquet``: those of the table of sources first, then those of the tiles.

    Returns
    -------
    Count
        Rows and ids of it.
    """
    name, ledger = "merge-rejects", making.ledger
    commit = ledger.commit_of(name)
    if commit is None:
        attempt = ledger.begin(name)
        schema = reject_schema(id_type)
        settings = {"compression": "zstd", "use_dictionary": ["stage", "reason", "detail"]}
        with attempt.part_writer(REJECTS, schema, REJECT_GROUP, **settings) as writer:
            for unit in [*chunks, *_commits(making, [unit.unit for unit in plan])]:
                if REJECTS in unit.parts:
                    for table in _row_groups(making, unit.parts[REJECTS].path):
                        writer.write(table)
        commit = attempt.commit(writer.rows, 0, {"targets": [[REJECTS, "rejects.parquet"]]})
    making.publish(commit)
    part = commit.parts[REJECTS]
    return Count(part.rows, part.id_sum)


def finish(
    making: Making,
    plan: CutPlan,
    id_type: pa.DataType,
    facts: dict[str, Any],
    run: Callable[[list[MergeUnit]], Iterator[Outcome]],
) -> dict[str, Any]:
    """Turn the committed parts into the catalog; says what ``catalog.json`` says.

    Dying anywhere in it and starting again, or two drivers doing it at once, ends in the same files.

    Raises
    ------
    PartialError
        When a unit is not committed, or no source became a cutout.
    SurveyprocError
        When the accounts do not balance; readers are kept off then.
    """
    totals = Totals()
    chunks = list(_commits(making, _chunk_names(making)))
    rows_in = sum(commit.rows + commit.rejects for commit in chunks)
    ids_in = sum(int(commit.facts["id_sum"]) for commit in chunks) % 2**64
    for commit in chunks:
        totals.add(0, commit.facts)
    leaves, count = read_leaves(making, plan, totals)
    rejects = most_common_first(totals.rejects)
    if not leaves:
        reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in rejects.items())
        raise PartialError(
            f"no source became a cutout: {reasons}",
            where=making.catalog.uri,
            fix="mend the tiles or the table, and give another --output",
        )
    merge_leaves(making, leaves, run)
    rejected = merge_rejects(making, plan, chunks, id_type)
    require_balance(account_checks({"catalog": count}, rejected, Count(rows_in, ids_in)), making.catalog.uri)
    record = load_record(making.work)
    write_metadata(making, leaves, record)
    about = {
        "surveyproc": surveyproc.__version__,
        "code": record["code"],
        "command": command_line(record),
        "created": record["created"],
        "fingerprint": record["fingerprint"],
        "rows_in": rows_in,
        "rows_out": totals.rows,
        "rejects": rejects,
        "quality": totals.quality,
        "printed_ids": totals.printed,
        "tiles_used": len(totals.used),
        "partitions": len(leaves),
        "bytes_read": totals.bytes_read,
        **facts,
    }
    making.finish(about)
    return about


def write_metadata(
    making: Making, leaves: Sequence[Leaf], record: dict[str, Any], verb: str = "ingest"
) -> None:
    """Write the small files that make the leaves a HATS catalog; their time is that of the record."""
    first = leaves[0]
    with making.catalog.open(leaf_path(first.order, first.pixel)) as file:
        schema = pq.read_schema(file)
    created = record["created"].removesuffix("Z")[:16] + "UTC"
    provenance = {CREATION_DATE: created, "surveyproc_verb": verb, "surveyproc_code": str(record["code"])}
    name = making.catalog.uri.rsplit("/", 1)[-1]
    pixels = [(leaf.order, leaf.pixel, leaf.rows) for leaf in leaves]
    making.write(metadata_files(name, schema, pixels, provenance))
    step("ingest.metadata")


def _chunk_names(making: Making) -> list[str]:
    return [chunk_name(n) for n in range(len(making.ledger.committed("sources-")))]


def _commits(making: Making, units: list[str]) -> Iterator[Commit]:
    for name, commit in zip(units, making.ledger.commits_of(units)):
        if commit is None:
            raise PartialError(
                f"{name} is not committed yet",
                where=making.catalog.uri,
                fix="give the same command again to finish it",
            )
        yield commit


def _require_same(commit: Commit, leaf: Leaf) -> None:
    merged = Count(sum(p.rows for p in commit.parts.values()), sum(p.id_sum for p in commit.parts.values()))
    parts = Count(0, 0)
    for part in leaf.parts:
        parts = parts.plus(part.rows, part.id_sum)
    require_balance(account_checks({commit.unit: merged}, Count(0, 0), parts), commit.folder)


def _row_groups(making: Making, path: str) -> Iterator[pa.Table]:
    with making.work.open(path) as raw:
        file = pq.ParquetFile(raw)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, use_threads=False)
