"""Combine morphology bundles that were trained apart into one, calibrate it, and judge it on the test ids.

    python jobs/train/ensemble.py one two --catalog gz.cat --labels labels.csv --id GalaxyID --output both

Each is a component of the predicted mixture: expected fractions are the mean over the members, and what they
disagree in widens the intervals. ``--validation`` only prints the RMSE on validation and calibration ids, to choose
among members without looking at a test id.
"""

from __future__ import annotations

import argparse
import sys

import torch

from surveyproc.catalog import open_catalog
from surveyproc.cli._labels import add_label_arguments, read_labels_of
from surveyproc.errors import SurveyprocError
from surveyproc.models.bundle import open_bundle
from surveyproc.training.ensemble import OVERSAMPLE, combine, shared_contract, write_ensemble
from surveyproc.training.examples import load_examples
from surveyproc.training.predict import joint_rmse, predict


def main() -> int:
    """Read, combine, and judge or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", help="names, paths or URIs of the members")
    parser.add_argument("--catalog", required=True, metavar="CAT", help="cutout catalog with the pixels")
    add_label_arguments(parser)
    parser.add_argument(
        "--oversample", type=float, default=OVERSAMPLE, help="pixels for one of the finest member"
    )
    parser.add_argument(
        "--views", type=int, choices=(1, 2, 4, 8), help="symmetries averaged (default: the members')"
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--output", metavar="BUNDLE", help="bundle folder to write")
    where.add_argument(
        "--validation", action="store_true", help="print figures of ids that are no test ids; write nothing"
    )
    args = parser.parse_args()
    try:
        return ensemble(args)
    except SurveyprocError as error:
        print(f"ensemble: {error}", file=sys.stderr)
        return error.exit_code


def ensemble(args: argparse.Namespace) -> int:
    """Write the ensemble's bundle, or print what it would be worth."""
    bundles = [open_bundle(name) for name in args.bundles]
    contract = shared_contract(bundles, args.oversample)
    views = args.views or max(bundle.record["inference"]["views"] for bundle in bundles)
    schema, labels = read_labels_of(args, print)
    catalog = open_catalog(args.catalog)
    if args.output:
        examples = load_examples(catalog, labels, contract, print)
        done = write_ensemble(args.output, bundles, contract, examples, schema, views)
        print(f"{args.output}: {done.record['metrics']['summary']}")
        return 0
    examples = load_examples(catalog, labels, contract, print, splits=("validation", "calibration"))
    model, _ = combine(bundles, contract, examples["calibration"])
    said = {
        split: predict(model, examples[split].pixels, schema, views)
        for split in ("validation", "calibration")
    }
    for split, predicted in said.items():
        print(f"{split}: RMSE {joint_rmse(predicted, examples[split].joint):.4f} (n={len(predicted)})")
    both = torch.cat([examples[split].joint for split in said])
    print(f"both: RMSE {joint_rmse(torch.cat(list(said.values())), both):.4f} (n={len(both)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
