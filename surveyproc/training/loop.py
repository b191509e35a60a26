"""The training loop of the morphology model: a plain loop over one small state dict."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from surveyproc.cutouts import InputContract
from surveyproc.errors import ResourceError
from surveyproc.images.views import D4_ORDER, d4, normalise, scale
from surveyproc.inference.settings import resolve_precision
from surveyproc.models.bundle import build_architecture
from surveyproc.training.augment import Augmentation, random_views
from surveyproc.training.examples import Examples
from surveyproc.training.losses import (
    dirichlet_multinomial_nll,
    joint_means,
    mean_fractions,
    pseudo_counts,
    squared_error,
)
from surveyproc.votes import VoteSchema


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a training besides the data (``train.*`` in the configuration)."""

    encoder: str = "resnet18"
    encoder_arguments: dict[str, Any] = field(default_factory=dict)
    dropout: float = 0.3
    epochs: float = 90.0
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    ema: float = 0.998
    likelihood: float = 0.005
    zoom: float = 1.15
    shift: float = 0.04
    seed: int = 1
    threads: int = 1
    precision: str = "auto"
    validate_every: float = 5.0

    def problems(self) -> list[str]:
        """Describe values out of range, all of them."""
        positive = ("epochs", "batch", "learning_rate", "threads", "validate_every")
        found = [f"train.{k}={getattr(self, k)}: must be above 0" for k in positive if getattr(self, k) <= 0]
        for name in ("dropout", "ema", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                found.append(f"train.{name}={getattr(self, name)}: must be in [0, 1)")
        for name in ("weight_decay", "likelihood", "shift"):
            if getattr(self, name) < 0:
                found.append(f"train.{name}={getattr(self, name)}: must not be negative")
        if self.zoom < 1:
            found.append(f"train.zoom={self.zoom}: is the largest factor, 1 or more")
        if self.precision not in ("auto", "bf16", "fp32"):
            found.append(f"train.precision={self.precision}: must be auto, bf16 or fp32")
        return found


def learning_rate_factor(images_seen: int, images_planned: int, warmup: float) -> float:
    """Linear warm-up over a fraction of the training, then half a cosine down to 0; a pure function."""
    progress = min(images_seen / max(images_planned, 1), 1.0)
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / max(1.0 - warmup, 1e-9)))


def new_state(recipe: Recipe, schema: VoteSchema) -> dict[str, Any]:
    """Build model, EMA copy and optimiser from the recipe's seed.

    Returns
    -------
    dict
        ``model``, ``ema`` (state dict), ``optimiser``, ``generator``, ``images_seen``, ``steps``.
    """
    torch.manual_seed(recipe.seed)
    arguments = model_arguments(recipe, schema)
    model = build_architecture("morphology", arguments).to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
    )
    return {
        "model": model,
        "ema": {k: v.detach().clone() for k, v in model.state_dict().items()},
        "optimiser": optimiser,
        "generator": torch.Generator().manual_seed(recipe.seed),
        "images_seen": 0,
        "steps": 0,
    }


def model_arguments(recipe: Recipe, schema: VoteSchema) -> dict[str, Any]:
    """Return the ``arguments`` of model.json."""
    return {
        "encoder": recipe.encoder,
        "encoder_arguments": dict(recipe.encoder_arguments),
        "answers": [len(q.answers) for q in schema.questions],
        "dropout": recipe.dropout,
    }


def step(
    state: dict[str, Any],
    images: torch.Tensor,
    joint: torch.Tensor,
    counts: torch.Tensor,
    schema: VoteSchema,
    recipe: Recipe,
    planned: int,
) -> float:
    """Take one step on a batch of prepared views and return the loss.

    The loss is the squared error of the joint values plus ``recipe.likelihood`` times the
    Dirichlet-multinomial negative log likelihood: the first is what is measured, the second gives the
    concentrations their meaning.
    """
    model, optimiser = state["model"], state["optimiser"]
    model.train()
    factor = learning_rate_factor(state["images_seen"] + len(images), planned, recipe.warmup)
    for group in optimiser.param_groups:
        group["lr"] = recipe.learning_rate * factor
    bf16 = resolve_precision(recipe.precision, "cpu") == "bf16"
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        concentrations = model(images.contiguous(memory_format=torch.channels_last))
    loss = squared_error(concentrations, joint, schema)
    if recipe.likelihood:
        loss = loss + recipe.likelihood * dirichlet_multinomial_nll(concentrations, counts, schema)
    loss = loss.mean()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if not torch.isfinite(norm):
        # Seen with bf16 convolutions of oneDNN on 1 x 1 pixel maps: the weights would be lost from here on.
        raise ResourceError(
            f"the gradient is not a number after {state['images_seen']} images",
            fix="train with train.precision=fp32, a lower train.learning_rate, or a larger train.size",
        )
    optimiser.step()
    state["images_seen"] += len(images)
    state["steps"] += 1
    decay = min(recipe.ema, (1.0 + state["steps"]) / (10.0 + state["steps"]))
    for key, value in model.state_dict().items():
        average = state["ema"][key]
        if average.is_floating_point():
            average.lerp_(value.detach(), 1.0 - decay)
        else:
            average.copy_(value)
    return float(loss.detach())


