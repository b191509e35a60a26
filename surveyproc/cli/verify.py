"""``surveyproc verify``: read a run back and check it."""

from __future__ import annotations

import argparse

HELP = "read a run back and check every file, row and id"
EXAMPLES = """
surveyproc verify out.run
surveyproc verify out.run --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print one line for each check; exit code 4 when one fails."""
    from surveyproc.cli._output import print_json
    from surveyproc.runs import open_run
    from surveyproc.runs.verify import verify_run

    checks = []
    for check in verify_run(open_run(args.run)):
        checks.append(check)
        if not args.json:
            print(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.detail}")
    failed = sum(not c.passed for c in checks)
    if args.json:
        print_json({"passed": not failed, "checks": [vars(c) for c in checks]})
    else:
        print(f"{len(checks) - failed} checks passed, {failed} failed")
    return 4 if failed else 0
