"""Calibrate a bundle on labelled cutouts, judge it on their test ids, and write it as a new bundle.

The weights do not move, and so no expected fraction does: only the widths of the intervals and what
``domain_distance`` is measured from.

    python jobs/train/recalibrate.py gz2 --catalog gz.cat --labels labels.csv --id GalaxyID --output gz2-mine
"""

from __future__ import annotations

import argparse
import sys

from surveyproc.catalog import open_catalog
from surveyproc.cli._labels import add_label_arguments, read_labels_of
from surveyproc.errors import InputError, SurveyprocError
from surveyproc.models.bundle import open_bundle
from surveyproc.training.bundle import finish_bundle
from surveyproc.training.examples import load_examples
from surveyproc.votes import VoteSchema


def main() -> int:
    """Read, calibrate, judge, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", help="name, path or URI of the bundle")
    parser.add_argument("--catalog", required=True, metavar="CAT", help="cutout catalog with the pixels")
    add_label_arguments(parser)
    parser.add_argument("--output", required=True, metavar="BUNDLE", help="bundle folder to write")
    args = parser.parse_args()
    try:
        return recalibrate(args)
    except SurveyprocError as error:
        print(f"recalibrate: {error}", file=sys.stderr)
        return error.exit_code


def recalibrate(args: argparse.Namespace) -> int:
    """Write the calibrated bundle."""
    bundle = open_bundle(args.bundle)
    own = VoteSchema.from_dict(bundle.record["outputs"]["vote_schema"])
    schema, labels = read_labels_of(args, print)
    if schema.columns != own.columns:
        raise InputError(
            f"the bundle answers {own.name!r}, the labels are of {schema.name!r}",
            where=args.bundle,
            fix="pass --schema with the bundle's tree",
        )
    examples = load_examples(open_catalog(args.catalog), labels, bundle.contract, print)
    done = finish_bundle(args.output, bundle.record, bundle.build(), examples, schema, bundle.contract)
    print(f"{args.output}: {done.record['metrics']['summary']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
