"""``surveyproc publish``: the tables of runs as HATS, FITS, VOTable or Parquet."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from surveyproc.cli._common import names

HELP = "publish the tables of runs as HATS, FITS, VOTable or Parquet"
EXAMPLES = """
surveyproc publish out.run --format hats --output gz.hats
surveyproc publish out.run --format fits --tables morphology --output gz-fits
surveyproc publish north.run south.run --format hats --output survey.hats
surveyproc publish out.run --format parquet --names zoobot
"""
EPILOG = (
    "Several runs are published as one; an object that is in several comes from the first. HATS gives a "
    "collection: a catalog for each table, the first with a margin, the others as its extensions. FITS, VOTable "
    "and Parquet give one file for each table. The same command again resumes."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--format", choices=("hats", "fits", "votable", "parquet"))
    parser.add_argument("--output", metavar="DIR", help="folder to create (default: NAME.FORMAT here)")
    parser.add_argument("--names", choices=("zoobot",), help="column names of Zoobot's tables")
    parser.add_argument("--tables", type=names, metavar="NAME,...", help="tables to publish (default: all)")
    parser.add_argument(
        "--margin", type=float, default=10.0, metavar="ARCSEC", help="width of the HATS margin (10); 0: none"
    )
    parser.add_argument("--accept-code", action="store_true", help="resume what another version began")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Publish, and say what was written."""
    from surveyproc.cli._common import require, resumable
    from surveyproc.cli._output import print_json
    from surveyproc.progress import Progress
    from surveyproc.runs.publish import publish

    require(args, "format")
    output = args.output or _default_output(args.runs[0], args.format)
    progress = Progress("publish", 0)
    with resumable():
        about = publish(
            args.runs, output, args.format, args.names, args.tables, args.margin, args.accept_code, progress
        )
    progress.close()
    if args.json:
        print_json({"output": output, **about})
    else:
        print("\n".join(_lines(output, about)))
    return 0


def _default_output(run: str, form: str) -> str:
    return f"{run.rstrip('/').rsplit('/', 1)[-1].removesuffix('.run')}.{form}"


def _lines(output: str, about: dict[str, Any]) -> list[str]:
    before = ", published before: nothing to do" if about["nothing_to_do"] else ""
    lines = [f"{output}: {about['format']} of {', '.join(about['runs'])}{before}"]
    for name, table in about["tables"].items():
        size = sum(file["bytes"] for file in table["files"]) / 1e6
        count = len(table["files"])
        place = f"{name}/ ({count} files)" if count > 1 or "/" in table["files"][0]["path"] else ""
        lines.append(f"  {name:22} {table['rows']:>12,} rows  {size:,.1f} MB  {place}".rstrip())
    if about["duplicates"]:
        lines.append(f"  {about['duplicates']:,} objects of later runs are left out: an earlier run has them")
    if about["format"] == "hats":
        lines.append(f"open it in Python:\n  lsdb.open_catalog({output!r})")
        lines.append(f"or here:\n  surveyproc cone {shlex.quote(output)} --ra RA --dec DEC --radius ARCSEC")
    else:
        paths = [f"{output}/{table['files'][0]['path']}" for table in about["tables"].values()]
        lines.append("open it with TOPCAT or astropy:\n  " + "\n  ".join(shlex.quote(path) for path in paths))
    return lines
