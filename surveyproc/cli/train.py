"""``surveyproc train``: labelled cutouts to a bundle."""

from __future__ import annotations

import argparse

HELP = "train a model on labelled cutouts and write a bundle"
EXAMPLES = """
surveyproc train morphology --catalog gz.cat --labels labels.csv --id GalaxyID --output my-bundle
surveyproc train morphology --catalog gz.cat --labels labels.csv --output quick train.epochs=5
surveyproc run --input gz.cat --output out.run --bundle my-bundle
"""
OVERRIDES = True
GZ2_DATA = "Galaxy Zoo 2 vote fractions of the Galaxy Challenge on SDSS gri display images"
CITATIONS = [
    "Willett et al. 2013, MNRAS 435, 2835 (Galaxy Zoo 2)",
    "Dieleman, Willett & Dambre 2015, MNRAS 450, 1441 (rotation-invariant networks, Galaxy Challenge)",
    "Walmsley et al. 2022, MNRAS 509, 3966 (Dirichlet vote fractions, Zoobot)",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", choices=["morphology"], help="what to train")
    parser.add_argument("--catalog", metavar="CAT", help="cutout catalog with the pixels")
    parser.add_argument("--labels", metavar="L", help="CSV or Parquet of joint vote fractions")
    parser.add_argument(
        "--id", metavar="COL", help="id column of the labels (default object_id, GalaxyID, id_str)"
    )
    parser.add_argument("--schema", default="galaxy-challenge", help="VoteSchema name or JSON file")
    parser.add_argument("--data", metavar="TEXT", help="what the data are, for the model card")
    parser.add_argument("--output", metavar="BUNDLE", help="bundle folder to write; its name is the bundle's")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")


def run(args: argparse.Namespace) -> int:
    """Train, judge once on the test split, write the bundle."""
    import dataclasses
    import sys
    from pathlib import Path

    from surveyproc.cli._common import require
    from surveyproc.config.compose import compose_config, refuse
    from surveyproc.errors import UsageError

    require(args, "catalog", "labels", "output")
    if (Path(args.output) / "model.json").exists() and not args.overwrite:
        raise UsageError(
            "there is a bundle already", where=args.output, fix="pass another --output, or --overwrite"
        )
    config, problems = compose_config("train", getattr(args, "overrides", []))
    refuse(problems)

    from surveyproc.catalog import open_catalog
    from surveyproc.cutouts import InputContract
    from surveyproc.training.bundle import write_morphology_bundle
    from surveyproc.training.examples import load_examples
    from surveyproc.training.loop import Recipe, train
    from surveyproc.votes import load_schema
    from surveyproc.votes.labels import read_labels

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    settings = config["train"]
    recipe = Recipe(**{f.name: settings[f.name] for f in dataclasses.fields(Recipe)})
    refuse(recipe.problems())
    schema = load_schema(args.schema)
    contract = InputContract.from_dict({"bands": ["R", "G", "B"], "stretch": "display", **settings})
    labels = read_labels(args.labels, schema, args.id)
    examples = load_examples(open_catalog(args.catalog), labels, contract, say)
    model, log = train(examples["train"], examples["validation"], schema, contract, recipe, say)
    galaxy_challenge = schema.name == "galaxy-challenge"
    bundle = write_morphology_bundle(
        args.output,
        model,
        examples,
        schema,
        contract,
        recipe,
        log,
        views=settings["views"],
        draws=settings["draws"],
        data=args.data or (GZ2_DATA if galaxy_challenge else f"labels of the {schema.name} tree"),
        citation=CITATIONS if galaxy_challenge else CITATIONS[2:],
    )
    metrics = bundle.record["metrics"]
    print(f"{args.output}: RMSE {metrics['rmse']:.4f} on {metrics['n']} test ids")
    return 0
