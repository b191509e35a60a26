"""Ingest of tiles as a run: FITS tiles and a table of sources in, a HATS cutout catalog out, resumed anywhere."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from surveyproc.catalog.storage import stat
from surveyproc.config.ingest import IngestConfig, PiecesConfig
from surveyproc.distributed.catalog_job import CatalogJob
from surveyproc.distributed.ingest_finish import finish
from surveyproc.distributed.ingest_plan import planned
from surveyproc.distributed.ingest_worker import CutTask, MergeTask
from surveyproc.distributed.pool import cores, executor
from surveyproc.distributed.preflight import absolute
from surveyproc.distributed.units import Outcome
from surveyproc.ingest.cutting import row_bytes
from surveyproc.ingest.plan import CutPlan, MergeUnit
from surveyproc.ingest.sorting import TILE, source_schema
from surveyproc.ingest.sources import SourceColumns, SourceTable, open_sources
from surveyproc.ingest.tile_report import TileIngestReport
from surveyproc.ingest.tiles import CutSettings, Layout, Tile, find_tiles, image_spec, read_layout, row_schema
from surveyproc.progress import Progress
from surveyproc.runs.lease import sole_writer
from surveyproc.runs.making import Making
from surveyproc.runs.record import new_record
from surveyproc.stores import filesystem
from surveyproc.voparquet import with_votable

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

    @classmethod
    def of(
        cls,
        tiles: str,
        sources: str,
        output: str,
        bands: Sequence[str] = (),
        *,
        preset: str | None = None,
        planes: Sequence[str] = (),
        zeropoints: Mapping[str, float] | None = None,
        pixel_scale_arcsec: float | None = None,
        hdu: int | str | None = None,
        resample: bool = False,
        id: str = "object_id",
        ra: str = "ra",
        dec: str = "dec",
        carry: Sequence[str] = (),
        **cutouts: Any,
    ) -> Request:
        """Build a request of what a user says; the flags of ``surveyproc ingest --tiles`` have the same names.

        Parameters
        ----------
        tiles : str
            Pattern such as ``DIR/{tile}_{band}.fits``; the folder with a preset.
        sources : str
            Path or URL of the table.
        output : str
            The catalog.
        bands : sequence of str
            All bands of the preset when empty.
        preset, planes, zeropoints, pixel_scale_arcsec, hdu, resample
            See `surveyproc.ingest.tiles.read_layout`.
        id, ra, dec : str
            Columns of the table.
        carry : sequence of str
            Other columns that are kept in the catalog.
        **cutouts
            ``size, dtype, unit, stretch, size_column`` of `surveyproc.ingest.tiles.CutSettings`. A stretch implies
            ``uint8``: nothing else holds what it makes.

        Raises
        ------
        UsageError
            For what cannot be meant.
        """
        layout = read_layout(
            tiles,
            bands,
            preset=preset,
            planes=planes,
            zeropoints=zeropoints,
            pixel_scale_arcsec=pixel_scale_arcsec,
            hdu=hdu,
            resample=resample,
        )
        size_column = cutouts.get("size_column")
        extra = dict.fromkeys([*carry, *([size_column] if size_column else [])])
        if cutouts.get("stretch", "none") != "none":
            cutouts.setdefault("dtype", "uint8")
        settings = CutSettings(layout.bands, planes=tuple(planes), **cutouts)
        return cls(layout, sources, SourceColumns(id, ra, dec, tuple(extra)), tuple(carry), settings, output)


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
    image_spec(request.settings)  # what cannot be made is refused before a header is read
    tiles = tuple(sorted(find_tiles(request.layout), key=lambda tile: tile.name))
    with open_sources(request.sources, request.columns) as table:
        schema = _schema(request, table, tiles)
        record = _record(request, config, tiles)
        with sole_writer(making.work) as lease:
            about = making.begin(record, lambda stored: _changes(making, stored, record, tiles), accept_code)
            nothing = about is not None
            if about is None:
                job = _Job(
                    output=request.output,
                    config=config,
                    making=making,
                    lease=lease,
                    verbose=verbose,
                    request=request,
                    pieces=config.ingest,
                    tiles=tiles,
                    table=table,
                    schema=schema,
                )
                about = job.conclude(progress or Progress("ingest", 0, unit="units"))
    size = sum(making.catalog.size(name) or 0 for name in making.catalog.walk())
    report = TileIngestReport.of_catalog(about, request.output, size)
    return replace(report, nothing_to_do=nothing, seconds=round(time.monotonic() - started, 3))


@dataclass(frozen=True, kw_only=True)
class _Job(CatalogJob):
    """An ingest whose folder is claimed."""

    rows_are = "sources on tiles"
    mend = "mend the tiles"
    request: Request
    pieces: PiecesConfig
    tiles: tuple[Tile, ...]
    table: SourceTable
    schema: pa.Schema

    def work(self, progress: Progress) -> dict[str, Any]:
        """Do what is left of it."""
        known = json.dumps([[tile.name, tile.version] for tile in self.tiles])
        self.making.work.create(TILES, known.encode())
        schema = self.schema
        plan = planned(self.making, self.table, self.tiles, schema, self.pieces)
        read = sum(tile.bytes for tile in self.tiles) / READ_RATE
        kind = self.kind((read + plan.rows * row_bytes(schema) / WRITE_RATE) / cores())
        facts = {
            "image": json.loads(image_spec(self.request.settings, self.tiles).to_json()),
            "source": self._source(),
            "tiles": len(self.tiles),
            "unusable_tiles": {tile.name: ": ".join(tile.problem) for tile in self.tiles if tile.problem[0]},
        }
        with executor(self.config.cluster, kind, self.verbose) as actors:
            self._cut(plan, schema, kind, actors, progress)
            progress.close()
            shared = self.shared()

            def merge(units: list[MergeUnit]) -> Iterator[Outcome]:
                return self.settled(MergeTask(**shared), units, actors, kind)

            return finish(self.making, plan, self.table.id_type, facts, merge)

    def _cut(self, plan: CutPlan, schema: pa.Schema, kind: str, actors: int, progress: Progress) -> None:
        done = self.making.ledger.committed("cut-")
        left = [unit for unit in plan if unit.unit not in done]
        before = plan.rows - sum(unit.rows for unit in left)
        progress.begin(plan.rows, before, len(plan), len(plan) - len(left))
        task = CutTask(**self.shared(), tiles=self.tiles, settings=self.request.settings, schema=schema)
        self.advance(task, done, left, actors, kind, progress)

    def _source(self) -> dict[str, Any]:
        columns = self.request.columns
        names = {"id": columns.object_id, "ra": columns.ra, "dec": columns.dec}
        return {"tiles": self.request.layout.pattern, "sources": self.request.sources, **names}


def _schema(request: Request, table: SourceTable, tiles: Sequence[Tile]) -> pa.Schema:
    """Columns of the catalog: those of the sources that are kept, then those of the cutouts."""
    given = source_schema(table.schema)
    extra = set(request.columns.extra) - set(request.carry)
    made = row_schema(request.settings, tiles, pa.schema([f for f in given if f.name != TILE]))
    kept = pa.schema([f for f in made if f.name not in extra])
    return with_votable(kept, "cutouts", "one cutout of each object")


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
