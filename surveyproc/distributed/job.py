"""The main job: a catalog in, a finished run out, resumed wherever it was left."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog import Catalog, open_catalog
from surveyproc.catalog.storage import locate_file
from surveyproc.columns import attributes, known
from surveyproc.config.run import RunConfig
from surveyproc.distributed import local
from surveyproc.distributed.finalise import finalise
from surveyproc.distributed.place import find_place
from surveyproc.distributed.preflight import absolute
from surveyproc.distributed.task import NOTICED, RunTask
from surveyproc.distributed.terms import bundle_address, bundle_digest, is_shipped, software
from surveyproc.distributed.units import Outcome
from surveyproc.errors import InputError, PartialError, SurveyprocError, did_you_mean
from surveyproc.inference.engine import Engine, check_domain
from surveyproc.inference.settings import EngineSettings
from surveyproc.models.bundle import Bundle, open_bundle
from surveyproc.progress import Progress
from surveyproc.runs.estimate import decode_ms
from surveyproc.runs.lease import DriverLease, sole_writer
from surveyproc.runs.ledger import Commit, Ledger
from surveyproc.runs.manifest import latest
from surveyproc.runs.plan import (
    Plan,
    Shard,
    changed_files,
    cut_shards,
    input_digest,
    load_plan,
    shard_rows,
    store_plan,
)
from surveyproc.runs.record import claim, new_record, refuse_changes
from surveyproc.storage import Storage
from surveyproc.stores import configured

RAY_WORTH_SECONDS = 60.0
DEFAULT_MS_PER_CUTOUT = 5.0
COMMITS_ASKED = 1000


@dataclass(frozen=True)
class Draft:
    """A run that was checked but not begun: nothing has been written."""

    storage: Storage
    catalog: Catalog
    bundles: list[Bundle]
    config: RunConfig
    task: RunTask
    schemas: dict[str, pa.Schema]
    passes: int
    actors: int
    ms_per_cutout: float
    record: dict[str, Any]

    def shards(self) -> Iterator[Shard]:
        """Cut the shards this run would have."""
        rows = self.config.engine.shard_rows or shard_rows(
            self.catalog, self.ms_per_cutout, self.config.engine.shard_seconds, self.actors
        )
        return cut_shards(self.catalog, rows)

    def executor_for(self, rows: int) -> str:
        """``none``, ``local`` or ``address``: where this many rows will be worked on."""
        kind = self.config.cluster.kind
        if kind != "auto":
            return kind
        return "local" if rows * self.ms_per_cutout / 1000 / self.actors > RAY_WORTH_SECONDS else "none"


@dataclass(frozen=True)
class Job:
    """A run with its folder claimed and its plan stored, ready to work on."""

    draft: Draft
    plan: Plan
    lease: DriverLease | None = None

    @property
    def storage(self) -> Storage:
        """The run folder."""
        return self.draft.storage

    def split(self) -> tuple[Plan, Plan]:
        """Shards with a commit and those without, as the ledger is now."""
        return self.plan.split(Ledger(self.storage).committed("shard-"))


def draft(
    input_uri: str,
    output_uri: str,
    bundle_names: Sequence[str],
    config: RunConfig,
    force_domain: bool = False,
) -> Draft:
    """Check everything that can be checked without writing.

    Raises
    ------
    SurveyprocError
        For an unusable catalog, bundle or setting.
    """
    catalog = open_catalog(input_uri)
    bundles = [open_bundle(name) for name in bundle_names]
    for bundle in bundles:
        if note := bundle.record.get("note"):
            print(f"{bundle.name}: {note}", file=sys.stderr)
    if not force_domain:
        has_scale = "pixel_scale_arcsec" in catalog.schema.names
        check_domain(bundles, catalog.image, _pixel_scale(catalog), has_scale)
    uris = [("--input", input_uri), ("--output", output_uri)]
    uris += [("--bundle", bundle.uri) for bundle in bundles if not is_shipped(bundle)]
    place = find_place(config, uris)
    settings = EngineSettings(
        batch_size=config.engine.batch_size,
        device=place.device,
        precision=place.precision,
        threads=config.engine.threads,
        views=config.engine.views,
        draws=config.engine.draws,
    )
    keys, carry = _key_schema(catalog), _carry_schema(catalog, config.output.carry)
    task = RunTask(
        absolute(output_uri),
        absolute(input_uri),
        tuple(bundle_address(b) for b in bundles),
        settings,
        keys,
        carry,
        catalog.image,
        tuple(name for name in NOTICED if name in catalog.schema.names),
        tuple(bundle_digest(b) for b in bundles),
        software(),
        max_reject_fraction=config.limits.max_reject_fraction,
        storage=configured(),
    )
    engine = Engine(bundles, replace(settings, device="cpu"), catalog.image, keys, carry)
    record = new_record(
        config.to_dict() | {"input": input_uri, "bundles": [b.name for b in bundles]},
        _fingerprint(catalog, bundles, settings, config),
        {
            "bundles": {b.name: {"uri": b.uri, "weights_sha256": b.sha256} for b in bundles},
            "provenance": engine.provenance,
            "device": place.device,
        },
    )
    return Draft(
        Storage(output_uri),
        catalog,
        bundles,
        config,
        task,
        engine.schemas,
        engine.passes,
        place.actors,
        _cost(bundles, settings) + decode_ms(catalog.image),
        record,
    )


@contextmanager
def begin(draft: Draft, accept_code: bool = False) -> Iterator[Job]:
    """Claim the run folder and store the plan, or load the one it has.

    Where the store cannot create a name only once, this driver alone commits, and it holds the run folder
    until the end of the ``with`` block.

    Raises
    ------
    UsageError
        When the folder holds something else, or a run with other settings, input or code.
    ResourceError
        When another driver holds the folder.
    """
    with sole_writer(draft.storage) as lease:
        if lease is None:
            yield _begin(draft, accept_code)
            return
        print(
            f"{draft.storage.uri}: this store cannot create a name only once, so that this driver alone commits",
            file=sys.stderr,
        )
        task = replace(draft.task, driver_commits=True)
        yield replace(_begin(replace(draft, task=task), accept_code), lease=lease)


def _begin(draft: Draft, accept_code: bool) -> Job:
    storage = draft.storage
    stored = claim(storage, draft.record)
    planned = _stored_plan(storage)
    changes = changed_files(draft.catalog, planned) if planned else _changed_before_plan(stored, draft)
    refuse_changes(stored, draft.record, storage, accept_code, changes)
    if not planned:
        store_plan(storage, draft.shards())
        planned = load_plan(storage)
    if accept_code:
        draft = replace(draft, task=replace(draft.task, software=""))
    return Job(draft, planned)


def execute(job: Job, progress: Progress, verbose: bool = False) -> dict[str, Any]:
    """Work through the shards that are left, then finalise.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    PartialError
        When too many rows are rejects; what was committed stays.
    """
    started = time.monotonic()
    try:
        done, left = job.split()
        progress.rejects = _rejects_so_far(job, done)
        _check_rejects(job, progress)
        if left:
            for outcome in _outcomes(job, left, verbose):
                _settle(job, outcome)
                progress.advance(outcome.rows + outcome.rejects, outcome.rejects)
                _check_rejects(job, progress)
        timings = {"shards": time.monotonic() - started}
        return finalise(job.storage, job.plan, timings)
    except (SurveyprocError, FileNotFoundError):
        finished = latest(job.storage)
        if finished is None:
            raise
        return finished


def _outcomes(job: Job, shards: Plan, verbose: bool) -> Iterator[Outcome]:
    actors = min(job.draft.actors, len(shards))
    if job.draft.executor_for(shards.rows) == "none":
        return local.run_shards(job.draft.task, shards, actors)
    from surveyproc.distributed import rays
    from surveyproc.distributed.worker import ShardWork

    work = ShardWork(job.draft.task)
    return rays.run_units(work, shards, actors, job.draft.config.cluster, verbose)


def _settle(job: Job, outcome: Outcome) -> None:
    """Put a worker's record in place, where workers do not commit themselves."""
    if outcome.record and job.lease:
        job.lease.require()
        Ledger(job.storage).settle(Commit.from_bytes(outcome.record))


