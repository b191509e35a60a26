"""``surveyproc models``: the bundles that come with the package."""

from __future__ import annotations

import argparse

HELP = "list the bundles that come with the package"
EXAMPLES = """
surveyproc models
surveyproc models --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print name, input and figures of each bundle."""
    from surveyproc.cli._output import print_json, print_rows
    from surveyproc.models.bundle import open_bundle, shipped_bundles

    bundles = [open_bundle(name) for name in shipped_bundles()]
    if args.json:
        print_json([b.record for b in bundles])
        return 0
    rows = [
        (
            b.name,
            " ".join(b.contract.bands),
            f"{b.contract.size} px",
            f"{sum(t.numel() for t in b.tensors.values()) / 1e6:.1f} M",
            b.record.get("metrics", {}).get("summary", ""),
        )
        for b in bundles
    ]
    print_rows(["bundle", "bands", "input", "parameters", "on test ids"], rows, "table")
    return 0
