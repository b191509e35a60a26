"""``surveyproc similar``: the objects most like one."""

from __future__ import annotations

import argparse

HELP = "find the objects of a run that look most like one of them"
EXAMPLES = """
surveyproc similar out.run --id 100008 -k 10
surveyproc similar out.run --id 100008 --format csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--id", required=True, help="object id")
    parser.add_argument("-k", type=int, default=10, help="how many (default 10)")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument(
        "--json", action="store_const", const="json", dest="format", help="same as --format json"
    )


def run(args: argparse.Namespace) -> int:
    """Print the neighbours, nearest first."""
    from surveyproc.cli._output import print_rows
    from surveyproc.errors import UsageError
    from surveyproc.runs import open_run
    from surveyproc.search.flat import parse_id, similar

    if args.k < 1:
        raise UsageError(f"-k {args.k}: must be at least 1")
    opened = open_run(args.run)
    found = similar(opened, parse_id(opened, args.id), args.k)
    print_rows(
        ["rank", "object_id", "similarity"], [(n + 1, i, s) for n, (i, s) in enumerate(found)], args.format
    )
    return 0
