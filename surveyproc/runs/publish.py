"""Publish: the tables of finished runs as files that others open, in a folder of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from surveyproc import __version__
from surveyproc.catalog.hats.layout import CREATION_DATE
from surveyproc.catalog.hats.margin import require_narrow
from surveyproc.errors import SurveyprocError, UsageError
from surveyproc.progress import Progress
from surveyproc.runs.lease import sole_writer
from surveyproc.runs.ledger import Commit, Ledger, Part
from surveyproc.runs.making import Making
from surveyproc.runs.publish_flat import SUFFIXES, write_flat
from surveyproc.runs.publish_hats import (
    HatsTable,
    catalog_files,
    collection_files,
    margin_cells,
    survey,
    write_leaf,
    write_margin_leaf,
)
from surveyproc.runs.publish_names import Names
from surveyproc.runs.publish_source import REJECTS, Source, SourceTable, open_source
from surveyproc.runs.record import load_record, new_record
from surveyproc.threads import map_ahead

FORMATS = ("hats", "fits", "votable", "parquet")
THREADS = 4
U = TypeVar("U")


def publish(
    runs: Sequence[str],
    output: str,
    form: str,
    names: str | None = None,
    tables: Sequence[str] | None = None,
    margin_arcsec: float = 10.0,
    accept_code: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Publish the tables of finished runs, several as one; called again, it resumes.

    Parameters
    ----------
    runs : sequence of str
        Of an object that is in several, the row of the first run is published.
    output : str
        Folder or URL to create, outside of the runs.
    form : str
        ``hats`` (a collection: a catalog for each table, the first with a margin, the others as its extensions;
        ``rejects`` as one Parquet file), or one file for each table: ``fits``, ``votable``, ``parquet``.
    names : str, optional
        ``zoobot`` for the column names of Zoobot's tables.
    tables : sequence of str, optional
        All unless given.
    margin_arcsec : float
        Width of the margin; 0 for none.
    accept_code : bool
        Resume what another version of the code began.
    progress : Progress, optional

    Returns
    -------
    dict
        What ``catalog.json`` in the folder says: ``format``, ``tables`` (rows and files of each), ``runs``,
        ``duplicates``, ``created``; and ``nothing_to_do``.

    Raises
    ------
    surveyproc.errors.SurveyprocError
        Runs that are unfinished or do not go together, a table that the format cannot hold, a folder that
        holds something else.
    """
    _require_form(form)
    renaming = Names(names)
    source = open_source(runs, tables)
    _require_outside(source, output)
    _require_margin(margin_arcsec)
    record = _record(source, form, names, margin_arcsec)
    making = Making(output)
    plan: list[HatsTable] = []
    if form == "hats" and making.finished() is None:
        plan = _planned(source, renaming, margin_arcsec)
    with sole_writer(making.work):
        done = making.begin(record, lambda stored: _changed(stored, record), accept_code)
        if done is not None:
            return {**done, "nothing_to_do": True}
        try:
            return {**_publish(making, source, plan, renaming, form, progress), "nothing_to_do": False}
        except (SurveyprocError, FileNotFoundError):
            done = making.finished_by_another()
            if done is None:
                raise
            return {**done, "nothing_to_do": False}


def _publish(
    making: Making,
    source: Source,
    plan: list[HatsTable],
    names: Names,
    form: str,
    progress: Progress | None,
) -> dict[str, Any]:
    record = load_record(making.work)
    work = _Work(making, progress, source, record["created"])
    if form == "hats":
        _publish_collection(work, plan, names)
    else:
        for table in source.tables:
            work.flat(table, names, form)
    about = _about(source, record, form, names.kind, work.files)
    making.finish(about)
    return about


class _Work:
    """Does units, gives their files their names, and keeps account of them."""

    def __init__(self, making: Making, progress: Progress | None, source: Source, created: str) -> None:
        self.making, self.source = making, source
        self.created = f"{created[:16]}UTC"  # that of the record: the same after a resume
        self.ledger: Ledger = making.ledger
        self.files: dict[str, list[dict[str, Any]]] = {}
        self._progress = progress
        if progress:
            progress.begin(sum(table.rows for table in source.tables), 0, 0, 0)

    def all(self, units: Iterable[U], do: Callable[[U], Commit], counts: bool = True) -> list[Commit]:
        """Do units, several at once; what is committed is not done again."""
        found = []
        for commit in map_ahead(do, units, THREADS):
            self.making.publish(commit)
            for target, part in commit.targets.items():
                self._note(commit.facts["targets"][0][0], target, part)
            if self._progress and counts:
                self._progress.advance(commit.rows)
            found.append(commit)
        return found

    def flat(self, table: SourceTable, names: Names, form: str) -> None:
        """Write a table to one file."""
        self.all([table], partial(_write_file, self.ledger, names=names, form=form))

    def _note(self, table: str, target: str, part: Part) -> None:
        stated = {"path": target, "rows": part.rows, "bytes": part.bytes}
        self.files.setdefault(table, []).append(stated)


