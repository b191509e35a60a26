"""``surveyproc plan``: what a run would do, from the footers alone."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "say what a run would read, compute and write, without beginning it"
EXAMPLES = """
surveyproc plan --input gz.cat --output out.run
surveyproc plan --input gz.cat --output out.run engine.views=1 --json
"""
OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--input", metavar="CAT", help="cutout catalog (folder or URI)")
    parser.add_argument("--output", metavar="RUN", help="run folder")
    parser.add_argument("--bundle", nargs="+", action="extend", metavar="NAME", help="bundles (default gz2)")
    parser.add_argument("--force-domain", action="store_true", help="plan outside the bundles' domain")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    from surveyproc.api import DEFAULT_BUNDLE
    from surveyproc.cli._common import require, split_overrides
    from surveyproc.cli._output import print_json
    from surveyproc.config.run import load_run_config
    from surveyproc.distributed.job import draft

    require(args, "input", "output")
    bundles, overrides = split_overrides(args.bundle, args.overrides)
    config = load_run_config(overrides)
    drafted = draft(args.input, args.output, bundles or [DEFAULT_BUNDLE], config, args.force_domain)
    facts = _describe(drafted)
    if args.json:
        print_json(facts)
        return 0
    print(
        f"input    {facts['files']:,} files, {facts['rows']:,} rows, {facts['bytes'] / 1e6:,.1f} MB to read"
    )
    print(
        f"engine   {', '.join(facts['bundles'])}: {facts['encoder_passes']} encoder pass(es), {facts['precision']}"
    )
    print(f"work     {facts['shards']:,} shards, {facts['shards_committed']:,} committed already")
    print(f"cluster  {facts['executor']}, {facts['actors']} engines, about {facts['seconds']:,.0f} s left")
    print(f"output   {args.output}: {', '.join(facts['tables'])}")
    return 0


def _describe(drafted: Any) -> dict[str, Any]:
    from surveyproc.runs.ledger import Ledger

    shards = list(drafted.shards())
    done = Ledger(drafted.storage).committed("shard-")
    left = sum(s.rows for s in shards if s.unit not in done)
    return {
        "files": len(drafted.catalog.files),
        "rows": drafted.catalog.rows,
        "bytes": drafted.catalog.bytes,
        "bundles": [b.name for b in drafted.bundles],
        "encoder_passes": drafted.passes,
        "device": drafted.task.settings.device,
        "precision": drafted.task.settings.precision,
        "shards": len(shards),
        "shards_committed": len(done),
        "executor": drafted.executor_for(left),
        "actors": drafted.actors,
        "seconds": left * drafted.ms_per_cutout / 1000 / drafted.actors,
        "tables": [*drafted.provenance, "rejects"],
    }
