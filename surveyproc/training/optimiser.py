"""Which weights move, and how fast: fine-tuning modes and layer-wise learning-rate decay."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay
from torch import nn

from surveyproc.errors import UsageError
from surveyproc.training.recipe import Recipe


def freeze(model: nn.Module, recipe: Recipe) -> None:
    """Switch off the gradients of what the recipe keeps fixed.

    ``frozen`` keeps the whole encoder, ``partial`` all but its last ``train_blocks`` stages, in the order of
    timm's `group_matcher`.

    Raises
    ------
    UsageError
        When the encoder does not name its stages.
    """
    if recipe.finetune == "full":
        return
    encoder = _encoder(model, f"train.finetune={recipe.finetune}")
    layer_of = _layers(encoder, coarse=True) if recipe.finetune == "partial" else {}
    first_trained = max(layer_of.values(), default=0) + 1 - recipe.train_blocks
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(recipe.finetune == "partial" and layer_of[name] >= first_trained)


def train_mode(model: nn.Module) -> None:
    """Put a model into training mode except for its frozen parts, whose batch statistics must not move."""
    model.train()
    for module in model.modules():
        gradients = [p.requires_grad for p in module.parameters()]
        if gradients and not any(gradients):
            module.eval()


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over what is trained; each group has ``lr_scale``, its factor of the learning rate.

    Weight decay applies to matrices and kernels, not to biases and normalisation. With ``layer_decay`` d, layer i
    of an encoder of L layers has the factor ``d ** (L - i)``, the head 1 (Clark et al. 2020; Bao et al. 2022,
    BEiT).
    """
    groups: list[dict[str, Any]] = []
    done: set[int] = set()
    if recipe.layer_decay < 1:
        encoder = _encoder(model, f"train.layer_decay={recipe.layer_decay}")
        _layers(encoder, coarse=False)
        for group in param_groups_layer_decay(
            encoder, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay
        ):
            group["lr_scale"] *= recipe.layer_decay
            groups.append({k: group[k] for k in ("params", "weight_decay", "lr_scale")})
            done |= {id(p) for p in group["params"]}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in done]
    decayed, plain = [p for p in rest if p.ndim > 1], [p for p in rest if p.ndim <= 1]
    groups += [
        {"params": decayed, "weight_decay": recipe.weight_decay, "lr_scale": 1.0},
        {"params": plain, "weight_decay": 0.0, "lr_scale": 1.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=recipe.learning_rate, fused=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group its share of the learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]


def _encoder(model: nn.Module, setting: str) -> nn.Module:
    encoder = next((m for m in model.modules() if hasattr(m, "pretrained_cfg")), None)
    if encoder is None:
        raise UsageError(
            f"{setting}: the model has no timm encoder",
            where="train.encoder",
            fix="give the name of one in train.encoder, or train all of the model alike",
        )
    return encoder


def _layers(encoder: nn.Module, coarse: bool) -> dict[str, int]:
    """Layer number of each parameter, from the input on."""
    matcher = getattr(encoder, "group_matcher", None)
    if matcher is None:
        raise UsageError(
            f"the encoder {type(encoder).__name__} does not name its layers (timm's group_matcher)",
            where="train.layer_decay, train.finetune",
            fix="use train.layer_decay=1 and train.finetune=full or frozen with it",
        )
    return group_parameters(encoder, matcher(coarse=coarse), reverse=True)
