"""The main job: a catalog in, a finished run out, resumed wherever it was left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog import Catalog, open_catalog
from surveyproc.catalog.storage import locate_file
from surveyproc.config.run import RunConfig
from surveyproc.distributed import local
from surveyproc.distributed.finalise import finalise
from surveyproc.distributed.worker import Outcome, RunTask
from surveyproc.errors import InputError, PartialError, SurveyprocError, did_you_mean
from surveyproc.inference.engine import Engine, check_domain
from surveyproc.inference.settings import EngineSettings, resolve_device, resolve_precision
from surveyproc.models.bundle import Bundle, open_bundle
from surveyproc.progress import Progress
from surveyproc.runs.ledger import Ledger
from surveyproc.runs.manifest import latest
from surveyproc.runs.plan import (
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

RAY_WORTH_SECONDS = 60.0
DEFAULT_MS_PER_CUTOUT = 5.0


@dataclass(frozen=True)
class Draft:
    """A run that was checked but not begun: nothing has been written."""

    storage: Storage
    catalog: Catalog
    bundles: list[Bundle]
    config: RunConfig
    task: RunTask
    provenance: dict[str, Any]
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
    plan: list[Shard]

    @property
    def storage(self) -> Storage:
        """The run folder."""
        return self.draft.storage

    @property
    def todo(self) -> list[Shard]:
        """Shards without a commit."""
        done = Ledger(self.storage).committed("shard-")
        return [shard for shard in self.plan if shard.unit not in done]


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
    if not force_domain:
        check_domain(bundles, catalog.image, _pixel_scale(catalog))
    device = resolve_device(config.engine.device)
    settings = EngineSettings(
        batch_size=config.engine.batch_size,
        device=device,
        precision=resolve_precision(config.engine.precision, device),
        threads=config.engine.threads,
        views=config.engine.views,
        draws=config.engine.draws,
    )
    keys, carry = _key_schema(catalog), _carry_schema(catalog, config.output.carry)
    task = RunTask(
        output_uri,
        input_uri,
        tuple(b.uri for b in bundles),
        settings,
        keys,
        carry,
        catalog.image,
        "quality" in catalog.schema.names,
    )
    engine = Engine(bundles, settings, catalog.image, keys, carry)
    record = new_record(
        config.to_dict() | {"input": input_uri, "bundles": [b.name for b in bundles]},
        _fingerprint(catalog, bundles, settings, config),
        {"bundles": {b.name: {"uri": b.uri, "weights_sha256": b.sha256} for b in bundles}, "device": device},
    )
    return Draft(
        Storage(output_uri),
        catalog,
        bundles,
        config,
        task,
        engine.provenance,
        engine.passes,
        config.cluster.actors or _default_actors(device),
        _cost(bundles, settings),
        record,
    )


def begin(draft: Draft, accept_code: bool = False) -> Job:
    """Claim the run folder and store the plan, or load the one it has.

    Raises
    ------
    UsageError
        When the folder holds something else, or a run with other settings, input or code.
    """
    storage = draft.storage
    stored = claim(storage, draft.record)
    planned = _stored_plan(storage)
    changes = changed_files(draft.catalog, planned) if planned else _changed_before_plan(stored, draft)
    refuse_changes(stored, draft.record, storage, accept_code, changes)
    if not planned:
        store_plan(storage, draft.shards())
        planned = load_plan(storage)
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
        shards = job.todo
        progress.rejects = _rejects_so_far(job, shards)
        _check_rejects(job, progress)
        if shards:
            for outcome in _outcomes(job, shards, verbose):
                progress.advance(outcome.rows + outcome.rejects, outcome.rejects)
                _check_rejects(job, progress)
        timings = {"shards": time.monotonic() - started}
        return finalise(job.storage, job.plan, job.draft.provenance, job.draft.config.output.index, timings)
    except (SurveyprocError, FileNotFoundError):
        finished = latest(job.storage)
        if finished is None:
            raise
        return finished


def _outcomes(job: Job, shards: list[Shard], verbose: bool) -> Iterator[Outcome]:
    actors = min(job.draft.actors, len(shards))
    if job.draft.executor_for(sum(s.rows for s in shards)) == "none":
        return local.run_shards(job.draft.task, shards, actors)
    from surveyproc.distributed import rays

    return rays.run_shards(job.draft.task, shards, actors, job.draft.config.cluster, verbose)


def _rejects_so_far(job: Job, left: list[Shard]) -> int:
    ledger, todo = Ledger(job.storage), {shard.unit for shard in left}
    commits = (ledger.commit_of(shard.unit) for shard in job.plan if shard.unit not in todo)
    return sum(commit.rejects for commit in commits if commit is not None)


def _check_rejects(job: Job, progress: Progress) -> None:
    limit = job.draft.config.limits.max_reject_fraction
    if progress.rejects > limit * sum(shard.rows for shard in job.plan):
        raise PartialError(
            f"{progress.rejects:,} rows are rejects, more than limits.max_reject_fraction={limit:g} of the input",
            where=job.storage.uri,
            fix="raise that limit to go on, or see why: "
            f'surveyproc sql {job.storage.uri} "SELECT reason, count(*) FROM rejects GROUP BY 1"',
        )


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


def _stored_plan(storage: Storage) -> list[Shard]:
    try:
        return load_plan(storage)
    except InputError:
        return []


def _cost(bundles: list[Bundle], settings: EngineSettings) -> float:
    """Milliseconds of one core for one cutout through all bundles, as their records state it."""
    total = 0.0
    for bundle in bundles:
        stated = bundle.record.get("cost", {}).get("ms_per_cutout", DEFAULT_MS_PER_CUTOUT)
        usual = bundle.record.get("inference", {}).get("views", 1)
        total += stated * (settings.views or usual) / usual
    return total


def _default_actors(device: str) -> int:
    if device == "cpu":
        return len(os.sched_getaffinity(0))
    import torch

    return max(1, torch.cuda.device_count())


def _key_schema(catalog: Catalog) -> pa.Schema:
    keys = [pa.field("object_id", catalog.id_type)]
    if catalog.has_positions:
        keys += [
            pa.field("ra", pa.float64(), metadata={"unit": "deg", "description": "right ascension, ICRS"}),
            pa.field("dec", pa.float64(), metadata={"unit": "deg", "description": "declination, ICRS"}),
            pa.field("_healpix_29", pa.int64(), metadata={"description": "nested HEALPix index, order 29"}),
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
    return pa.schema([catalog.schema.field(n).remove_metadata() for n in names])


def _pixel_scale(catalog: Catalog) -> float | None:
    """Mean pixel scale of the catalog's first row group, when it has the column."""
    if "pixel_scale_arcsec" not in catalog.schema.names:
        return None
    filesystem, path = locate_file(catalog.uri, catalog.files[0].path)
    with filesystem.open(path, "rb") as raw:
        column = pq.ParquetFile(raw).read_row_group(0, columns=["pixel_scale_arcsec"]).column(0).drop_null()
    return float(column.to_numpy().mean()) if len(column) else None
