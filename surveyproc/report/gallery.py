"""One picture of a run for a README: the surest galaxies of each answer."""

from __future__ import annotations

from pathlib import Path

from surveyproc.catalog import open_catalog
from surveyproc.errors import InputError
from surveyproc.report.pictures import fetch_cutouts, gallery_png
from surveyproc.report.report import bundle_crop
from surveyproc.report.summary import summarise
from surveyproc.runs import open_run
from surveyproc.simulate.marker import is_simulated
from surveyproc.storage import explain_write_errors

ROWS = 6
FIRST = (  # shown before other answers, where the model is sure of enough galaxies
    "smooth-or-featured_smooth",
    "smooth-or-featured_featured-or-disk",
    "disk-edge-on_yes",
    "odd-feature_ring",
    "odd-feature_merger",
    "odd-feature_irregular",
)
PER_ROW = 8


def write_gallery(run_uri: str, output: str | Path, catalog_uri: str | None = None) -> str:
    """Write a PNG with a row of cutouts for each answer that the model is sure of somewhere.

    Parameters
    ----------
    run_uri : str
        The run.
    output : str or Path
        PNG to write.
    catalog_uri : str, optional
        Where its cutout catalog is now.

    Returns
    -------
    str
        Where it was written.

    Raises
    ------
    InputError
        When the catalog cannot be opened, or no galaxy has a confident answer.
    """
    run = open_run(run_uri)
    catalog = open_catalog(catalog_uri or run.record["config"]["input"])
    summary = summarise(run)
    chosen = {
        name: top.picks
        for name, top in summary.galleries.items()
        if name in summary.fractions and len(top.picks) == PER_ROW
    }
    names = [n for n in FIRST if n in chosen] + [n for n in chosen if n not in FIRST]
    chosen = {name: chosen[name] for name in names[:ROWS]}
    if not chosen:
        raise InputError(
            f"no answer has {PER_ROW} galaxies that the model is sure of",
            where=run.uri,
            fix="a larger catalog, or the report: surveyproc report RUN",
        )
    ids = {pick.object_id for picks in chosen.values() for pick in picks}
    cutouts = fetch_cutouts(catalog, ids, bundle_crop(run.record))
    rows = [
        (
            _title(name),
            [
                (cutouts[p.object_id][0], f"{p.object_id}: {p.facts['fraction']:.2f}")
                for p in picks
                if p.object_id in cutouts
            ],
        )
        for name, picks in chosen.items()
    ]
    kind = "Simulated galaxies (no telescope saw them)" if is_simulated(catalog.schema) else "Galaxies"
    caption = f"{kind}: for each answer those of {summary.rows:,} with the surest expected vote fraction."
    with explain_write_errors(str(output)):
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        gallery_png(rows, caption, str(output))
    return str(output)


def _title(name: str) -> str:
    question, answer = name.rsplit("_", 1)
    return f"{question}: {answer}"
