"""How far predicted vote fractions are from volunteers'."""

from __future__ import annotations

from typing import Any

import numpy as np

from surveyproc.errors import InputError
from surveyproc.votes import VoteSchema

HIGH_AGREEMENT = 0.8


def kaggle_rmse(predicted: np.ndarray, target: np.ndarray) -> float:
    """Root mean squared error with one root over galaxies and answers (the Galaxy Challenge's).

    Parameters
    ----------
    predicted, target : numpy.ndarray
        ``(N, K)`` joint values.

    Raises
    ------
    InputError
        For shapes that differ, or no galaxy.
    """
    predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    if predicted.shape != target.shape or predicted.size == 0:
        raise InputError(f"cannot compare predictions {predicted.shape} with targets {target.shape}")
    return float(np.sqrt(np.mean((predicted - target) ** 2)))


def question_figures(fractions: np.ndarray, joint: np.ndarray, schema: VoteSchema) -> dict[str, dict]:
    """Figures of each question.

    Parameters
    ----------
    fractions : numpy.ndarray
        ``(N, K)`` predicted conditional fractions.
    joint : numpy.ndarray
        ``(N, K)`` joint values of the volunteers.

    Returns
    -------
    dict
        For each question: ``rmse`` of the joint values and ``constant_rmse`` of their mean; over the ``n``
        galaxies where at least half of the volunteers were asked, ``accuracy`` of the most voted answer, and
        ``n_high_agreement`` of them where more than 0.8 of those asked agree, with
        ``accuracy_high_agreement`` and ``constant_high_agreement`` (always answering what is most common
        there). An accuracy over no galaxy is None. ``fraction_mae`` is the mean absolute error of the
        conditional fractions over the same ``n`` galaxies.
    """
    predicted_joint = schema.joint(fractions)
    truth = schema.conditional(joint)
    asked = schema.asked_of_joint(joint)
    figures: dict[str, dict[str, Any]] = {}
    for q, (name, s) in enumerate(schema.slices.items()):
        rows = asked[:, q] >= 0.5
        said, guessed = truth[rows][:, s], np.asarray(fractions)[rows][:, s]
        best = said.argmax(1) if len(said) else np.empty(0, int)
        right = guessed.argmax(1) == best if len(said) else np.empty(0, bool)
        high = said.max(1) > HIGH_AGREEMENT if len(said) else np.empty(0, bool)
        constant = np.broadcast_to(joint[:, s].mean(0), joint[:, s].shape)
        figures[name] = {
            "rmse": kaggle_rmse(predicted_joint[:, s], joint[:, s]),
            "constant_rmse": kaggle_rmse(constant, joint[:, s]),
            "n": int(rows.sum()),
            "fraction_mae": float(np.abs(guessed - said).mean()) if len(said) else None,
            "accuracy": float(right.mean()) if len(right) else None,
            "n_high_agreement": int(high.sum()),
            "accuracy_high_agreement": float(right[high].mean()) if high.any() else None,
            "constant_high_agreement": _most_common(best[high]) if high.any() else None,
        }
    return figures


def evaluate_morphology(fractions: np.ndarray, joint: np.ndarray, schema: VoteSchema) -> dict[str, Any]:
    """Return all figures: ``rmse``, ``constant_rmse``, ``n`` and ``questions``.

    ``rmse`` compares ``schema.joint(fractions)``, the expected fraction times the proportion asked, with the
    volunteers' joint values. ``constant_rmse`` predicts the mean of these same labels: what a model must beat.
    """
    joint = np.asarray(joint, np.float64)
    return {
        "rmse": kaggle_rmse(schema.joint(fractions), joint),
        "constant_rmse": kaggle_rmse(np.broadcast_to(joint.mean(0), joint.shape), joint),
        "n": len(joint),
        "questions": question_figures(fractions, joint, schema),
    }


def _most_common(answers: np.ndarray) -> float:
    return float(np.bincount(answers).max() / len(answers))
