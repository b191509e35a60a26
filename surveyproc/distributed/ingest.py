"""Ingest of tiles as a run: FITS tiles and a table of sources in, a HATS cutout catalog out, resumed anywhere."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from surveyproc.catalog.storage import stat
from surveyproc.config.ingest import IngestConfig
from surveyproc.distributed.ingest_finish import finish
from surveyproc.distributed.ingest_plan import planned
from surveyproc.distributed.ingest_worker import CutTask, MergeTask
from surveyproc.distributed.pool import cores, executor, run_units
from surveyproc.distributed.preflight import absolute
from surveyproc.distributed.units import Outcome, Task
from surveyproc.errors import PartialError, SurveyprocError
from surveyproc.ingest.cutting import row_bytes
from surveyproc.ingest.plan import CutPlan, MergeUnit
from surveyproc.ingest.sorting import TILE, source_schema
from surveyproc.ingest.sources import SourceColumns, SourceTable, open_sources
from surveyproc.ingest.tile_report import TileIngestReport
from surveyproc.ingest.tiles import CutSettings, Layout, Tile, find_tiles, image_spec, row_schema
from surveyproc.progress import Progress
from surveyproc.runs.lease import DriverLease, sole_writer
from surveyproc.runs.ledger import Commit
from surveyproc.runs.making import Making
from surveyproc.runs.record import new_record
from surveyproc.stores import configured, filesystem
from surveyproc.voparquet import with_votable

RAY_WORTH_SECONDS = 60.0
READ_RATE, WRITE_RATE = 400e6, 150e6  # bytes of tiles and of cutouts that one core does in a second
TILES = "_tiles.json"
MOST_NAMED = 20


@dataclass(frozen=True)
class Request:
    """What is to be cut from what.

    Attributes
    ----------
    layout : Layout
        Where the tiles are.
    sources : str
        Path or URL of the table.
    columns : SourceColumns
        Its columns; of the extra ones ``carry`` are kept in the catalog.
    settings : CutSettings
    output : str
        The catalog.
    """

    layout: Layout
    sources: str
    columns: SourceColumns
    carry: tuple[str, ...]
    settings: CutSettings
    output: str


def ingest_tiles(
    request: Request,
    config: IngestConfig,
    progress: Progress | None = None,
    accept_code: bool = False,
    verbose: bool = False,
) -> TileIngestReport:
    """Cut the sources of a table out of FITS tiles; called again, it resumes.

    Parameters
    ----------
    request : Request
    config : IngestConfig
    progress : Progress, optional
        Told of rows done and rejects.
    accept_code : bool
        Resume what another version of the code began.
    verbose : bool
        Let Ray talk.

    Returns
    -------
    TileIngestReport

    Raises
    ------
    SurveyprocError
        For anything a user can mend; what was committed is kept.
    """
    started = time.monotonic()
    request = replace(request, output=absolute(request.output))
    making = Making(request.output)
    tiles = tuple(sorted(find_tiles(request.layout), key=lambda tile: tile.name))
    with open_sources(request.sources, request.columns) as table:
        record = _record(request, config, tiles)
        with sole_writer(making.work) as lease:
            about = making.begin(record, lambda stored: _changes(making, stored, record, tiles), accept_code)
            if about is None:
                job = _Job(request, config, making, tiles, table, lease, verbose)
                try:
                    about = job.work(progress or Progress("ingest", 0, unit="units"))
                except (SurveyprocError, FileNotFoundError):
                    about = making.finished()
                    if about is None:
                        raise
                nothing = False
            else:
                nothing = True
    size = sum(making.catalog.size(name) or 0 for name in making.catalog.walk())
    report = TileIngestReport.of_catalog(about, request.output, size)
    return replace(report, nothing_to_do=nothing, seconds=round(time.monotonic() - started, 3))


@dataclass(frozen=True)
class _Job:
    """An ingest whose folder is claimed."""

    request: Request
    config: IngestConfig
    making: Making
    tiles: tuple[Tile, ...]
    table: SourceTable
    lease: DriverLease | None
    verbose: bool

    def work(self, progress: Progress) -> dict[str, Any]:
        """Do what is left of it."""
        known = json.dumps([[tile.name, tile.version] for tile in self.tiles])
        self.making.work.create(TILES, known.encode())
        schema = self._schema()
        plan = planned(self.making, self.table, self.tiles, schema, self.config.ingest)
        kind = self._kind(plan, schema)
        facts = {
            "image": json.loads(image_spec(self.request.settings, self.tiles).to_json()),
            "source": self._source(),
            "tiles": len(self.tiles),
            "unusable_tiles": {tile.name: ": ".join(tile.problem) for tile in self.tiles if tile.problem[0]},
        }
        with executor(self.config.cluster, kind, self.verbose) as actors:
            self._cut(plan, schema, kind, actors, progress)
            progress.close()
            shared = self._shared()

            def merge(units: list[MergeUnit]) -> Iterator[Outcome]:
                return self._settled(MergeTask(**shared), units, actors, kind)

            return finish(self.making, plan, self.table.id_type, facts, merge)

    def _schema(self) -> pa.Schema:
        """Columns of the catalog: those of the sources that are kept, then those of the cutouts."""
        given = source_schema(self.table.schema)
        extra = set(self.request.columns.extra) - set(self.request.carry)
        made = row_schema(self.request.settings, self.tiles, pa.schema([f for f in given if f.name != TILE]))
        kept = pa.schema([f for f in made if f.name not in extra])
        return with_votable(kept, "cutouts", "one cutout of each object")

    def _shared(self) -> dict[str, Any]:
        return {
            "output": self.request.output,
            "driver_commits": self.lease is not None,
            "storage": configured(),
        }

    def _cut(self, plan: CutPlan, schema: pa.Schema, kind: str, actors: int, progress: Progress) -> None:
        done = self.making.ledger.committed("cut-")
        left = [unit for unit in plan if unit.unit not in done]
        before = plan.rows - sum(unit.rows for unit in left)
        progress.begin(plan.rows, before, len(plan), len(plan) - len(left))
        commits = self.making.ledger.commits_of(sorted(done))
        progress.rejects = sum(commit.rejects for commit in commits if commit is not None)
        self._check_rejects(progress, "")
        task = CutTask(**self._shared(), tiles=self.tiles, settings=self.request.settings, schema=schema)
        for outcome in self._settled(task, left, actors, kind):
            progress.advance(outcome.rows + outcome.rejects, outcome.rejects)
            self._check_rejects(progress, outcome.unit)

    def _settled(self, task: Task, units: list[Any], actors: int, kind: str) -> Iterator[Outcome]:
        """Do units; put the workers' records in place, where workers do not commit themselves."""
        if not units:
            return
        for outcome in run_units(task, units, actors, self.config.cluster, kind, self.verbose):
            if outcome.record and self.lease:
                self.lease.require()
                self.making.ledger.settle(Commit.from_bytes(outcome.record))
            yield outcome

    def _check_rejects(self, progress: Progress, unit: str) -> None:
        """Stop as soon as the share of sources that tiles could not give is sure to pass the limit."""
        limit = self.config.limits.max_reject_fraction
        if progress.rejects > limit * progress.rows:
            commit = self.making.ledger.commit_of(unit) if unit else None
            reasons = commit.facts["reasons"] if commit else {}
            detail = next((f"; the last: {reason}, {found[1]}" for reason, found in reasons.items()), "")
            raise PartialError(
                f"{progress.rejects:,} of the {progress.rows:,} sources on tiles are rejects, more than "
                f"limits.max_reject_fraction={limit:g}{detail}",
                where=self.making.catalog.uri,
                fix="mend the tiles (and give another --output), or raise that limit to go on; "
                "what was committed is kept",
            )

    def _kind(self, plan: CutPlan, schema: pa.Schema) -> str:
        kind = self.config.cluster.kind
        if kind != "auto":
            return kind
        read = sum(tile.bytes for tile in self.tiles) / READ_RATE
        seconds = (read + plan.rows * row_bytes(schema) / WRITE_RATE) / cores()
        return "local" if seconds > RAY_WORTH_SECONDS else "none"

    def _source(self) -> dict[str, Any]:
        columns = self.request.columns
        names = {"id": columns.object_id, "ra": columns.ra, "dec": columns.dec}
        return {"tiles": self.request.layout.pattern, "sources": self.request.sources, **names}