def _rejects_so_far(job: Job, done: Plan) -> int:
    commits = Ledger(job.storage).commits_of(shard.unit for shard in done)
    return sum(commit.rejects for commit in commits if commit is not None)


def _check_rejects(job: Job, progress: Progress) -> None:
    """Stop as soon as the share of rejects is sure to pass the limit, whatever the rows to come are."""
    limit = job.draft.config.limits.max_reject_fraction
    if progress.rejects > limit * job.plan.rows:
        raise PartialError(
            f"{progress.rejects:,} rows are rejects, more than limits.max_reject_fraction={limit:g} of the "
            f"input; {_most_common_reason(job)}",
            where=job.storage.uri,
            fix="mend the input or the bundle, or raise that limit to go on; what was committed is kept",
        )


def _most_common_reason(job: Job) -> str:
    """Why most rows were rejected, as the first `COMMITS_ASKED` commits say."""
    ledger, counts, details = Ledger(job.storage), Counter[str](), dict[str, str]()
    for commit in ledger.commits_of(sorted(ledger.committed("shard-"))[:COMMITS_ASKED]):
        for reason, (rows, detail) in (commit.facts.get("reasons", {}) if commit else {}).items():
            counts[reason] += rows
            details.setdefault(reason, detail)
    reason, rows = counts.most_common(1)[0]
    return f"most of them ({rows:,} of {counts.total():,}): {reason}, {details[reason]}"


