"""The verbs of the command line as Python functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surveyproc.runs.run import Run, open_run

if TYPE_CHECKING:
    import pyarrow as pa

    from surveyproc.distributed.job import Draft, Job
    from surveyproc.ingest.repack.report import RepackReport
    from surveyproc.ingest.tile_report import TileIngestReport
    from surveyproc.report.show import Shown
    from surveyproc.runs.accounts import Check
    from surveyproc.runs.repair import Mend

DEFAULT_BUNDLE = "gz2"


@dataclass(frozen=True)
class RunResult:
    """What `run` did.

    Attributes
    ----------
    uri : str
        The run folder.
    rows, rejects : int
        Rows in the tables, and rows in ``rejects``.
    seconds : float
        Wall time of this call.
    resumed : bool
        Whether an earlier call had committed something.
    nothing_to_do : bool
        Whether the run was finished before.
    executor : str
        ``none``, ``local`` or ``address``.
    manifest : dict
        What the run holds.
    """

    uri: str
    rows: int
    rejects: int
    seconds: float
    resumed: bool
    nothing_to_do: bool
    executor: str
    manifest: dict[str, Any]


def run(
    input: str | Path,
    output: str | Path,
    bundles: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    accept_code: bool = False,
    force_domain: bool = False,
    verbose: bool = False,
) -> RunResult:
    """Run bundles over a cutout catalog; called again, it resumes.

    Parameters
    ----------
    input : path or URI
        A cutout catalog.
    output : path or URI
        The run folder, new or of the same run.
    bundles : sequence of str, optional
        Names, paths or URIs; ``gz2`` by default.
    overrides : sequence of str
        Settings such as ``cluster=none`` or ``engine.batch_size=32``.
    accept_code : bool
        Resume a run that another version of the code began.
    force_domain : bool
        Run although the catalog is not what the bundles were trained on.
    verbose : bool
        Let Ray talk.

    Returns
    -------
    RunResult

    Raises
    ------
    surveyproc.errors.SurveyprocError
        For anything a user can mend; what was committed is kept.

    Examples
    --------
    >>> import surveyproc  # doctest: +SKIP
    >>> surveyproc.run(input="gz.cat", output="out.run", overrides=["cluster=none"])  # doctest: +SKIP
    """
    from surveyproc.config.run import load_run_config
    from surveyproc.distributed.job import begin, draft
    from surveyproc.distributed.place import session

    config = load_run_config(overrides)
    with session(config.cluster, verbose):
        names = list(bundles or [DEFAULT_BUNDLE])
        drafted = draft(str(input), str(output), names, config, force_domain)
        with begin(drafted, accept_code) as job:
            return _work(job, verbose)


def _work(job: Job, verbose: bool) -> RunResult:
    from surveyproc.distributed.job import execute
    from surveyproc.progress import Progress
    from surveyproc.runs.ledger import Ledger
    from surveyproc.runs.manifest import latest

    uri, finished = job.storage.uri, latest(job.storage)
    if finished is not None:
        Ledger(job.storage).tidy()
        return RunResult(uri, finished["rows"], finished["rejects"], 0.0, True, True, "none", finished)
    total, (done, left) = job.plan.rows, job.split()
    rows_left = left.rows
    executor = job.draft.executor_for(rows_left)
    progress = Progress(
        f"run on {_place(executor, job.draft)}",
        total,
        total - rows_left,
        len(job.plan),
        len(done),
    )
    progress.tick()
    manifest = execute(job, progress, verbose)
    progress.close()
    return RunResult(
        uri,
        manifest["rows"],
        manifest["rejects"],
        progress.seconds,
        rows_left < total,
        False,
        executor,
        manifest,
    )


def _place(executor: str, draft: Draft) -> str:
    engines = f"{draft.actors} engine{'s' if draft.actors > 1 else ''}"
    where = {"none": "this process", "local": "a local Ray cluster", "address": "the Ray cluster"}[executor]
    settings = draft.task.settings
    return f"{where} ({engines}, {settings.device} {settings.precision})"


def open(uri: str | Path) -> Run:
    """Open a run folder.

    Examples
    --------
    >>> surveyproc.open("out.run").table("morphology").to_pandas()  # doctest: +SKIP
    """
    return open_run(str(uri))


def ingest(images: str | Path, table: str | Path, output: str | Path, id_column: str, **options: Any) -> Any:
    """Make a cutout catalog of a folder of images and a table; see `surveyproc.ingest.ingest_images`."""
    from surveyproc.ingest import ingest_images

    return ingest_images(images=images, table=table, output=output, id_column=id_column, **options)


def ingest_tiles(
    tiles: str | Path,
    sources: str | Path,
    output: str | Path,
    bands: Sequence[str] = (),
    *,
    overrides: Sequence[str] = (),
    accept_code: bool = False,
    verbose: bool = False,
    **options: Any,
) -> TileIngestReport:
    """Cut the sources of a table out of FITS tiles; called again, it resumes.

    Parameters
    ----------
    tiles : path or URI
        Pattern such as ``DIR/{tile}_{band}.fits``; the folder with a preset.
    sources : path or URI
        The table: CSV, Parquet, FITS or VOTable.
    output : path or URI
        The catalog.
    bands : sequence of str
        All bands of the preset when empty.
    overrides : sequence of str
        Settings such as ``cluster=none``.
    accept_code : bool
        Resume what another version of the code began.
    verbose : bool
        Let Ray talk.
    **options
        ``size``, ``dtype``, ``preset``, ``zeropoints``, ``stretch`` ...; see `surveyproc.distributed.ingest.Request.of`.

    Returns
    -------
    surveyproc.ingest.tile_report.TileIngestReport

    Examples
    --------
    >>> surveyproc.ingest_tiles("DIR/{tile}_{band}.fits", "S.parquet", "my.cat", ["g", "r", "i"])  # doctest: +SKIP
    """
    from surveyproc.config.ingest import load_ingest_config
    from surveyproc.distributed.ingest import Request
    from surveyproc.distributed.ingest import ingest_tiles as cut

    request = Request.of(str(tiles), str(sources), str(output), bands, **options)
    return cut(request, load_ingest_config(overrides), None, accept_code, verbose)


def repack(
    input: str | Path,
    output: str | Path,
    *,
    size: int | None = None,
    dtype: str | None = None,
    overrides: Sequence[str] = (),
    accept_code: bool = False,
    verbose: bool = False,
    **given: Any,
) -> RepackReport:
    """Write cutouts of any form as a catalog in the fast layout; called again, it resumes.

    Parameters
    ----------
    input : path or URI
        Parquet, HDF5 or a folder of images.
    output : path or URI
        The catalog.
    size : int, optional
        Pixels on a side that display images are resized to.
    dtype : str, optional
        ``float16`` for flux in half the space; ``uint8`` or ``float32`` for wider integers.
    overrides : sequence of str
        Settings such as ``cluster=none``.
    accept_code : bool
        Resume what another version of the code began.
    verbose : bool
        Let Ray talk.
    **given
        What the files do not say, as in `surveyproc.catalog.Given`: ``bands``, ``unit``, ``id``, ...

    Returns
    -------
    surveyproc.ingest.repack.report.RepackReport

    Examples
    --------
    >>> surveyproc.repack("Galaxy10_DECals.h5", "galaxy10.cat", number_rows=True)  # doctest: +SKIP
    """
    from surveyproc.catalog import Given
    from surveyproc.config.repack import load_repack_config
    from surveyproc.distributed.repack import Request
    from surveyproc.distributed.repack import repack as repack_run
    from surveyproc.ingest.repack import Wanted

    request = Request(str(input), str(output), Given(dtype=dtype, **given), Wanted(size, dtype))
    return repack_run(request, load_repack_config(overrides), None, accept_code, verbose)


def show(
    catalog: str | Path,
    object_id: int | str,
    output: str | Path,
    stretch: str | None = None,
    **parameters: Any,
) -> Shown:
    """Draw a cutout as PNG in one stretch, or in all that can be made; see `surveyproc.report.show`.

    Examples
    --------
    >>> surveyproc.show("my.cat", 100008, "galaxy.png", "legacy_lupton", q=8)  # doctest: +SKIP
    """
    from surveyproc.report.show import show_cutout

    return show_cutout(str(catalog), str(object_id), output, stretch, parameters)


def sql(statement: str, *uris: str | Path) -> pa.Table:
    """Query the tables of runs and catalogs; see `surveyproc.runs.query`.

    Parameters
    ----------
    statement : str
        One SELECT; names with a hyphen need double quotes.
    *uris : path or URI
        Runs, read as one, or a catalog, which is the table ``catalog``.

    Returns
    -------
    pyarrow.Table

    Examples
    --------
    >>> surveyproc.sql("SELECT count(*) FROM morphology", "out.run")  # doctest: +SKIP
    """
    from surveyproc.runs.query import query_table

    return query_table([str(uri) for uri in uris], statement)


def cone(
    uri: str | Path,
    ra: float,
    dec: float,
    radius_arcsec: float,
    table: str | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Read the rows of a run or a catalog within a distance of a position, nearest first.

    Parameters
    ----------
    uri : path or URI
        A run, a cutout catalog, any HATS catalog or collection, or Parquet files with ``ra`` and ``dec``.
    ra, dec : float
        Degrees, ICRS.
    radius_arcsec : float
        Distance in arcseconds.
    table : str, optional
        Table of a run; ``morphology`` unless given.
    columns : sequence of str, optional
        ``["all"]`` is every column.

    Returns
    -------
    pyarrow.Table
        With ``distance_arcsec`` as the first column.

    Examples
    --------
    >>> surveyproc.cone("out.run", ra=180.5, dec=-1.2, radius_arcsec=30).to_pandas()  # doctest: +SKIP
    """
    from surveyproc.catalog.sky_reading import cone_search
    from surveyproc.catalog.sky_regions import Cone
    from surveyproc.runs.query import sky_table

    return cone_search(sky_table(str(uri), table), Cone(ra, dec, radius_arcsec), columns)


