"""Make a bundle of the network of Dieleman et al. small: a low-rank matrix in place of its largest one.

Nine tenths of its weights are in the first maxout layer, whose matrix is well approximated by one of rank 128. The
result is calibrated on the calibration and validation ids and judged on the test ids, as any other bundle is.

    python jobs/train/factor.py turned --rank 128 --catalog gz.cat --labels labels.csv --id GalaxyID --output small
"""

from __future__ import annotations

import argparse
import sys

from surveyproc.catalog import open_catalog
from surveyproc.cli._labels import add_label_arguments, read_labels_of
from surveyproc.errors import InputError, SurveyprocError
from surveyproc.models.bundle import DOMAIN_PREFIX, build_architecture, open_bundle
from surveyproc.models.dieleman import factor
from surveyproc.training.bundle import finish_bundle
from surveyproc.training.examples import load_examples


def main() -> int:
    """Read, factor, judge, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", help="name, path or URI of the bundle")
    parser.add_argument("--rank", type=int, default=128, help="singular values kept (default 128)")
    parser.add_argument("--catalog", required=True, metavar="CAT", help="cutout catalog with the pixels")
    add_label_arguments(parser)
    parser.add_argument("--output", required=True, metavar="BUNDLE", help="bundle folder to write")
    args = parser.parse_args()
    try:
        return write_factored(args)
    except SurveyprocError as error:
        print(f"factor: {error}", file=sys.stderr)
        return error.exit_code


def write_factored(args: argparse.Namespace) -> int:
    """Write the smaller bundle."""
    bundle = open_bundle(args.bundle)
    record = bundle.record
    if record["architecture"] != "dieleman" or record["arguments"].get("rank"):
        raise InputError(
            f"{bundle.name!r} is no network of Dieleman et al. with a full first maxout layer",
            where=args.bundle,
            fix="give a bundle of train=dieleman",
        )
    schema, labels = read_labels_of(args, print)
    examples = load_examples(open_catalog(args.catalog), labels, bundle.contract, print)
    arguments = record["arguments"] | {"rank": args.rank}
    model = build_architecture("dieleman", arguments).eval()
    weights = {k: v.float() for k, v in bundle.tensors.items() if not k.startswith(DOMAIN_PREFIX)}
    model.load_state_dict(factor(weights, args.rank))
    record = record | {"arguments": arguments}
    done = finish_bundle(args.output, record, model, examples, schema, bundle.contract)
    print(f"{args.output}: {done.record['metrics']['summary']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
