"""``surveyproc train``: labelled cutouts to a bundle."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surveyproc.training.job import Trainer

HELP = "train a model on labelled cutouts and write a bundle; the same command again resumes"
EXAMPLES = """
surveyproc train morphology --catalog gz.cat --labels labels.csv --id GalaxyID --output my-bundle
surveyproc train morphology --catalog gz.cat --labels labels.csv --output quick train.epochs=5
surveyproc train morphology --catalog gz.cat --labels labels.csv --output tuned train.weights=SOURCE train.layer_decay=0.75
surveyproc run --input gz.cat --output out.run --bundle my-bundle
"""
EPILOG = "settings (defaults): surveyproc train morphology --settings"
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
    parser.add_argument("--overwrite", action="store_true", help="start anew; replace a bundle that is there")
    parser.add_argument("--settings", action="store_true", help="list the settings and their defaults")


def run(args: argparse.Namespace) -> int:
    """Train, judge once on the test split, write the bundle."""
    from surveyproc.cli._common import require

    if args.settings:
        from surveyproc.config.compose import setting_lines

        print("\n".join(setting_lines("train")))
        return 0
    require(args, "catalog", "labels", "output")
    from surveyproc.config.compose import compose_config, refuse
    from surveyproc.config.run import cluster_address
    from surveyproc.training.job import Request, plan, train_bundle
    from surveyproc.training.recipe import build_recipe

    config, problems = compose_config("train", [part for o in args.overrides for part in cluster_address(o)])
    defaults, _ = compose_config("train")
    recipe, found = build_recipe(config["train"], defaults["train"])
    trainer, wrong = _trainer(config, defaults)
    refuse([*problems, *found, *wrong])
    galaxy_challenge = args.schema == "galaxy-challenge"
    request = Request(
        catalog=args.catalog,
        labels=args.labels,
        id_column=args.id,
        schema=args.schema,
        output=args.output,
        recipe=recipe,
        settings=config["train"],
        data=args.data or (GZ2_DATA if galaxy_challenge else f"labels of the {args.schema} tree"),
        citation=CITATIONS if galaxy_challenge else CITATIONS[2:],
    )

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        result = train_bundle(plan(request, say), say, overwrite=args.overwrite, trainer=trainer)
    except KeyboardInterrupt:
        print(f"\ninterrupted; resume with:\n  {shlex.join(_command())}", file=sys.stderr)
        raise
    what = f"{args.output} is finished: nothing to do" if result.nothing_to_do else args.output
    print(f"{what}: RMSE {result.metrics['rmse']:.4f} on {result.metrics['n']} test ids")
    return 0


def _trainer(config: dict[str, Any], defaults: dict[str, Any]) -> tuple[Trainer, list[str]]:
    """Choose between this process and Ray by ``train.num_workers``."""
    from functools import partial

    from surveyproc.config.run import ClusterConfig, WorkersConfig, typed_section
    from surveyproc.training.job import train_here

    cluster, found = typed_section("cluster", ClusterConfig, config["cluster"], defaults["cluster"])
    names = [f.name for f in dataclasses.fields(WorkersConfig)]
    workers, wrong = typed_section(
        "train",
        WorkersConfig,
        {n: config["train"][n] for n in names},
        {n: defaults["train"][n] for n in names},
    )
    problems = [*found, *wrong, *cluster.problems(), *workers.problems(cluster)]
    if problems or not workers.num_workers:
        return train_here, problems
    from surveyproc.distributed.training import train_on_ray

    return partial(train_on_ray, workers=workers, cluster=cluster), problems


def _command() -> list[str]:
    from surveyproc.stores import without_secrets

    return ["surveyproc", *(w for w in without_secrets(sys.argv[1:]) if w != "--overwrite")]
