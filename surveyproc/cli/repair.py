"""``surveyproc repair``: delete leftovers and make anew what follows from the commits."""

from __future__ import annotations

import argparse

HELP = "delete what cut-off attempts left, and rebuild a missing manifest from the commits"
EXAMPLES = """
surveyproc repair out.run --dry-run
surveyproc repair out.run
surveyproc repair out.run --json
"""
EPILOG = "safe at any time, also while the run is worked on; an unfinished run is told (exit code 4)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print one line for each thing mended; exit code 4 when the run is unfinished or cannot be mended."""
    from surveyproc.cli._output import print_json
    from surveyproc.errors import PartialError
    from surveyproc.runs.repair import repair_run
    from surveyproc.storage import Storage

    mends, left = [], None
    try:
        for mend in repair_run(Storage(args.run), args.dry_run):
            mends.append(mend)
            if not args.json:
                print(f"{'would ' if args.dry_run else ''}{mend.action} {mend.subject}: {mend.reason}")
    except PartialError as error:
        left = error
    if args.json:
        print_json({"dry_run": args.dry_run, "mends": [vars(m) for m in mends], "left": left and left.what})
    if left is not None:
        raise left
    if not args.json:
        print(f"{len(mends) or 'nothing'} to mend" if args.dry_run or not mends else f"{len(mends)} mended")
        print(f"next:\n  surveyproc verify {args.run}")
    return 0