def _fingerprint(
    catalog: Catalog, bundles: list[Bundle], settings: EngineSettings, config: RunConfig
) -> dict[str, Any]:
    return {
        "bundles": {b.name: b.sha256 for b in bundles},
        "engine": asdict(settings)
        | {"shard_rows": config.engine.shard_rows, "shard_seconds": config.engine.shard_seconds},
        "output": asdict(config.output),
        "input": {
            "rows": catalog.rows,
            "files": len(catalog.files),
            "image": catalog.image.to_json(),
            "digest": input_digest(catalog),
        },
    }


def _changed_before_plan(stored: dict[str, Any], draft: Draft) -> list[str]:
    before, now = (record["fingerprint"]["input"]["digest"] for record in (stored, draft.record))
    return [] if before == now else ["a file was written again"]


def _stored_plan(storage: Storage) -> Plan | None:
    try:
        return load_plan(storage)
    except InputError:
        return None


def _cost(bundles: list[Bundle], settings: EngineSettings) -> float:
    """Milliseconds of one core for one cutout through all bundles, as their records state it."""
    total = 0.0
    for bundle in bundles:
        stated = bundle.record.get("cost", {}).get("ms_per_cutout", DEFAULT_MS_PER_CUTOUT)
        usual = bundle.record.get("inference", {}).get("views", 1)
        total += stated * (settings.views or usual) / usual
    return total


def _key_schema(catalog: Catalog) -> pa.Schema:
    keys = [known("object_id", catalog.id_type)]
    if catalog.has_positions:
        keys += [
            known("ra", pa.float64()),
            known("dec", pa.float64()),
            known("_healpix_29", pa.int64()),
        ]
    return pa.schema(keys)


def _carry_schema(catalog: Catalog, names: list[str]) -> pa.Schema:
    known = catalog.schema.names
    unknown = [n for n in names if n not in known or n in ("object_id", "ra", "dec", "_healpix_29", "image")]
    if unknown:
        raise InputError(
            f"the catalog has no column {unknown[0]!r} to carry.{did_you_mean(unknown[0], known)}",
            where="output.carry",
            fix=f"columns: {', '.join(n for n in known if n != 'image')}",
        )
    fields = (catalog.schema.field(name) for name in names)
    return pa.schema([pa.field(f.name, f.type, metadata=attributes(f)) for f in fields])


def _pixel_scale(catalog: Catalog) -> float | None:
    """Mean pixel scale of the catalog's first row group, when it has the column."""
    if "pixel_scale_arcsec" not in catalog.schema.names:
        return None
    filesystem, path = locate_file(catalog.uri, catalog.files[0].path)
    with filesystem.open(path, "rb") as raw:
        column = pq.ParquetFile(raw).read_row_group(0, columns=["pixel_scale_arcsec"]).column(0).drop_null()
    return float(column.to_numpy().mean()) if len(column) else None
