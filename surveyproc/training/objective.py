"""The sum of loss terms a recipe asks for, and the weights of galaxies."""

from __future__ import annotations

import numpy as np
import torch

from surveyproc.training.losses import dirichlet_multinomial_nll, squared_error
from surveyproc.training.recipe import Recipe
from surveyproc.votes import VoteSchema

MOST_WEIGHT = 10.0


def objective(
    concentrations: torch.Tensor,
    joint: torch.Tensor,
    counts: torch.Tensor,
    schema: VoteSchema,
    recipe: Recipe,
) -> torch.Tensor:
    """``(N,)`` loss: the recipe's weights times squared error, negative log likelihood and cross entropy.

    The first is what is measured, the second gives the concentrations their meaning.

    Parameters
    ----------
    concentrations, joint, counts : torch.Tensor
        ``(N, K)`` float32.
    """
    total = concentrations.new_zeros(len(concentrations))
    if recipe.joint:
        total = total + recipe.joint * squared_error(concentrations, joint, schema)
    if recipe.likelihood:
        total = total + recipe.likelihood * dirichlet_multinomial_nll(concentrations, counts, schema)
    if recipe.classes:
        from surveyproc.training.losses import class_cross_entropy  # type: ignore[attr-defined]

        total = total + recipe.classes * class_cross_entropy(concentrations, joint, schema)
    return total


def balance_weights(joint: np.ndarray, schema: VoteSchema) -> np.ndarray:
    """Weights of galaxies by how rare their majority answers are.

    A question counts for a galaxy when at least half of its volunteers were asked. The weight of an answer is
    ``n / (K n_k)``, with n galaxies that are asked and n_k with this majority of K answers; that of a galaxy is
    the mean over its questions, at most `MOST_WEIGHT`, and the mean over galaxies is 1.

    Parameters
    ----------
    joint : numpy.ndarray
        ``(N, K)`` joint values.

    Returns
    -------
    numpy.ndarray
        ``(N,)`` float32.
    """
    asked = schema.asked_of_joint(joint)
    total, questions = np.zeros(len(joint)), np.zeros(len(joint))
    for number, columns in enumerate(schema.slices.values()):
        rows = np.flatnonzero(asked[:, number] >= 0.5)
        if len(rows) == 0:
            continue
        majority = joint[rows, columns].argmax(1)
        frequency = np.bincount(majority, minlength=columns.stop - columns.start)
        total[rows] += (len(rows) / (len(frequency) * np.maximum(frequency, 1)))[majority]
        questions[rows] += 1
    weights = np.minimum(np.where(questions > 0, total / np.maximum(questions, 1), 1.0), MOST_WEIGHT)
    return (weights / weights.mean()).astype(np.float32)
