"""Images per second of the training loop against a bare torch loop on the same data in memory.

Both train the same model with the same batch, precision and threads on the same canvases. The bare loop gets ready
views and does forward, loss, backward and a step of AdamW; ours also samples, augments, clips, averages weights and
logs. They alternate, since a machine may be shared; the ratio is the median over the pairs.

    python jobs/bench/train.py --px 128 --seconds 20 --repeats 5 --output bench-train.json
    python jobs/bench/train.py --ray 2
    python jobs/bench/train.py --until-rmse 0.11 --catalog gz.cat --labels labels.csv
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surveyproc.cutouts import InputContract
from surveyproc.training.examples import Examples
from surveyproc.training.losses import dirichlet_multinomial_nll, squared_error
from surveyproc.training.recipe import Recipe
from surveyproc.votes import load_schema, pseudo_counts

SCHEMA = load_schema("galaxy-challenge")
ROWS = 1024


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--px", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ray", type=int, default=0, metavar="N", help="also with N workers of Ray Train")
    parser.add_argument("--until-rmse", type=float, metavar="RMSE", help="train on a catalog down to this")
    parser.add_argument("--catalog")
    parser.add_argument("--labels")
    parser.add_argument("--output", default="bench-train.json")
    parser.add_argument("overrides", nargs="*", help="train.key=value, for --until-rmse")
    args = parser.parse_args()
    machine = {"cpu": _cpu_name(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    if args.until_rmse:
        found: dict[str, Any] = {"until_rmse": time_to_rmse(args)}
    else:
        found = {"loop": measure_loop(args)}
        if args.ray:
            found["ray"] = measure_ray(args)
    Path(args.output).write_text(json.dumps({"machine": machine, "settings": vars(args), **found}, indent=1))
    print(f"{machine['cpu']}, {machine['cores']} cores")


def make_examples(px: int, rows: int) -> tuple[Examples, InputContract]:
    """Canvases of noise and random vote fractions: their values do not change the work."""
    rng = np.random.default_rng(0)
    contract = InputContract(("R", "G", "B"), size=px, crop=0.5, mean=0.1, std=0.2)
    fractions = [rng.dirichlet(np.ones(len(q.answers)), rows) for q in SCHEMA.questions]
    joint = SCHEMA.joint(np.concatenate(fractions, axis=1))
    pixels = rng.integers(0, 255, (rows, 3 * px, 3 * px, 3), np.uint8)
    return Examples(pixels, torch.from_numpy(joint).float()), contract


def measure_loop(args: argparse.Namespace) -> dict[str, Any]:
    """Alternate the two loops."""
    examples, contract = make_examples(args.px, ROWS)
    recipe = Recipe(
        encoder=args.encoder,
        batch=args.batch,
        threads=args.threads,
        precision=args.precision,
        epochs=1e6,
        validate_every=1e6,
    )
    pairs = []
    for repeat in range(args.repeats):
        bare = bare_loop(examples, contract, recipe, args.seconds)
        ours = our_loop(examples, contract, recipe, args.seconds)
        pairs.append({"bare": bare, "ours": ours})
        wall, cpu = (ours[k] / bare[k] for k in ("images_per_s", "images_per_cpu_s"))
        print(
            f"{repeat}: bare {bare['images_per_s']:.1f} images/s, ours {ours['images_per_s']:.1f} ({wall:.3f}); "
            f"per CPU-second {bare['images_per_cpu_s']:.1f}, {ours['images_per_cpu_s']:.1f} ({cpu:.3f})",
            flush=True,
        )
    middle = {
        name: {k: statistics.median(p[name][k] for p in pairs) for k in pairs[0][name]}
        for name in ("bare", "ours")
    }
    ratios = {
        k: statistics.median(p["ours"][k] / p["bare"][k] for p in pairs)
        for k in ("images_per_s", "images_per_cpu_s")
    }
    print("\n| loop | images/s | images per CPU-second |\n|---|---|---|")
    for name, value in middle.items():
        print(f"| {name} | {value['images_per_s']:.1f} | {value['images_per_cpu_s']:.1f} |")
    print(f"| ours of bare | {ratios['images_per_s']:.3f} | {ratios['images_per_cpu_s']:.3f} |")
    return {"pairs": pairs, "median": middle, "ours_of_bare": ratios}


def bare_loop(
    examples: Examples, contract: InputContract, recipe: Recipe, seconds: float
) -> dict[str, float]:
    """Forward, loss, backward, step on ready views; nothing else."""
    from surveyproc.images.views import centre_crop, normalise, resize, scale
    from surveyproc.training.loop import hardware
    from surveyproc.training.state import new_state

    torch.set_num_threads(recipe.threads)
    bf16 = hardware(recipe)[1] == "bf16"
    model = new_state(recipe, SCHEMA, contract).model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    views = normalise(
        resize(centre_crop(scale(torch.from_numpy(examples.pixels[:512])), 0.66), contract.size), contract
    ).contiguous(memory_format=torch.channels_last)
    joint = examples.joint
    counts = torch.from_numpy(pseudo_counts(joint.double().numpy(), SCHEMA)).float()
    batches = len(views) // recipe.batch

    def step(number: int) -> int:
        rows = slice(number % batches * recipe.batch, (number % batches + 1) * recipe.batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            concentrations = model(views[rows])
        loss = squared_error(concentrations, joint[rows], SCHEMA)
        loss = loss + recipe.likelihood * dirichlet_multinomial_nll(concentrations, counts[rows], SCHEMA)
        optimiser.zero_grad(set_to_none=True)
        loss.mean().backward()
        optimiser.step()
        return recipe.batch

    return _timed(step, seconds)


def our_loop(examples: Examples, contract: InputContract, recipe: Recipe, seconds: float) -> dict[str, float]:
    """`training.loop.train`, stopped when the time is over; the first steps warm up."""
    from surveyproc.training.loop import train
    from surveyproc.training.workspace import Memory

    clock: dict[str, Any] = {"steps": 0}

    def asked() -> bool:
        clock["steps"] += 1
        if clock["steps"] == WARM_STEPS:
            clock["began"] = (time.monotonic(), time.process_time())
        if clock["steps"] <= WARM_STEPS or time.monotonic() - clock["began"][0] < seconds:
            return False
        clock["ended"] = (time.monotonic(), time.process_time())
        return True

    with contextlib.suppress(KeyboardInterrupt):
        train(examples, examples, SCHEMA, contract, recipe, keeper=Memory(), asked=asked)
    images = (clock["steps"] - WARM_STEPS) * recipe.batch
    wall, cpu = (end - begin for begin, end in zip(clock["began"], clock["ended"]))
    return {"images_per_s": images / wall, "images_per_cpu_s": images / cpu}


WARM_STEPS = 3


def _timed(step: Callable[[int], int], seconds: float) -> dict[str, float]:
    for number in range(WARM_STEPS):
        step(number)
    began, cpu, images, number = time.monotonic(), time.process_time(), 0, 0
    while time.monotonic() - began < seconds:
        images += step(number)
        number += 1
    return {
        "images_per_s": images / (time.monotonic() - began),
        "images_per_cpu_s": images / (time.process_time() - cpu),
    }


def measure_ray(args: argparse.Namespace) -> dict[str, Any]:
    """Train on a catalog of noise with Ray workers; the rate is that of the lines of metrics but the first."""
    from surveyproc.cli.main import main as surveyproc

    with tempfile.TemporaryDirectory(prefix="surveyproc-bench-") as scratch:
        catalog, labels = write_data(Path(scratch), args.px, ROWS)
        steps = max(4, int(args.seconds * args.ray * 2))
        settings = [
            f"train.size={args.px}",
            f"train.encoder={args.encoder}",
            f"train.batch={args.batch}",
            f"train.precision={args.precision}",
            f"train.threads={args.threads}",
            f"train.epochs={steps * args.batch / (0.8 * ROWS):.3f}",
            f"train.num_workers={args.ray}",
            "cluster=local",
            "train.validate_every=0.5",
        ]
        flags = ["--catalog", catalog, "--labels", labels, "--output", f"{scratch}/out"]
        surveyproc(["train", "morphology", *flags, *settings])
        text = (Path(scratch) / "out.train" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    rates = [line["train/images_per_s"] for line in lines if "train/images_per_s" in line][1:]
    rate = statistics.median(rates)
    print(f"| Ray, {args.ray} workers | {rate:.1f} together, {rate / args.ray:.1f} each | |")
    return {"workers": args.ray, "images_per_s": rate, "images_per_s_each": rate / args.ray}


def write_data(folder: Path, px: int, rows: int) -> tuple[str, str]:
    """Write a raw catalog of noise and its labels."""
    import pyarrow as pa

    from surveyproc.catalog import CatalogWriter
    from surveyproc.cutouts import ImageSpec

    rng = np.random.default_rng(0)
    spec = ImageSpec("raw", (2 * px, 2 * px, 3), "uint8")
    with CatalogWriter(folder / "noise.cat", spec, pa.schema([("object_id", pa.int64())])) as writer:
        pixels = rng.integers(0, 255, (rows, *spec.shape), np.uint8)
        writer.write_pixels(pixels, {"object_id": pa.array(range(rows), pa.int64())})
    joint = make_examples(1, rows)[0].joint.numpy()
    names = [SCHEMA.labels[c] for c in SCHEMA.columns]
    text = "\n".join(",".join([str(i), *(f"{v:.6f}" for v in row)]) for i, row in enumerate(joint))
    (folder / "labels.csv").write_text(",".join(["GalaxyID", *names]) + f"\n{text}\n")
    return str(folder / "noise.cat"), str(folder / "labels.csv")


def time_to_rmse(args: argparse.Namespace) -> dict[str, Any]:
    """Train on a real catalog and say when the averaged weights first had the validation RMSE."""
    from surveyproc.config.compose import compose_config, refuse
    from surveyproc.training.job import Request, plan, train_weights
    from surveyproc.training.recipe import build_recipe

    config, problems = compose_config("train", args.overrides)
    recipe, found = build_recipe(config["train"])
    refuse([*problems, *found])
    scratch = tempfile.mkdtemp(prefix="surveyproc-bench-")
    request = Request(args.catalog, args.labels, f"{scratch}/out", recipe, config["train"])
    lines: list[dict[str, Any]] = []

    def say(line: str) -> None:
        print(line, flush=True)
        path = Path(f"{scratch}/out.train/metrics.jsonl")
        if path.exists():
            lines[:] = [json.loads(text) for text in path.read_text().splitlines()]
            if any(v.get("validation/rmse", 9.0) <= args.until_rmse for v in lines):
                raise KeyboardInterrupt

    began, cpu = time.monotonic(), time.process_time()
    with contextlib.suppress(KeyboardInterrupt):
        train_weights(plan(request, say), say)
    wall, cpu = time.monotonic() - began, time.process_time() - cpu
    shutil.rmtree(scratch)
    looks = [v for v in lines if "validation/rmse" in v]
    seconds = [v["train/seconds"] for v in lines if "train/seconds" in v]
    result = {
        "reached": bool(looks) and looks[-1]["validation/rmse"] <= args.until_rmse,
        "validation_rmse": looks[-1]["validation/rmse"] if looks else None,
        "images_seen": looks[-1]["images_seen"] if looks else 0,
        "training_seconds": seconds[-1] if seconds else 0.0,
        "wall_seconds_with_reading": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
    }
    print(json.dumps(result, indent=1))
    return result


def _cpu_name() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":")[1].strip() if names else platform.processor()


if __name__ == "__main__":
    main()
