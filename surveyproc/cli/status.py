"""``surveyproc status``: how far a run is."""

from __future__ import annotations

import argparse

HELP = "say how far a run is"
EXAMPLES = """
surveyproc status out.run
surveyproc status out.run --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the state of a run."""
    from surveyproc.cli._output import print_json
    from surveyproc.runs import open_run

    opened = open_run(args.run)
    status = opened.status()
    if args.json:
        print_json(status)
        return 0
    print(f"{status['run']}: {status['state']}, begun {status['created']} with {status['code']}")
    print(f"  {status['shards_committed']:,} of {status['shards']:,} shards committed")
    print(f"  {status['rows']:,} rows + {status['rejects']:,} rejects of {status['rows_in']:,} rows")
    for name, rows in status["tables"].items():
        print(f"  {name:22} {rows:>12,} rows")
    if status["state"] != "finished":
        print("  to resume, give the command that began it again")
    return 0
