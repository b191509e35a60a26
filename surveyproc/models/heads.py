"""What turns features into Dirichlet concentrations over the answers of each question."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from surveyproc.errors import InputError, did_you_mean

CONCENTRATION_RANGE = 100.0
FIXED_TOTAL = 20.0
FLOOR = 1e-4
TINY = 1e-7


def dirichlet(logits: torch.Tensor, answers: Sequence[int]) -> torch.Tensor:
    """Concentrations ``1 + 100 sigmoid(z)`` in (1, 101), one for each answer.

    The form of Zoobot (Walmsley et al. 2022, MNRAS 509, 3966): every distribution is unimodal, and the sharpest
    is about that of 100 votes. Only here does the network say itself how sure it is.
    """
    return 1.0 + CONCENTRATION_RANGE * torch.sigmoid(logits)


def fractions(logits: torch.Tensor, answers: Sequence[int]) -> torch.Tensor:
    """Vote fractions by divisive normalisation: ``max(z, 0) / sum max(z, 0)`` over each question.

    The output layer of Dieleman et al. (2015, MNRAS 450, 1441). A fraction is at least `FLOOR`, since a Dirichlet
    has none at 0; the fractions of a question still sum to 1, and are equal where every ``z`` is negative.
    """
    positive = [torch.relu(z) for z in logits.split(list(answers), dim=-1)]
    floored = [(z / (z.sum(-1, keepdim=True) + 1e-12)).clamp_min(FLOOR) for z in positive]
    return torch.cat([f / f.sum(-1, keepdim=True) for f in floored], dim=-1)


def classes(logits: torch.Tensor, answers: Sequence[int]) -> torch.Tensor:
    """Class probabilities: the softmax over each question, lifted by `TINY` so that none underflows to 0."""
    lifted = [z.softmax(-1) + TINY for z in logits.split(list(answers), dim=-1)]
    return torch.cat([p / p.sum(-1, keepdim=True) for p in lifted], dim=-1)


HEADS: dict[str, Callable[[torch.Tensor, Sequence[int]], torch.Tensor]] = {
    "dirichlet": dirichlet,
    "fractions": fractions,
    "classes": classes,
}


def head_function(name: str) -> Callable[[torch.Tensor, Sequence[int]], torch.Tensor]:
    """Look up ``(logits (N, K), answers) -> (N, K)`` by name.

    Raises
    ------
    InputError
        When there is none of that name.
    """
    if name not in HEADS:
        raise InputError(
            f"unknown head {name!r}.{did_you_mean(name, HEADS)}", fix=f"use one of: {', '.join(HEADS)}"
        )
    return HEADS[name]


def initial_scale(name: str, answers: Sequence[int]) -> torch.Tensor:
    """``(K,)`` factors before calibration: 1 for ``dirichlet``, `FIXED_TOTAL` for heads that give fractions.

    The factor is constant over a question's answers, so that whatever calibration makes of it moves no fraction.
    """
    return torch.full((sum(answers),), 1.0 if name == "dirichlet" else FIXED_TOTAL)


def make_classifier(name: str, features: int, answers: Sequence[int]) -> nn.Linear:
    """Make the linear layer in front of a head.

    For ``fractions`` it starts with a bias of 1 and weights of 0.01, so that hardly an answer starts below 0, where
    it has no gradient. (Dieleman et al. trained the first 10,000 examples without the normalisation instead.)
    """
    layer = nn.Linear(features, sum(answers))
    if name == "fractions":
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.ones_(layer.bias)
    return layer