def similar(uri: str | Path, object_id: int | str, k: int = 10) -> list[tuple[int | str, float]]:
    """List the k objects of a run most like one of them, as (id, cosine similarity), nearest first."""
    from surveyproc.search.flat import similar as search

    return search(open_run(str(uri)), object_id, k)


def publish(runs: Sequence[str | Path], output: str | Path, form: str, **options: Any) -> dict[str, Any]:
    """Publish runs as ``hats``, ``fits``, ``votable`` or ``parquet``; see `surveyproc.runs.publish.publish`.

    Examples
    --------
    >>> surveyproc.publish(["out.run"], "gz.hats", "hats")  # doctest: +SKIP
    """
    from surveyproc.runs.publish import publish as publish_runs

    return publish_runs([str(run) for run in runs], str(output), form, **options)


def verify(uri: str | Path) -> list[Check]:
    """Read a run, a catalog or a published folder back; every `Check` has ``name``, ``passed`` and ``detail``."""
    from surveyproc.runs import open_run
    from surveyproc.runs.run import is_run
    from surveyproc.runs.verify import verify_run
    from surveyproc.runs.verify_catalog import verify_catalog

    return list(verify_run(open_run(str(uri))) if is_run(str(uri)) else verify_catalog(str(uri)))


def repair(uri: str | Path, dry_run: bool = False) -> list[Mend]:
    """Delete what cut-off attempts left in a run and rebuild a missing manifest; says what was mended.

    Raises
    ------
    surveyproc.errors.PartialError
        When the run is unfinished; what could be deleted is deleted by then.
    """
    from surveyproc.runs.repair import repair_run
    from surveyproc.storage import Storage

    return list(repair_run(Storage(uri), dry_run))
