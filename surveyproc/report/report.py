"""Write the report of a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from surveyproc.catalog import Catalog, open_catalog
from surveyproc.errors import InputError
from surveyproc.report import page
from surveyproc.report.charts import meter
from surveyproc.report.origin import origin
from surveyproc.report.pictures import fetch_cutouts
from surveyproc.report.summary import Summary, summarise
from surveyproc.report.truth import truth_table
from surveyproc.runs import open_run
from surveyproc.runs.record import command_line
from surveyproc.runs.run import Run
from surveyproc.simulate.marker import is_simulated
from surveyproc.storage import Storage, explain_write_errors

NAME = "report.html"
TRUTH = ("truth_type", "truth_artifact")
SIMULATED = "These galaxies are simulated: drawn by a program, with known truth. No telescope saw them."


def write_report(run_uri: str, catalog_uri: str | None = None, output: str | Path | None = None) -> str:
    """Write one HTML file that says what a run holds, with pictures; it refers to nothing outside itself.

    Parameters
    ----------
    run_uri : str
        The run.
    catalog_uri : str, optional
        Where its cutout catalog is now; the place it was read from when not given. Where that cannot be
        opened any more the report has no pictures and says so.
    output : str or Path, optional
        File to write; ``report.html`` in the run when not given.

    Returns
    -------
    str
        Where it was written.

    Raises
    ------
    InputError
        When the folder is no run, ``catalog_uri`` cannot be opened, or the output not be written.
    """
    run = open_run(run_uri)
    summary = summarise(run)
    notes = []
    catalog = None
    try:
        catalog = open_catalog(catalog_uri or run.record["config"]["input"])
    except InputError as error:
        if catalog_uri is not None:
            raise
        notes.append(
            f"Without pictures: {error.what} ({error.where or run.record['config']['input']}). Give --catalog."
        )
    simulated = catalog is not None and is_simulated(catalog.schema)
    if simulated:
        notes.insert(0, SIMULATED)
    if run.manifest is None:
        notes.append("This run is unfinished: the report covers the shards committed so far.")
    text = render(run, summary, catalog, notes, simulated)
    if output is None:
        run.storage.replace(NAME, text.encode())
        return f"{run.uri}/{NAME}"
    with explain_write_errors(str(output)):
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_text(text, encoding="utf-8")
    return str(output)


def render(run: Run, summary: Summary, catalog: Catalog | None, notes: Iterable[str], simulated: bool) -> str:
    """Return the page of a summarised run."""
    crop = bundle_crop(run.record)
    pictures: page.Pictures = {}
    if catalog is not None:
        ids = {pick.object_id for top in summary.galleries.values() for pick in top.picks}
        ids |= {row["object_id"] for row in summary.rejects}
        pictures = fetch_cutouts(catalog, ids, crop, TRUTH if simulated else ()) if ids else {}
    sections = {
        "head": page.tiles(_numbers(run)) + page.facts_table(_facts(run, catalog, crop)),
        "look": page.look(summary, pictures) if summary.galleries else "",
        "answers": page.answers(summary, pictures),
        "truth": truth_table(run, catalog, summary.questions) if catalog and simulated else "",
        "triage": page.triage(summary, pictures) if summary.galleries else "",
        "rejects": page.rejects(summary, pictures),
        "catalog": origin(catalog.uri) if catalog else "",
        "sky": page.sky(summary),
        "work": _work(run),
        "next": _commands(run, summary),
    }
    return page.page(f"Survey report: {run.name}", notes, sections)


def _numbers(run: Run) -> dict[str, str]:
    status = run.status()
    numbers = {
        "rows in": f"{status['rows_in']:,}",
        "rows out": f"{status['rows']:,}",
        "rejects": f"{status['rejects']:,}",
        "shards committed": f"{status['shards_committed']:,} of {status['shards']:,}",
    }
    commits = run.commits()
    seconds = sum(c.seconds for c in commits)
    if seconds:
        numbers["rows/s of one engine"] = f"{sum(c.rows + c.rejects for c in commits) / seconds:,.0f}"
    return numbers


def _facts(run: Run, catalog: Catalog | None, crop: float) -> list[tuple[str, Any]]:
    record, engine = run.record, run.record["fingerprint"]["engine"]
    facts: list[tuple[str, Any]] = [
        ("begun", record["created"]),
        ("finished", run.manifest["created"] if run.manifest else "not yet"),
        ("run folder", run.uri),
        ("catalog", record["config"]["input"]),
    ]
    if catalog is not None:
        image = catalog.image
        facts.append(
            (
                "cutouts",
                f"{'x'.join(map(str, image.shape))} {image.dtype}, {image.encoding}, stretch {image.stretch}",
            )
        )
        shown = "all" if crop == 1 else f"the central {crop:.0%}"
        facts.append(("pictures here", f"{shown} of each cutout's side: what the model sees"))
    facts += [
        (f"bundle {name}", f"weights sha256 {bundle['weights_sha256'][:16]}, {bundle['uri']}")
        for name, bundle in record["bundles"].items()
    ]
    facts += [
        ("device, precision", f"{engine['device']}, {engine['precision']}"),
        ("code", f"{record['code']}, git {str(record['git_commit'] or 'unknown')[:12]}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in record["versions"].items())),
    ]
    return facts


def bundle_crop(record: dict[str, Any]) -> float:
    """Read the crop of the first bundle; 1 where its record cannot be read any more."""
    for bundle in record["bundles"].values():
        try:
            return float(json.loads(Storage(bundle["uri"]).read("model.json"))["input"].get("crop", 1.0))
        except (OSError, ValueError, KeyError):
            continue
    return 1.0


def _work(run: Run) -> str:
    timings = (run.manifest or {}).get("timings", {})
    largest = max(timings.values(), default=0.0)
    times = "".join(meter(name, seconds, largest, f"{seconds:,.1f} s") for name, seconds in timings.items())
    commits = run.commits()
    rates = sorted((c.rows + c.rejects) / c.seconds for c in commits if c.seconds > 0)
    parts = [f"<h3>Seconds of the last session</h3>{times}"] if times else []
    if rates:
        chosen = {
            "slowest shard": rates[0],
            "median shard": rates[len(rates) // 2],
            "fastest shard": rates[-1],
        }
        lines = "".join(meter(k, v, rates[-1], f"{v:,.0f} rows/s") for k, v in chosen.items())
        parts.append(f"<h3>Rate of one engine <small>{len(rates):,} shards</small></h3>{lines}")
    if run.manifest:
        rows = "".join(
            f"<tr><td>{page.escape(name)}</td><td class=n>{entry['rows']:,}</td><td class=n>{len(entry['files']):,}</td>"
            f"<td class=n>{entry['bytes'] / 1e6:,.2f}</td><td>{page.escape(entry['layout'])}</td></tr>"
            for name, entry in run.manifest["tables"].items()
        )
        head = "<tr><th>table</th><th>rows</th><th>files</th><th>MB</th><th>layout</th></tr>"
        parts.append(f"<h3>Tables</h3><table>{head}{rows}</table>")
    return "".join(parts)


def _commands(run: Run, summary: Summary) -> str:
    where = shlex.quote(run.uri)
    lines = [f"surveyproc verify {where}"]
    if summary.questions:
        question, answers = next(iter(summary.questions.items()))
        query = (
            f'SELECT object_id, "{question}_{answers[0]}_fraction" FROM morphology ORDER BY 2 DESC LIMIT 5'
        )
        lines.append(f"surveyproc sql {where} {shlex.quote(query)}")
        if run.manifest and run.manifest.get("index"):
            best = summary.galleries["random"].picks
            if best:
                lines.append(f"surveyproc similar {where} --id={shlex.quote(str(best[0].object_id))} -k 10")
    lines.append(f"surveyproc sql {where} 'SELECT reason, count(*) FROM rejects GROUP BY 1'")
    begun = command_line(run.record)
    return (
        f"<p>To query this run:</p><pre>{page.escape(chr(10).join(lines))}</pre>"
        f"<p>It was begun with:</p><pre>{page.escape(begun)}</pre>"
    )
