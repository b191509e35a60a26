"""``surveyproc evaluate``: how good a run's tables are, on galaxies nobody trained on."""

from __future__ import annotations

import argparse
from typing import Any

from surveyproc.cli._labels import add_label_arguments

HELP = "compare the tables of a run with labels, on test ids"
EXAMPLES = """
surveyproc evaluate morphology --run out.run --labels labels.csv
surveyproc evaluate morphology --run out.run --labels labels.csv --id GalaxyID --json
surveyproc evaluate morphology --run out.run --labels labels.csv --split validation
surveyproc evaluate morphology --run out.run --labels labels.csv --by redshift --plot evaluation.html
surveyproc evaluate morphology --run out.run --labels votes.parquet --schema gz2 --min-votes 20
"""
SPLIT_CHOICES = ("test", "calibration", "validation", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("what", choices=["morphology"], help="what to evaluate")
    parser.add_argument("--run", metavar="RUN", help="finished run")
    add_label_arguments(parser)
    parser.add_argument(
        "--split", choices=SPLIT_CHOICES, default="test", help="which ids (all includes training ids)"
    )
    parser.add_argument(
        "--min-votes",
        type=float,
        default=0,
        metavar="N",
        help="votes a question needs of a galaxy to be scored, where the labels have counts (default 0)",
    )
    parser.add_argument(
        "--by",
        metavar="COLUMN",
        help="repeat the figures in quantile bins of magnitude, size, redshift or any numeric column of the run, "
        "its catalog or the labels",
    )
    parser.add_argument("--plot", metavar="FILE.html", help="write a page with the diagrams")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the figures."""
    import sys

    from surveyproc.cli._common import require
    from surveyproc.cli._labels import read_labels_of
    from surveyproc.cli._output import print_json
    from surveyproc.errors import UsageError
    from surveyproc.evaluate.morphology import evaluate_run

    require(args, "run", "labels")
    if args.plot and not args.plot.lower().endswith((".html", ".htm")):
        raise UsageError(
            "the page is HTML", where=f"--plot {args.plot}", fix="give a name that ends in .html"
        )
    if args.split == "all":
        print(
            "WARNING: --split all includes TRAINING ids: these figures do not tell how good the bundle is.",
            file=sys.stderr,
        )
    schema, labels = read_labels_of(args, lambda line: print(line, file=sys.stderr))
    figures = evaluate_run(
        args.run,
        labels,
        schema,
        args.split,
        min_votes=args.min_votes,
        by=args.by,
        labels_path=args.labels,
        id_column=args.id,
    )
    if args.plot:
        from surveyproc.report.evaluation import write_evaluation

        write_evaluation(figures, args.plot, args.run, args.labels)
        print(f"page: {args.plot}", file=sys.stderr)
    if args.json:
        print_json(figures)
    else:
        _print(figures, args)
    return 0


def _print(figures: dict[str, Any], args: argparse.Namespace) -> None:
    from surveyproc.cli._output import print_rows

    ids, answers, spread = figures["ids"], figures["answers"], figures["coverage"]
    split = "all ids, TRAINING IDS INCLUDED" if args.split == "all" else f"{args.split} ids"
    low, high = figures["rmse_interval"]
    print(
        f"RMSE {figures['rmse']:.4f} (95 % of resampled galaxies: {low:.4f} to {high:.4f}) over "
        f"{figures['columns']} answers of {figures['n']} galaxies ({split}); "
        f"always predicting their mean gives {figures['constant_rmse']:.4f}"
    )
    print(
        f"ids: {ids['matched']} in run and labels, {ids['only_in_labels']} only in the labels, "
        f"{ids['only_in_run']} only in the run"
    )
    for where, names in (("labels", answers["only_in_labels"]), ("run", answers["only_in_run"])):
        if names:
            print(f"not compared: {len(names)} answers only in the {where}: {', '.join(names)}")
    names = "question,RMSE,of mean,asked,accuracy,balanced,agreed,accuracy,balanced,constant,covered"
    print_rows(names.split(","), _question_rows(figures), "table")
    print(
        "of mean: RMSE of always predicting the mean; asked: galaxies where at least half of the volunteers were asked;\n"
        "balanced: mean accuracy over the answers; agreed: galaxies where more than 0.8 of those asked gave one answer;\n"
        "constant: accuracy there of always giving the most common answer; covered: share of votes inside the predicted\n"
        "90 % interval, where a question has 5 votes or more (in brackets where 99 % of honest ones lie)"
    )
    if spread:
        pooled = spread["pooled"]
        nats = figures["log_likelihood"]["nats_per_galaxy"]
        print(
            f"90 % intervals hold {_share(pooled['coverage'])} of the votes ({pooled['n']} answers of "
            f"{pooled['galaxies']} galaxies); log likelihood {nats:.2f} nats per galaxy; votes are {figures['votes']}"
        )
    if "groups" in figures:
        by = figures["by"]
        without = f"; {by['without']} galaxies have no value" if by["without"] else ""
        print(f"\naccuracy by {by['column']} (from the {by['found_in']}{without})")
        print_rows(
            [by["column"], "galaxies", "RMSE", "covered", *figures["questions"]],
            _group_rows(figures),
            "table",
        )


def _question_rows(figures: dict[str, Any]) -> list[list[Any]]:
    spread = figures["coverage"]["questions"] if figures["coverage"] else {}
    return [
        [
            question,
            _error(f["rmse"]),
            _error(f["constant_rmse"]),
            f["n"],
            _share(f["accuracy"]),
            _share(f["balanced_accuracy"]),
            f["n_high_agreement"],
            _share(f["accuracy_high_agreement"]),
            _share(f["balanced_accuracy_high_agreement"]),
            _share(f["constant_high_agreement"]),
            _covered(spread.get(question)),
        ]
        for question, f in figures["questions"].items()
    ]


def _group_rows(figures: dict[str, Any]) -> list[list[Any]]:
    return [
        [
            f"{group['low']:.4g} to {group['high']:.4g}",
            group["n"],
            f"{group['rmse']:.4f}",
            _share(group["coverage"]["pooled"]["coverage"]) if group["coverage"] else "-",
            *(_share(f["accuracy"]) for f in group["questions"].values()),
        ]
        for group in figures["groups"]
    ]


def _covered(entry: dict[str, Any] | None) -> str:
    if entry is None or entry["coverage"] is None:
        return "-"
    low, high = entry["range99"]
    return f"{entry['coverage']:.3f} ({low:.2f}-{high:.2f})"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
