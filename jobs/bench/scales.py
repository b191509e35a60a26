"""Two ways to calibrate a bundle's spreads, by resampling: matched coverage against maximum likelihood.

The galaxies of the calibration and validation splits are cut into random halves; each way finds the factor of
each question on one half (on a grid), and the other half says how many votes the 90 % intervals hold. Test ids
are not touched. The bundle must be uncalibrated, or the factors are relative to its own.

    python jobs/bench/scales.py --bundle my-bundle --catalog gz.cat --labels labels.csv
"""

from __future__ import annotations

import argparse

import numpy as np

from surveyproc.catalog import open_catalog
from surveyproc.identifiers import splitmix64
from surveyproc.inference.calibration import LEVEL, MIN_VOTES, inside, scaled, vote_tails, whole_counts
from surveyproc.inference.likelihood import vote_log_likelihood
from surveyproc.models.bundle import open_bundle
from surveyproc.training.examples import load_examples
from surveyproc.training.judge import FIT_SPLITS, predict_components
from surveyproc.votes import VoteSchema, pseudo_counts
from surveyproc.votes.counts import question_totals
from surveyproc.votes.labels import read_labels

GRID = np.geomspace(0.03, 4, 41)
HALVES = 400


def main() -> None:
    """Print the mean coverage on the other half and its scatter, for each way and question."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag in ("--bundle", "--catalog", "--labels"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--id")
    args = parser.parse_args()
    bundle = open_bundle(args.bundle)
    schema = VoteSchema.from_dict(bundle.record["outputs"]["vote_schema"])
    labels = read_labels(args.labels, schema, args.id)
    examples = load_examples(open_catalog(args.catalog), labels, bundle.contract)
    model, how = bundle.build(), bundle.record["inference"]
    parts = [examples[split] for split in FIT_SPLITS]
    components = np.concatenate(
        [predict_components(model, e.pixels, e.keys, schema, how["views"], how["draws"])[0] for e in parts],
        axis=1,
    )
    votes = np.concatenate(
        [
            pseudo_counts(e.joint.double().numpy(), schema) if e.counts is None else e.counts.numpy()
            for e in parts
        ]
    )
    compare(components, whole_counts(votes, schema), schema)


def compare(components: np.ndarray, votes: np.ndarray, schema: VoteSchema) -> None:
    """Fit on halves, judge on the others, print."""
    enough = question_totals(votes, schema) >= MIN_VOTES
    covered = np.empty((len(GRID), len(votes), len(schema.questions)))
    likely = np.empty_like(covered)
    for n, factor in enumerate(GRID):
        a = scaled(components, np.full(len(schema.questions), factor), schema)
        shares = inside(*vote_tails(a, votes, schema))
        covered[n] = np.stack([shares[:, s].mean(1) for s in schema.slices.values()], axis=1)
        likely[n] = vote_log_likelihood(a, votes, schema)
    found: dict[str, list[list[float]]] = {"matched coverage": [], "maximum likelihood": []}
    for draw in range(HALVES):
        first = splitmix64(np.arange(len(votes), dtype=np.uint64) + np.uint64(draw << 32)) % 2 == 0
        for way, results in found.items():
            row = []
            for q in range(len(schema.questions)):
                fit, judge = first & enough[:, q], ~first & enough[:, q]
                if way == "matched coverage":
                    best = np.abs(covered[:, fit, q].mean(1) - LEVEL).argmin()
                else:
                    best = likely[:, fit, q].mean(1).argmax()
                row.append(float(covered[best, judge, q].mean()))
            results.append(row)
    for way, results in found.items():
        table = np.array(results)
        print(f"{way}: {HALVES} halves of {len(votes)} galaxies")
        for name, mean, spread in zip(schema.slices, table.mean(0), table.std(0)):
            print(f"  {name:24} {mean:.3f} +- {spread:.3f}")


if __name__ == "__main__":
    main()