def _write_file(ledger: Ledger, table: SourceTable, names: Names, form: str) -> Commit:
    unit = f"publish-{table.name}"
    done = ledger.commit_of(unit)
    if done is not None:
        return done
    attempt = ledger.begin(unit)
    path = f"{attempt.folder}/{table.name}{SUFFIXES[form]}"
    try:
        with ledger.storage.writing(path) as sink:
            rows = write_flat(sink, table, names, form)
    except Exception:
        attempt.abandon()
        raise
    attempt.add_part(table.name, Part(path, rows, sink.nbytes, sink.sha256, 0))
    return attempt.commit(rows, 0, {"targets": [[table.name, f"{table.name}{SUFFIXES[form]}"]]})


def _publish_collection(work: _Work, plan: list[HatsTable], names: Names) -> None:
    provenance = {CREATION_DATE: work.created, "hats_builder": f"surveyproc {__version__}"}
    provenance["surveyproc_runs"] = " ".join(run.name for run in work.source.runs)
    making = work.making
    for table in plan:
        leaves = work.all(table.pixels, partial(write_leaf, work.ledger, table))
        cells = list(margin_cells(table, leaves))
        margins = work.all(cells, partial(write_margin_leaf, work.ledger, table), counts=False)
        made_by = {f"surveyproc_{key}": value for key, value in _made_by(work.source, table.name).items()}
        making.write(catalog_files(table, leaves, margins, provenance | made_by))
    for rejects in (t for t in work.source.tables if t.name == REJECTS):
        work.flat(rejects, names, "parquet")
    name = making.catalog.uri.rsplit("/", 1)[-1]
    making.write(collection_files(name, plan, provenance))


def _planned(source: Source, names: Names, margin_arcsec: float) -> list[HatsTable]:
    """Choose the partitions of all tables; the first gets the margin. Whatever is refused, is refused here."""
    plan = [survey(t, names, None) for t in source.tables if t.name != REJECTS]
    if not plan:
        raise UsageError(
            "rejects have no positions, so that there is nothing to publish as HATS",
            where="--tables",
            fix="publish them with --format parquet, fits or votable, or name another table too",
        )
    if margin_arcsec and plan[0].pixels:
        require_narrow(margin_arcsec, max(order for order, _ in plan[0].pixels))
    return [replace(plan[0], margin_arcsec=margin_arcsec or None), *plan[1:]]


def _made_by(source: Source, table: str) -> dict[str, str]:
    entry = (source.runs[0].manifest or {})["tables"][table]
    return {key: str(entry[key]) for key in ("bundle", "encoder_sha256") if entry.get(key)}


def _record(source: Source, form: str, names: str | None, margin_arcsec: float) -> dict[str, Any]:
    settings = {
        "format": form,
        "names": names,
        "tables": ",".join(table.name for table in source.tables),
        "margin_arcsec": margin_arcsec if form == "hats" else None,
    }
    runs = [run.name for run in source.runs]
    fingerprint = {"verb": "publish", **settings, "input": {"digest": source.digest}}
    return new_record(settings, fingerprint, {"runs": runs})


def _changed(stored: dict[str, Any], record: dict[str, Any]) -> list[str]:
    same = stored["fingerprint"].get("input") == record["fingerprint"]["input"]
    return [] if same else ["the runs are others, or hold other files"]


def _about(
    source: Source,
    record: dict[str, Any],
    form: str,
    names: str | None,
    files: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    return {
        "verb": "publish",
        "format": form,
        "names": names,
        "tables": {
            name: {"rows": sum(f["rows"] for f in found), "files": found} for name, found in files.items()
        },
        "runs": [run.name for run in source.runs],
        "duplicates": source.duplicates,
        "created": record["created"],
        "code": record["code"],
        "fingerprint": record["fingerprint"],
    }


def _require_form(form: str) -> None:
    if form not in FORMATS:
        raise UsageError(f"unknown format {form!r}", where="--format", fix=f"formats: {', '.join(FORMATS)}")


def _require_margin(margin_arcsec: float) -> None:
    if not 0 <= margin_arcsec <= 3600:
        raise UsageError(
            f"a margin of {margin_arcsec:g} arcsec is not between 0 and 3600",
            where="--margin",
            fix="10 is usual",
        )


def _require_outside(source: Source, output: str) -> None:
    root = Making(output).catalog.root
    for run in source.runs:
        if f"{root}/".startswith(f"{run.storage.root}/"):
            raise UsageError(
                "the output lies in a run, which holds nothing but its own files",
                where=output,
                fix="give an --output outside of the runs",
            )
