"""``surveyproc verify``: read a run, a catalog or a published folder back and check it."""

from __future__ import annotations

import argparse

from surveyproc.cli._common import add_leaf, leaf_of

HELP = "read a run, a catalog or a published folder back and check every file and row"
EXAMPLES = """
surveyproc verify out.run
surveyproc verify out.run --json
surveyproc verify survey.hats
surveyproc verify gz.cat
"""
EPILOG = "Catalogs of ours hold checksums.sha256, which `sha256sum --check` reads too. HATS catalogs may be anybody's."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("run", metavar="RUN_OR_CATALOG")
    add_leaf(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print one line for each check; exit code 4 when one fails."""
    from surveyproc.cli._output import print_json
    from surveyproc.runs import open_run
    from surveyproc.runs.run import is_run
    from surveyproc.runs.verify import verify_run
    from surveyproc.runs.verify_catalog import verify_catalog

    checks = []
    is_a_run = is_run(args.run)
    for check in verify_run(open_run(args.run)) if is_a_run else verify_catalog(args.run, leaf_of(args)):
        checks.append(check)
        if not args.json:
            print(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.detail}")
    failed = sum(not c.passed for c in checks)
    if args.json:
        print_json({"passed": not failed, "checks": [vars(c) for c in checks]})
    else:
        print(f"{len(checks) - failed} checks passed, {failed} failed")
    return 4 if failed else 0
