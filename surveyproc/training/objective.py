"""The sum of the loss terms a recipe asks for."""

from __future__ import annotations

import torch

from surveyproc.training.losses import class_cross_entropy, dirichlet_multinomial_nll, squared_error
from surveyproc.training.recipe import Recipe
from surveyproc.votes import VoteSchema


def objective(
    concentrations: torch.Tensor,
    joint: torch.Tensor,
    counts: torch.Tensor,
    known: torch.Tensor,
    schema: VoteSchema,
    recipe: Recipe,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """``(N,)`` loss: the recipe's weights times squared error, negative log likelihood and cross entropy.

    The first is what is measured, the second gives the concentrations their meaning.

    Parameters
    ----------
    concentrations, joint, counts : torch.Tensor
        ``(N, K)`` float32.
    known : torch.Tensor
        ``(N, K)``: 0 where a joint value is missing because nobody answered, else 1.
    weights : torch.Tensor, optional
        ``(K,)`` factors of the answers (`training.losses.class_weights`).
    """
    total = concentrations.new_zeros(len(concentrations))
    if recipe.joint:
        total = total + recipe.joint * squared_error(
            concentrations, joint, schema, known if weights is None else known * weights
        )
    if recipe.likelihood:
        nll = dirichlet_multinomial_nll(concentrations, counts, schema, weights)
        total = total + recipe.likelihood * nll
    if recipe.classes:
        total = total + recipe.classes * class_cross_entropy(concentrations, joint, schema, weights)
    return total
