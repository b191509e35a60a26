"""``surveyproc status``: how far a run is, or a catalog that is being made."""

from __future__ import annotations

import argparse

HELP = "say how far a run is, or a catalog that is being made, and what resumes it"
EXAMPLES = """
surveyproc status out.run
surveyproc status out.run --json
surveyproc status gz.cat
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("run", metavar="RUN_OR_CATALOG")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the state of a run or a catalog."""
    from surveyproc.cli._output import print_json
    from surveyproc.runs import open_run
    from surveyproc.runs.record import resume_command
    from surveyproc.runs.run import is_run
    from surveyproc.runs.unfinished import catalog_status, status_lines

    if not is_run(args.run):
        found = catalog_status(args.run)
        if args.json:
            print_json(found)
        else:
            print("\n".join(status_lines(found)))
        return 0
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
        print(f"  to resume: {resume_command(opened.record)}")
    return 0
