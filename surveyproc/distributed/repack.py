"""Repack as a run: cutouts in any form in, a catalog in the fast layout out, resumed anywhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

import surveyproc
from surveyproc.catalog import Given
from surveyproc.config.repack import RepackConfig, UnitsConfig
from surveyproc.distributed.catalog_job import CatalogJob
from surveyproc.distributed.ingest_finish import merge_leaves, merge_rejects, read_leaves, write_metadata
from surveyproc.distributed.ingest_worker import IngestTask, MergeTask, UnitWorker
from surveyproc.distributed.pool import cores, executor
from surveyproc.distributed.preflight import absolute
from surveyproc.distributed.repack_plan import MB, load_repeated, planned
from surveyproc.distributed.units import Outcome
from surveyproc.errors import PartialError
from surveyproc.ingest.plan import MergeUnit, load_partitions
from surveyproc.ingest.repack import Source, Wanted, open_source
from surveyproc.ingest.repack.report import RepackReport, measure_gain
from surveyproc.ingest.repack.source import HEALPIX
from surveyproc.ingest.repack.unit import ROWS, write_unit
from surveyproc.ingest.tile_report import Totals, most_common_first
from surveyproc.progress import Progress
from surveyproc.runs.accounts import NOTHING, Count, account_checks, require_balance
from surveyproc.runs.lease import sole_writer
from surveyproc.runs.ledger import Attempt, Commit
from surveyproc.runs.making import Making
from surveyproc.runs.plan import Plan, Shard
from surveyproc.runs.record import command_line, load_record, new_record
from surveyproc.steps import step
from surveyproc.stores import configure

RATE = 30e6  # bytes of pixels that one core repacks in a second, of slow forms


@dataclass(frozen=True)
class Request:
    """What is to be repacked into what."""

    input: str
    output: str
    given: Given
    wanted: Wanted


@dataclass(frozen=True, kw_only=True)
class RepackTask(IngestTask):
    """Repacking; see `surveyproc.distributed.pool.Task`."""

    input: str
    source: Source
    piece_bytes: int

    @property
    def unit(self) -> type[Shard]:
        """What a worker is given at a time."""
        return Shard

    @property
    def uris(self) -> list[tuple[str, str]]:
        """Addresses that every worker must be able to open."""
        return [("--output", self.output), ("the input", self.input)]

    def worker(self, stop: threading.Event | None = None) -> Callable[[Shard], Outcome]:
        """Make what repacks."""
        configure(self.storage)
        return RowWorker(self, stop or threading.Event())


class RowWorker(UnitWorker):
    """Repacks the rows of a unit and commits the parts."""

    task: RepackTask

    def __init__(self, task: RepackTask, stop: threading.Event) -> None:
        super().__init__(task, stop)
        work = self.making.work
        self._partitions = load_partitions(work) if HEALPIX in task.source.columns.names else None
        self._repeated = load_repeated(work)

    def __call__(self, shard: Shard) -> Outcome:
        """Repack one unit."""
        return self._do(shard.unit, lambda attempt: self._repack(shard, attempt))

    def _repack(self, shard: Shard, attempt: Attempt) -> tuple[int, int, dict[str, Any]]:
        repeated = self._repeated.get(shard.shard, np.empty(0, np.int32))
        task = self.task
        tally = write_unit(
            attempt, task.source, shard, self._partitions, repeated, task.piece_bytes, self._check_stop
        )
        facts = {"id_sum": str(tally.ids_in), "reasons": tally.reasons}
        return shard.rows - tally.rejected, tally.rejected, facts


def repack(
    request: Request,
    config: RepackConfig,
    progress: Progress | None = None,
    accept_code: bool = False,
    verbose: bool = False,
) -> RepackReport:
    """Write cutouts in any form as a catalog in the fast layout; called again, it resumes.

    Parameters
    ----------
    request : Request
    config : RepackConfig
    progress : Progress, optional
        Told of rows done and rejects.
    accept_code : bool
        Resume what another version of the code began.
    verbose : bool
        Let Ray talk.

    Returns
    -------
    RepackReport
        Counts that add up, and the gain.

    Raises
    ------
    SurveyprocError
        For anything a user can mend; what was committed is kept.
    """
    started = time.monotonic()
    request = replace(request, input=absolute(request.input), output=absolute(request.output))
    source = open_source(request.input, request.given, request.wanted)
    making = Making(request.output)
    record = _record(request, config, source)
    with sole_writer(making.work) as lease:
        about = making.begin(record, lambda stored: _changes(stored, record), accept_code)
        nothing = about is not None
        if about is None:
            job = _Job(
                output=request.output,
                config=config,
                making=making,
                lease=lease,
                verbose=verbose,
                request=request,
                units=config.repack,
                source=source,
            )
            about = job.conclude(progress or Progress("repack", 0, unit="units"))
    seconds = round(time.monotonic() - started, 3)
    size = sum(making.catalog.size(name) or 0 for name in making.catalog.walk())
    gain = None if nothing else measure_gain(source, request.output)
    report = RepackReport.of_catalog(about, request.output)
    return replace(report, bytes=size, nothing_to_do=nothing, seconds=seconds, gain=gain)


@dataclass(frozen=True, kw_only=True)
class _Job(CatalogJob):
    """A repack whose folder is claimed."""

    rows_are = "rows"
    mend = "check what was said of the ids and pixels"
    request: Request
    units: UnitsConfig
    source: Source

    def work(self, progress: Progress) -> dict[str, Any]:
        """Do what is left of it."""
        plan = planned(self.making, self.source, self.units)
        kind = self.kind(self.source.rows * self.source.spec.nbytes / RATE / cores())
        with executor(self.config.cluster, kind, self.verbose) as actors:
            self._repack(plan, kind, actors, progress)
            progress.close()

            def merge(units: list[MergeUnit]) -> Iterator[Outcome]:
                return self.settled(MergeTask(**self.shared()), units, actors, kind)

            return self._finish(plan, merge)

    def _repack(self, plan: Plan, kind: str, actors: int, progress: Progress) -> None:
        ledger = self.making.ledger
        done, left = plan.split(ledger.committed("shard-"))
        progress.begin(plan.rows, done.rows, len(plan), len(done))
        piece = int(self.units.unit_mb * MB)
        task = RepackTask(**self.shared(), input=self.request.input, source=self.source, piece_bytes=piece)
        self.advance(task, {shard.unit for shard in done}, left, actors, kind, progress)

    def _finish(self, plan: Plan, merge: Callable[[list[MergeUnit]], Iterator[Outcome]]) -> dict[str, Any]:
        """Turn the committed parts into the catalog; says what ``catalog.json`` says."""
        making, totals = self.making, Totals()
        on_sky = HEALPIX in self.source.columns.names
        record = load_record(making.work)
        commits = [commit for commit in making.ledger.commits_of(s.unit for s in plan) if commit is not None]
        came_in = Count(plan.rows, sum(int(commit.facts["id_sum"]) for commit in commits) % 2**64)
        if not sum(commit.rows for commit in commits):
            reasons = {r for commit in commits for r in commit.facts["reasons"]}
            raise PartialError(
                f"no row became a cutout: {', '.join(sorted(reasons))}",
                where=making.catalog.uri,
                fix="check what was said of the pixels, and give another --output",
            )
        if on_sky:
            leaves, count = read_leaves(making, plan, totals)
            merge_leaves(making, leaves, merge)
            files = len(leaves)
        else:
            files, count = self._publish(commits, totals)
        rejected = merge_rejects(making, plan, [], self.source.columns.field("object_id").type)
        require_balance(account_checks({"catalog": count}, rejected, came_in), making.catalog.uri)
        if on_sky:
            write_metadata(making, leaves, record, "repack")
        about = {
            "surveyproc": surveyproc.__version__,
            "code": record["code"],
            "command": command_line(record),
            "created": record["created"],
            "fingerprint": record["fingerprint"],
            "rows_in": plan.rows,
            "rows_out": totals.rows,
            "rejects": most_common_first(totals.rejects),
            "layout": "hats" if on_sky else "flat",
            "files": files,
            "left_out": self.source.left_out,
            "note": self.source.note,
            "bytes_before": self.source.bytes,
            "image": json.loads(self.source.spec.to_json()),
            "source": {"input": self.request.input},
        }
        making.finish(about)
        return about

    def _publish(self, commits: list[Commit], totals: Totals) -> tuple[int, Count]:
        """Give the parts of a catalog without positions their names, in the order of the plan."""
        files, count = 0, NOTHING
        for commit in commits:
            totals.add(commit.rows, commit.facts)
            for name, part in sorted(commit.parts.items()):
                if name.startswith(ROWS) and part.rows:
                    number = name.removeprefix(f"{ROWS}.")
                    target = f"dataset/part-{commit.unit.removeprefix('shard-')}-{number}.parquet"
                    self.making.publish_part(part, target)
                    step("repack.published", target)
                    files, count = files + 1, count.plus(part.rows, part.id_sum)
        return files, count


def _record(request: Request, config: RepackConfig, source: Source) -> dict[str, Any]:
    fingerprint = {
        "verb": "repack",
        "given": asdict(request.given),
        "wanted": asdict(request.wanted),
        "repack": asdict(config.repack),
        "input": {"rows": source.rows, "bytes": source.bytes, "digest": source.digest()},
    }
    said = {"input": request.input, "output": request.output}
    settings = {"repack": asdict(config.repack), "cluster": asdict(config.cluster)}
    return new_record(said | settings, json.loads(json.dumps(fingerprint)), {})


def _changes(stored: dict[str, Any], record: dict[str, Any]) -> list[str]:
    before, now = (one["fingerprint"]["input"].get("digest") for one in (stored, record))
    return [] if before == now else ["a file was written again, is new or is gone"]
