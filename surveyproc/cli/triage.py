"""``surveyproc triage``: what the model may decide, and what experts should see."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from surveyproc.cli._labels import add_label_arguments

if TYPE_CHECKING:
    from surveyproc.evaluate.triage import Triage
    from surveyproc.storage import Storage

HELP = "split a run into confident answers and a list for experts, at a stated agreement"
EXAMPLES = """
surveyproc triage out.run --output triage
surveyproc triage out.run --agreement 0.9 --question smooth-or-featured --output triage
surveyproc triage out.run --labels labels.csv --id GalaxyID --output triage --json
"""
EPILOG = (
    "writes confident.parquet, experts.csv (most uncertain first), triage.json (the curves) and triage.html. The agreement\n"
    "of an answer is 1 - H(p)/log n of the expected fractions of its question's n answers (Dieleman et al. 2015)."
)
ENOUGH = 0.99
FILES = ("confident.parquet", "experts.csv", "triage.json", "triage.html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--agreement", type=float, default=0.8, metavar="A", help="from 0 to 1 (default 0.8)")
    parser.add_argument(
        "--question", action="append", metavar="Q", help="of this question only; may be repeated"
    )
    add_label_arguments(parser)
    parser.add_argument(
        "--split",
        choices=("test", "calibration", "validation"),
        default="test",
        help="which ids of the labels measure the accuracy (default test)",
    )
    parser.add_argument("--output", metavar="DIR", help="folder to write into")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier triage")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Write the files and say what is in them."""
    import sys

    from surveyproc.cli._common import require
    from surveyproc.cli._labels import read_labels_of
    from surveyproc.cli._output import print_json
    from surveyproc.errors import UsageError
    from surveyproc.evaluate.triage import triage
    from surveyproc.runs import open_run
    from surveyproc.storage import Storage

    require(args, "output")
    if not 0 <= args.agreement <= 1:
        raise UsageError(f"--agreement {args.agreement:g}: must be from 0 to 1")
    storage = Storage(args.output)
    if (there := [name for name in FILES if storage.exists(name)]) and not args.overwrite:
        raise UsageError(
            f"there is a triage already ({there[0]})",
            where=args.output,
            fix="pass another --output, or --overwrite",
        )
    labels = schema = None
    if args.labels:
        schema, labels = read_labels_of(args, lambda line: print(line, file=sys.stderr))
    found = triage(open_run(args.run), args.agreement, args.question, labels, schema, args.split)
    summary = _summary(found, args)
    _write(storage, found, summary, args.run)
    if args.json:
        print_json(summary)
    else:
        _print(summary, args.output)
    return 0


def _summary(found: Triage, args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    expected = found.confident["expected_accuracy"].to_numpy()
    return {
        "run": args.run,
        "agreement": args.agreement,
        "agreement_is": "1 - H(p)/log n of the expected vote fractions",
        "split": args.split if args.labels else None,
        "confident": found.confident.num_rows,
        "experts": found.experts.num_rows,
        "expected_accuracy": float(np.mean(expected, dtype=np.float64)) if len(expected) else None,
        "questions": {
            name: next(point for point in curve if point["agreement"] == args.agreement)
            | {"enough_for_0.99": _enough(curve)}
            for name, curve in found.curves.items()
        },
    }


def _enough(curve: list[dict[str, Any]]) -> dict[str, float] | None:
    """Agreement from which 0.99 of the answers are expected to be right, and the share kept there."""
    wrong = [n for n, point in enumerate(curve) if (point["expected_accuracy"] or 1.0) < ENOUGH]
    point = curve[wrong[-1] + 1 if wrong else 0] if not wrong or wrong[-1] + 1 < len(curve) else None
    return {"agreement": point["agreement"], "kept": point["kept"]} if point and point["kept"] else None


def _write(storage: Storage, found: Triage, summary: dict[str, Any], run: str) -> None:
    import io
    import json

    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    from surveyproc.report.triage import render_triage

    parquet, table = io.BytesIO(), io.BytesIO()
    pq.write_table(found.confident, parquet, compression="zstd")
    pa_csv.write_csv(found.experts, table)
    storage.replace("confident.parquet", parquet.getvalue())
    storage.replace("experts.csv", table.getvalue())
    storage.replace("triage.json", json.dumps(summary | {"curves": found.curves}, indent=1).encode())
    storage.replace("triage.html", render_triage(summary, found.curves, run).encode())


def _print(summary: dict[str, Any], output: str) -> None:
    from surveyproc.cli._output import print_rows

    expected = summary["expected_accuracy"]
    print(
        f"{summary['confident']:,} answers with agreement of {summary['agreement']:g} or more"
        f"{'' if expected is None else f' (expected accuracy {expected:.3f})'}, {summary['experts']:,} for experts"
    )
    names = ["question", "agreement", "kept", "expected accuracy", "0.99 from", "kept"]
    measured = summary["split"] is not None
    if measured:
        names += [f"{summary['split']} ids", "measured accuracy", "expected of these"]
    rows = []
    for question, point in summary["questions"].items():
        enough = point["enough_for_0.99"] or {"agreement": None, "kept": None}
        row = [question, point["agreement"], _share(point["kept"]), _share(point["expected_accuracy"])]
        row += [enough["agreement"], _share(enough["kept"])]
        if measured:
            m = point["measured"]
            row += [m["n"], _share(m["accuracy"]), _share(m["expected_accuracy"])]
        rows.append(row)
    print_rows(names, rows, "table")
    folder = output.rstrip("/")
    print("written: " + ", ".join(f"{folder}/{name}" for name in FILES))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