def _record(request: Request, config: IngestConfig, tiles: Sequence[Tile]) -> dict[str, Any]:
    found, path = filesystem(request.sources)
    version = stat(found, path)
    names = [[tile.name, tile.version] for tile in tiles]
    given = [absolute(request.sources), *version]
    columns = asdict(request.columns) | {"extra": list(request.columns.extra), "carry": list(request.carry)}
    settings = request.settings.to_dict()
    settings.pop("batch_bytes", None)
    fingerprint = {
        "verb": "ingest",
        "layout": {k: v for k, v in asdict(request.layout).items() if k != "files"},
        "sources": columns,
        "cutouts": settings,
        "ingest": asdict(config.ingest),
        "input": {
            "tiles": len(tiles),
            "sources_bytes": version[0],
            "sources_digest": _digest(given),
            "tiles_digest": _digest(names),
        },
    }
    config_said = {"ingest": asdict(config.ingest), "cluster": asdict(config.cluster)}
    said = {"tiles": request.layout.pattern, "sources": request.sources, "output": request.output}
    record = new_record(config_said | said, json.loads(json.dumps(fingerprint)), {})
    return record


def _changes(
    making: Making, stored: dict[str, Any], record: dict[str, Any], tiles: Sequence[Tile]
) -> list[str]:
    """Say what differs of the files that the ingest was begun with; of the tiles only where their layout does not."""
    before, now = stored["fingerprint"], record["fingerprint"]
    lines = []
    if before["input"].get("sources_digest") != now["input"]["sources_digest"]:
        lines.append("the table of sources was written again, or lies elsewhere")
    if before["layout"] != now["layout"] or before["input"]["tiles_digest"] == now["input"]["tiles_digest"]:
        return lines
    try:
        known = dict(json.loads(making.work.read(TILES)))
    except FileNotFoundError:
        return [*lines, "the tiles are others, or were written again"]
    present = {tile.name: json.loads(json.dumps(tile.version)) for tile in tiles}
    lines += [f"tile {name} is gone" for name in known if name not in present]
    lines += [f"tile {name} is new" for name in present if name not in known]
    lines += [f"tile {n} was written again" for n, v in present.items() if n in known and known[n] != v]
    more = len(lines) - MOST_NAMED
    return lines if more <= 0 else [*lines[:MOST_NAMED], f"and {more:,} more"]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()