def train(
    training: Examples,
    validation: Examples,
    schema: VoteSchema,
    contract: InputContract,
    recipe: Recipe,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Train from fresh weights on one process.

    Returns
    -------
    model : torch.nn.Module
        The EMA weights, in evaluation mode.
    log : dict
        ``recipe``, ``images_seen``, ``seconds``, ``validation`` (list of images seen and RMSE).
    """
    torch.set_num_threads(recipe.threads)
    state = new_state(recipe, schema)
    counts = pseudo_counts(training.joint, schema)
    planned = round(recipe.epochs * len(training.joint))
    next_look = recipe.validate_every * len(training.joint)
    augmentation = Augmentation(zoom=recipe.zoom, shift=recipe.shift)
    history: list[dict[str, float]] = []
    losses: list[float] = []
    start = time.monotonic()
    for rows in _batches(len(training.joint), recipe.batch, planned, state["generator"]):
        canvases = scale(torch.from_numpy(training.pixels[rows.numpy()]))
        views = random_views(canvases, contract.size, augmentation, state["generator"])
        views = normalise(views, contract)
        losses.append(step(state, views, training.joint[rows], counts[rows], schema, recipe, planned))
        if state["images_seen"] >= min(next_look, planned):
            next_look += recipe.validate_every * len(training.joint)
            model = averaged(state, recipe, schema)
            rmse = joint_rmse(predict(model, validation.pixels, schema), validation.joint)
            history.append({"images_seen": state["images_seen"], "rmse": round(rmse, 5)})
            seconds = time.monotonic() - start
            say(
                f"images {state['images_seen']}/{planned}  loss {np.mean(losses):.4f}  "
                f"validation RMSE {rmse:.4f} (n={len(validation.joint)})  "
                f"{state['images_seen'] / seconds:.0f} images/s  {seconds:.0f} s"
            )
            losses.clear()
    log = {
        "recipe": asdict(recipe) | {"precision": resolve_precision(recipe.precision, "cpu")},
        "images_seen": state["images_seen"],
        "seconds": round(time.monotonic() - start),
        "validation": history,
    }
    return averaged(state, recipe, schema), log


def averaged(state: dict[str, Any], recipe: Recipe, schema: VoteSchema) -> torch.nn.Module:
    """Build a model of the EMA weights, in evaluation mode."""
    model = build_architecture("morphology", model_arguments(recipe, schema))
    model.load_state_dict(state["ema"])
    return model.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def predict(
    model: Any, prepared: np.ndarray, schema: VoteSchema, views: int = D4_ORDER, batch: int = 256
) -> torch.Tensor:
    """Predict joint values as a run's tables give them.

    Parameters
    ----------
    prepared : numpy.ndarray
        ``(N, C, size, size)`` float32, from `images.views.prepare`.

    Returns
    -------
    torch.Tensor
        ``(N, K)``: mean over the symmetries of the expected fractions, then made joint.
    """
    found = []
    for start in range(0, len(prepared), batch):
        images = torch.from_numpy(prepared[start : start + batch])
        fractions = torch.stack(
            [mean_fractions(model.head(model.encode(d4(images, k))), schema) for k in range(views)]
        ).mean(0)
        found.append(joint_means(fractions, schema))
    return torch.cat(found)


def joint_rmse(predicted: torch.Tensor, joint: torch.Tensor) -> float:
    """One root over galaxies and answers."""
    return float((predicted.double() - joint.double()).square().mean().sqrt())


def _batches(count: int, batch: int, planned: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Full batches of shuffled row numbers until ``planned`` images are seen."""
    seen, left = 0, torch.empty(0, dtype=torch.int64)
    while seen < planned:
        while len(left) < batch:
            left = torch.cat([left, torch.randperm(count, generator=generator)])
        yield left[:batch]
        left, seen = left[batch:], seen + batch
