"""``surveyproc train``: labelled cutouts to a bundle."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surveyproc.cli._labels import add_label_arguments

if TYPE_CHECKING:
    from surveyproc.training.job import Request, Trainer

HELP = "train a model on labelled cutouts and write a bundle; the same command again resumes"
EXAMPLES = """
surveyproc train morphology --catalog gz.cat --labels labels.csv --id GalaxyID --output my-bundle
surveyproc train morphology --catalog gz.cat --labels labels.csv --output quick train.epochs=5
surveyproc train morphology --catalog gz.cat --labels labels.csv --output turned train=dieleman
surveyproc train morphology --catalog gz.cat --labels labels.csv --output tuned train.encoder=convnext_nano train.weights=SOURCE train.layer_decay=0.75
surveyproc train morphology --catalog gz.cat --labels labels.csv --output big train.num_workers=4 cluster=local
surveyproc train morphology --catalog gz.cat --labels labels.csv --output sweep --sweep train.learning_rate=1e-3,2e-3 train.seed=1,2
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
    add_label_arguments(parser)
    parser.add_argument("--data", metavar="TEXT", help="what the data are, for the model card")
    parser.add_argument("--output", metavar="BUNDLE", help="bundle folder to write; its name is the bundle's")
    parser.add_argument("--overwrite", action="store_true", help="start anew; replace a bundle that is there")
    parser.add_argument(
        "--sweep",
        nargs="+",
        action="extend",
        metavar="KEY=A,B",
        help="train every combination into OUTPUT/000, 001, ... and compare them on the validation split",
    )
    parser.add_argument("--settings", action="store_true", help="list the settings and their defaults")


def run(args: argparse.Namespace) -> int:
    """Train, judge once on the test split, write the bundle; or train the members of a sweep."""
    from surveyproc.cli._common import require, resumable

    if args.settings:
        from surveyproc.config.compose import setting_lines

        print("\n".join(setting_lines("train", args.overrides)))
        return 0
    require(args, "catalog", "labels", "output")
    with resumable():
        return _sweep(args) if args.sweep else _train(args)


def _train(args: argparse.Namespace) -> int:
    request, trainer = _request(args, args.output, args.overrides)
    from surveyproc.training.job import plan, train_bundle

    result = train_bundle(plan(request, _say), _say, overwrite=args.overwrite, trainer=trainer)
    what = f"{args.output} is finished: nothing to do" if result.nothing_to_do else args.output
    print(f"{what}: RMSE {result.metrics['rmse']:.4f} on {result.metrics['n']} test ids")
    return 0


def _sweep(args: argparse.Namespace) -> int:
    from functools import partial

    from surveyproc.cli._common import own_command
    from surveyproc.cli._output import print_rows
    from surveyproc.config.compose import expand_sweep, refuse

    members, problems = expand_sweep(args.sweep)
    refuse(problems)
    from surveyproc.training.job import plan, train_here, train_weights
    from surveyproc.training.sweep import best_of, run_sweep

    requests = {
        tuple(words): _request(args, args.output, [*args.overrides, *words], several=True)
        for words in members
    }
    read: dict[Any, Any] = {}

    def train(output: Path, words: list[str]) -> dict[str, Any]:
        request, trainer = requests[tuple(words)]
        _say(f"{output.name}: {' '.join(words)}")
        if trainer is train_here:
            trainer = partial(train_here, read=read)
        planned = plan(dataclasses.replace(request, output=str(output)), _say)
        return train_weights(planned, _say, overwrite=args.overwrite, trainer=trainer)

    found = run_sweep(Path(args.output), members, train)
    rows = [(m.name, m.validation_rmse, m.images_seen, m.seconds, " ".join(m.settings)) for m in found]
    print_rows(["training", "validation RMSE", "images seen", "seconds", "settings"], rows, "table")
    best = best_of(found)
    kept = _without_sweep(own_command(), args)
    words = [*kept, *best.settings, "--output", f"{args.output}/{best.name}"]
    print(
        f"the best on the validation split is {best.name}; judge it on the test split and write its bundle:"
    )
    print(f"  {shlex.join(words)}")
    return 0


def _request(
    args: argparse.Namespace, output: str, overrides: Sequence[str], several: bool = False
) -> tuple[Request, Trainer]:
    """Compose and check the settings of one training, all problems at once."""
    from surveyproc.config.compose import compose_config, refuse
    from surveyproc.config.run import cluster_address

    config, problems = compose_config("train", [part for o in overrides for part in cluster_address(o)])
    defaults, _ = compose_config("train")
    if config["train"]["encoder"] != defaults["train"]["encoder"] and not any(
        o.startswith("train.encoder_arguments") for o in overrides
    ):
        config["train"]["encoder_arguments"] = {}
    from surveyproc.training.job import Request
    from surveyproc.training.recipe import build_recipe

    recipe, found = build_recipe(config["train"], defaults["train"])
    trainer, wrong = _trainer(config, defaults)
    refuse([*problems, *found, *wrong], f"settings of {' '.join(overrides)}" if several else "settings")
    galaxy_challenge = args.schema == "galaxy-challenge"
    return Request(
        catalog=args.catalog,
        labels=args.labels,
        id_column=args.id,
        schema=args.schema,
        values=args.values,
        output=output,
        recipe=recipe,
        settings=config["train"],
        data=args.data or (GZ2_DATA if galaxy_challenge else f"labels of the {args.schema} tree"),
        citation=CITATIONS if galaxy_challenge else CITATIONS[2:],
    ), trainer


def _trainer(config: dict[str, Any], defaults: dict[str, Any]) -> tuple[Trainer, list[str]]:
    """Choose between this process and Ray by ``train.num_workers``."""
    from functools import partial

    from surveyproc.config.run import ClusterConfig, WorkersConfig, typed_section
    from surveyproc.training.job import train_here

    cluster, found = typed_section("cluster", ClusterConfig, config["cluster"], defaults["cluster"])
    names = [f.name for f in dataclasses.fields(WorkersConfig)]
    given, standard = ({n: c["train"][n] for n in names} for c in (config, defaults))
    workers, wrong = typed_section("train", WorkersConfig, given, standard)
    problems = [*found, *wrong, *cluster.problems(), *workers.problems(cluster)]
    if problems or not workers.num_workers:
        return train_here, problems
    from surveyproc.distributed.training import train_on_ray

    return partial(train_on_ray, workers=workers, cluster=cluster), problems


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _without_sweep(words: list[str], args: argparse.Namespace) -> list[str]:
    """The command without what a single training says otherwise."""
    gone = {"--sweep", "--output", f"--output={args.output}", args.output, *args.sweep}
    return [w for w in words if w not in gone]
