"""What a training carries from step to step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from surveyproc.cutouts import InputContract
from surveyproc.models.bundle import build_architecture
from surveyproc.training.optimiser import freeze, make_optimiser
from surveyproc.training.recipe import Recipe
from surveyproc.votes import VoteSchema


@dataclass
class State:
    """Weights and counters of a training.

    Attributes
    ----------
    ema : dict
        Averaged ``state_dict`` of the model.
    images_seen, steps : int
        Over all processes.
    looks : list of dict
        ``images_seen`` and ``rmse`` of each look at the validation split.
    best : dict or None
        The look with the best figure.
    pending : list of float
        Losses since the last line of metrics.
    seconds : float
        Time spent, over all sessions.
    stopped : bool
        Early stopping has ended the training.
    origin : dict or None
        Where pretrained weights came from.
    hardware : str
        Device and precision that a resumed training must share.
    """

    model: torch.nn.Module
    ema: dict[str, torch.Tensor]
    optimiser: torch.optim.Optimizer
    images_seen: int = 0
    steps: int = 0
    looks: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None
    pending: list[float] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False
    origin: dict[str, Any] | None = None
    hardware: str = ""


COUNTERS = ("images_seen", "steps", "looks", "best", "pending", "seconds", "stopped", "hardware")


def new_state(recipe: Recipe, schema: VoteSchema, contract: InputContract, device: str = "cpu") -> State:
    """Build model, EMA copy and optimiser from the recipe's seed; pretrained weights go into the encoder.

    The caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build_architecture(recipe.architecture, model_arguments(recipe, schema, contract))
    origin: dict[str, Any] | None = None
    if recipe.weights is not None:
        from surveyproc.models.encoders import load_pretrained_into

        origin = load_pretrained_into(model, recipe.weights)
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze(model, recipe)
    ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
    return State(model, ema, make_optimiser(model, recipe), origin=origin)


def model_arguments(recipe: Recipe, schema: VoteSchema, contract: InputContract) -> dict[str, Any]:
    """Return the ``arguments`` of model.json."""
    arguments: dict[str, Any] = {
        "answers": [len(q.answers) for q in schema.questions],
        "dropout": recipe.dropout,
        "head": recipe.head,
    }
    if recipe.encoder is not None:
        arguments |= {"encoder": recipe.encoder, "encoder_arguments": dict(recipe.encoder_arguments)}
    if contract.channels != 3:
        arguments["in_chans"] = contract.channels
    return arguments | recipe.arguments


def update_average(state: State, decay: float) -> None:
    """Move the EMA towards the weights; the first steps weigh more, ``min(decay, (1 + t) / (10 + t))``."""
    decay = min(decay, (1.0 + state.steps) / (10.0 + state.steps))
    now = state.model.state_dict()
    floats = [name for name, average in state.ema.items() if average.is_floating_point()]
    torch._foreach_lerp_([state.ema[n] for n in floats], [now[n] for n in floats], 1.0 - decay)
    for name in state.ema.keys() - set(floats):
        state.ema[name].copy_(now[name])


def averaged(
    weights: dict[str, torch.Tensor],
    recipe: Recipe,
    schema: VoteSchema,
    contract: InputContract,
    device: str = "cpu",
) -> torch.nn.Module:
    """Build a model of given weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        model = build_architecture(recipe.architecture, model_arguments(recipe, schema, contract))
    model.load_state_dict(weights)
    return model.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
