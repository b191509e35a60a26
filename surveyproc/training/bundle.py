"""From trained weights to a bundle: half precision, domain reference, test figures, model card."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from surveyproc.cutouts import InputContract
from surveyproc.identifiers import SPLITS
from surveyproc.images.views import normalise, scale
from surveyproc.inference.settings import resolve_precision
from surveyproc.inference.symmetries import encode_views
from surveyproc.models.bundle import Bundle, Model, write_bundle
from surveyproc.training.augment import Augmentation, random_views
from surveyproc.training.card import card
from surveyproc.training.domain import domain_reference, embed
from surveyproc.training.examples import Examples
from surveyproc.training.judge import calibrate, judge, scales_of
from surveyproc.training.loop import Recipe, model_arguments
from surveyproc.votes import VoteSchema

LICENCE = "BSD-3-Clause"
SPLIT_RULE = (
    "int(sha1(str(object_id)).hexdigest(), 16) % 20: 0-1 test, 2 calibration, 3 validation, 4-19 train"
)


def round_to_half(model: torch.nn.Module) -> torch.nn.Module:
    """Round the weights to half precision in place, so that figures are those of what ships."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
    return model


def write_morphology_bundle(
    output: str | Path,
    model: torch.nn.Module,
    examples: dict[str, Examples],
    schema: VoteSchema,
    contract: InputContract,
    recipe: Recipe,
    log: dict[str, Any],
    *,
    views: int,
    draws: int,
    data: str,
    citation: list[str],
) -> Bundle:
    """Calibrate the model, judge it on the test split, once, and write the bundle with its card.

    Parameters
    ----------
    model : torch.nn.Module
        Trained weights; rounded to half precision and calibrated in place.
    examples : dict
        From `training.examples.load_examples`.
    log : dict
        From `training.loop.train`.
    views, draws : int
        ``inference`` of the record.
    data : str
        What the model was trained on, in words.
    citation : list of str
        Papers of the data and the method.
    """
    record = {
        "architecture": recipe.architecture,
        "arguments": model_arguments(recipe, schema, contract),
        "input": contract.to_dict(),
        "outputs": {
            "embedding_size": model.embedding_size,
            "vote_schema": schema.to_dict(),
        },
        "inference": {"views": views, "draws": draws},
        "training": {
            "data": data,
            "split": SPLIT_RULE,
            "galaxies": {s: len(examples[s].joint) for s in SPLITS},
            **log,
            "versions": {"torch": str(torch.__version__), "timm": timm.__version__},
        },
        "licence": LICENCE,
        "citation": citation,
    }
    return finish_bundle(output, record, model, examples, schema, contract)


def finish_bundle(
    output: str | Path,
    record: dict[str, Any],
    model: Any,
    examples: dict[str, Examples],
    schema: VoteSchema,
    contract: InputContract,
) -> Bundle:
    """Calibrate a model, judge it on the test split, once, and write it with its card.

    Parameters
    ----------
    record : dict
        model.json but for ``name``, ``calibration``, ``metrics`` and ``cost``, which are made here.
    """
    round_to_half(model)
    views, draws = record["inference"]["views"], record["inference"]["draws"]
    calibration = calibrate(model, examples, schema, views, draws)
    record = record | {
        "name": Path(output).name,
        "calibration": calibration,
        "metrics": judge(model, examples, schema, views, draws, scales_of(calibration)),
        "cost": measure_cost(model, contract, views),
    }
    # Training galaxies are embedded as the engine would: unrotated, from the centre of their canvas.
    training = embed(model, central_views(examples["train"].pixels, contract), views)
    domain = domain_reference(training, embed(model, examples["calibration"].pixels, views))
    return write_bundle(output, record, dict(model.state_dict()) | domain, card(record))


def central_views(canvases: np.ndarray, contract: InputContract) -> np.ndarray:
    """``(N, C, size, size)`` float32 views of ``(N, S, S, C)`` uint8 canvases, neither rotated nor zoomed."""
    still = Augmentation(zoom=1.0, shift=0.0, rotate=False)
    generator = torch.Generator()
    found = []
    for start in range(0, len(canvases), 64):
        images = scale(torch.from_numpy(np.array(canvases[start : start + 64])))
        views = random_views(images, contract.size, still, generator)
        found.append(normalise(views, contract).numpy())
    return np.concatenate(found)


@torch.inference_mode()
def measure_cost(model: Model | Any, contract: InputContract, views: int, batch: int = 64) -> dict[str, Any]:
    """Time the encoder and head on one thread: milliseconds for one cutout with all its views."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    precision = resolve_precision("auto", "cpu")
    images = torch.randn(batch, contract.channels, contract.size, contract.size)
    images = images.contiguous(memory_format=torch.channels_last)
    seconds = []
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        for _ in range(6):
            start = time.process_time()
            model.head(encode_views(model, images, views).flatten(0, 1))
            seconds.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return {
        "ms_per_cutout": round(min(seconds[1:]) / batch * 1e3, 3),
        "views": views,
        "machine": f"1 thread of {_processor()}, {precision}, CPU time",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
