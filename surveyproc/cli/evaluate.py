"""``surveyproc evaluate``: how good a run's tables are, on galaxies nobody trained on."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "compare the tables of a run with labels, on test ids"
EXAMPLES = """
surveyproc evaluate morphology --run out.run --labels labels.csv
surveyproc evaluate morphology --run out.run --labels labels.csv --id GalaxyID --json
surveyproc evaluate morphology --run out.run --labels labels.csv --split validation
"""
SPLIT_CHOICES = ("test", "calibration", "validation", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("what", choices=["morphology"], help="what to evaluate")
    parser.add_argument("--run", metavar="RUN", help="finished run")
    parser.add_argument("--labels", metavar="L", help="CSV or Parquet of joint vote fractions")
    parser.add_argument(
        "--id", metavar="COL", help="id column of the labels (default object_id, GalaxyID, id_str)"
    )
    parser.add_argument("--schema", default="galaxy-challenge", help="VoteSchema name or JSON file")
    parser.add_argument(
        "--split", choices=SPLIT_CHOICES, default="test", help="which ids (all includes training ids)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the figures."""
    import sys

    from surveyproc.cli._common import require
    from surveyproc.cli._output import print_json
    from surveyproc.evaluate.run_tables import evaluate_run
    from surveyproc.votes import load_schema
    from surveyproc.votes.labels import read_labels

    require(args, "run", "labels")
    if args.split == "all":
        print(
            "WARNING: --split all includes TRAINING ids: these figures do not tell how good the bundle is.",
            file=sys.stderr,
        )
    schema = load_schema(args.schema)
    labels = read_labels(args.labels, schema, args.id)
    figures = evaluate_run(args.run, labels, schema, args.split)
    if args.json:
        print_json(figures)
    else:
        _print_table(figures, args)
    return 0


def _print_table(figures: dict[str, Any], args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    ids = figures["ids"]
    console = Console(soft_wrap=True)
    split = "all ids, TRAINING IDS INCLUDED" if args.split == "all" else f"{args.split} ids"
    console.print(
        f"RMSE {figures['rmse']:.4f} over {figures['columns']} answers of {figures['n']} galaxies ({split}); "
        f"always predicting their mean gives {figures['constant_rmse']:.4f}"
    )
    console.print(
        f"ids: {ids['matched']} in run and labels, {ids['only_in_labels']} only in the labels, "
        f"{ids['only_in_run']} only in the run"
    )
    table = Table(box=None, pad_edge=False)
    for name in ("question", "RMSE", "of mean", "asked", "accuracy", "agreed", "accuracy", "constant"):
        table.add_column(name, justify="left" if name == "question" else "right", no_wrap=True)
    for question, f in figures["questions"].items():
        table.add_row(
            question,
            f"{f['rmse']:.4f}",
            f"{f['constant_rmse']:.4f}",
            str(f["n"]),
            _share(f["accuracy"]),
            str(f["n_high_agreement"]),
            _share(f["accuracy_high_agreement"]),
            _share(f["constant_high_agreement"]),
        )
    console.print(table)
    console.print(
        "of mean: RMSE of always predicting the mean; asked: galaxies where at least half of the volunteers were "
        "asked; agreed: those where more than 0.8 of them gave one answer; constant: accuracy there of always "
        "giving the most common answer"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
