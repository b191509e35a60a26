"""``surveyproc demo``: a simulated survey, the main job on it, and the report."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

HELP = "simulate a small survey, run the main job on it and write the report"
EXAMPLES = """
surveyproc demo
surveyproc demo --output /tmp/demo --galaxies 500 --seed 1
surveyproc demo --output /tmp/demo cluster=none engine.views=1
"""
OVERRIDES = True
GALAXIES = 2000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--output", metavar="DIR", default="demo", help="folder for everything (default ./demo)"
    )
    parser.add_argument(
        "--galaxies", metavar="N", type=int, default=GALAXIES, help=f"how many (default {GALAXIES})"
    )
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="which survey (default 0)")
    parser.add_argument("--bundle", metavar="NAME", help="bundle: name, path or URI (default gz2-fast)")
    parser.add_argument("--verbose", action="store_true", help="let Ray talk")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Simulate, run, report; each step that is done already is left alone."""
    from surveyproc import api
    from surveyproc.report import write_report

    folder = Path(args.output)
    catalog, run_folder = folder / "catalog", folder / "run"
    _check(folder, catalog, args.galaxies, args.seed)
    if not catalog.is_dir():
        _simulate(catalog, args.galaxies, args.seed)
    here = ["cluster=local"] if not any(o.startswith("cluster=") for o in args.overrides) else []
    result = api.run(
        input=str(catalog.absolute()),  # so that the report finds it from any folder
        output=str(run_folder),
        bundles=[args.bundle or "gz2-fast"],
        overrides=[*here, *args.overrides],
        verbose=args.verbose,
    )
    report = run_folder / "report.html"
    finished = result.nothing_to_do and report.is_file()
    if not finished:
        write_report(str(run_folder))
    if args.json:
        from surveyproc.cli._output import print_json

        print_json(
            {
                "catalog": str(catalog),
                "run": str(run_folder),
                "report": str(report),
                "rows": result.rows,
                "rejects": result.rejects,
                "seconds": result.seconds,
                "nothing_to_do": finished,
            }
        )
    else:
        print("\n".join(_lines(result, catalog, run_folder, report, finished)))
    return 0


def _simulate(catalog: Path, galaxies: int, seed: int) -> None:
    from surveyproc.errors import ResourceError
    from surveyproc.progress import Progress

    try:
        from surveyproc.simulate.catalog import simulate_catalog
    except ModuleNotFoundError as error:
        if error.name != "galsim":
            raise
        raise ResourceError(
            "GalSim is not installed",
            where="surveyproc demo",
            fix="make env, or: pip install 'surveyproc[sim]'",
        ) from error
    progress = Progress("simulating", galaxies)
    simulate_catalog(catalog, galaxies, seed, progress.set)
    progress.close()


def _check(folder: Path, catalog: Path, galaxies: int, seed: int) -> None:
    """Refuse a folder that holds something else, or a demo of other galaxies."""
    from surveyproc.catalog import open_catalog, read_batches
    from surveyproc.errors import InputError, UsageError
    from surveyproc.simulate.marker import is_simulated, seed_of

    if catalog.is_dir():
        opened = open_catalog(str(catalog))
        if is_simulated(opened.schema):
            first = next(read_batches(opened.uri, opened.files[0].path, [0], 1, ["object_id"]))
            stored = seed_of(first["object_id"][0].as_py())
            if (opened.rows, stored) == (galaxies, seed):
                return
            raise UsageError(
                f"this demo was begun with --galaxies {opened.rows} --seed {stored}",
                where=str(folder),
                fix="give the same numbers to continue it, or another --output",
            )
    if folder.is_file() or (folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir())):
        raise InputError(
            "the output folder holds something else", where=str(folder), fix="give another --output"
        )


def _lines(result: Any, catalog: Path, run_folder: Path, report: Path, finished: bool) -> list[str]:
    from surveyproc.runs import open_run

    some_id = open_run(str(run_folder)).dataset("embeddings").head(1, columns=["object_id"])["object_id"][0]
    run_name = shlex.quote(str(run_folder))
    if finished:
        first = f"the demo is finished already: {result.rows:,} rows, {result.rejects:,} rejects"
    else:
        first = f"{result.rows:,} rows + {result.rejects:,} rejects in {result.seconds:.1f} s"
    query = 'SELECT object_id, "smooth-or-featured_smooth_fraction" FROM morphology ORDER BY 2 DESC LIMIT 5'
    truth = "SELECT truth_type, count(*) FROM catalog GROUP BY 1"
    return [
        f"{first} (simulated galaxies)",
        f"  catalog  {catalog}",
        f"  run      {run_folder}",
        f"  report   {report}   <- open it in a browser",
        "next:",
        f"  surveyproc verify {run_name}",
        f"  surveyproc sql {run_name} {shlex.quote(query)}",
        f"  surveyproc sql {shlex.quote(str(catalog))} {shlex.quote(truth)}",
        f"  surveyproc similar {run_name} --id {some_id} -k 10",
    ]
