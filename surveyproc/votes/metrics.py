"""How far predicted vote fractions are from volunteers'."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from surveyproc.errors import InputError
from surveyproc.votes.tree import VoteSchema

HIGH_AGREEMENT = 0.8
ASKED_BY_HALF = 0.5
BINS = 10


@dataclass(frozen=True)
class Comparison:
    """Predictions and volunteers' answers for the same N galaxies, over the K answers that both have.

    Attributes
    ----------
    slices : dict of str to slice
        Where each of the Q questions' answers lie among the K columns.
    fractions, joint : numpy.ndarray
        ``(N, K)`` predicted conditional fractions and joint values.
    said, said_joint : numpy.ndarray
        ``(N, K)`` the same of the volunteers; ``said`` is NaN where nobody was asked or answered, ``said_joint``
        where nobody answered who was asked (`VoteSchema.known`).
    scored : numpy.ndarray
        ``(N, Q)`` whether the question was asked of at least half of the volunteers (and had enough votes).
    """

    slices: dict[str, slice]
    fractions: np.ndarray
    joint: np.ndarray
    said: np.ndarray
    said_joint: np.ndarray
    scored: np.ndarray

    def __len__(self) -> int:
        return len(self.fractions)

    def take(self, rows: np.ndarray) -> Comparison:
        """Keep some galaxies."""
        names = ("fractions", "joint", "said", "said_joint", "scored")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def compare(
    fractions: np.ndarray,
    joint: np.ndarray,
    schema: VoteSchema,
    counts: np.ndarray | None = None,
    min_votes: float = 0,
) -> Comparison:
    """Put predictions beside labels of the same VoteSchema.

    Parameters
    ----------
    fractions : numpy.ndarray
        ``(N, K)`` predicted conditional fractions.
    joint : numpy.ndarray
        ``(N, K)`` joint values of the volunteers.
    counts : numpy.ndarray, optional
        ``(N, K)`` votes; a question with fewer than ``min_votes`` of a galaxy is not scored.
    """
    fractions, joint = np.asarray(fractions, np.float64), np.asarray(joint, np.float64)
    predicted = schema.joint(fractions)
    scored = scored_questions(joint, schema, counts, min_votes)
    said = schema.conditional(joint)
    return Comparison(schema.slices, fractions, predicted, said, known_joint(joint, schema), scored)


def scored_questions(
    joint: np.ndarray, schema: VoteSchema, counts: np.ndarray | None, min_votes: float
) -> np.ndarray:
    """``(N, Q)`` questions asked of at least half of the volunteers, answered, and by enough of them."""
    scored = (schema.asked_of_joint(joint) >= ASKED_BY_HALF) & (schema.totals(joint) > 0)
    return scored if counts is None else scored & (schema.totals(counts) >= min_votes)


def known_joint(joint: np.ndarray, schema: VoteSchema) -> np.ndarray:
    """``(N, K)`` joint values with NaN where nobody answered who was asked."""
    return np.where(schema.known(joint)[:, schema.question_of], joint, np.nan)


def kaggle_rmse(predicted: np.ndarray, target: np.ndarray) -> float:
    """Root mean squared error with one root over galaxies and answers (the Galaxy Challenge's).

    Parameters
    ----------
    predicted, target : numpy.ndarray
        ``(N, K)`` joint values; targets that are NaN are missing and left out.

    Raises
    ------
    InputError
        For shapes that differ, or no target.
    """
    predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    known = np.isfinite(target)
    if predicted.shape != target.shape or not known.any():
        raise InputError(f"cannot compare predictions {predicted.shape} with targets {target.shape}")
    return float(np.sqrt(np.mean((predicted[known] - target[known]) ** 2)))


def constant_rmse(target: np.ndarray) -> float:
    """RMSE of always predicting the mean of these same targets: what a model must beat."""
    return kaggle_rmse(np.broadcast_to(known_mean(target), target.shape), target)


def known_mean(target: np.ndarray) -> np.ndarray:
    """``(K,)`` mean of the targets that are not NaN; 0 where all are."""
    return np.nansum(target, axis=0) / np.maximum(np.isfinite(target).sum(axis=0), 1)


def question_figures(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Figures of each question.

    Returns
    -------
    dict
        For each question ``rmse`` of the joint values and ``constant_rmse`` of their mean. Over the ``n``
        galaxies that are scored: ``fraction_mae``, the mean absolute deviation of the conditional fractions,
        ``accuracy`` of the most voted answer and ``balanced_accuracy``, the mean of the accuracies on the
        galaxies of each such answer. Over ``n_high_agreement`` of them, where more than 0.8 of those asked
        agree: ``accuracy_high_agreement``, ``balanced_accuracy_high_agreement``. Always giving the most common
        answer has ``constant_accuracy``, ``constant_balanced_accuracy``, ``constant_high_agreement`` and
        ``constant_balanced_high_agreement``. A figure over no galaxy is None.
    """
    figures: dict[str, dict[str, Any]] = {}
    for q, (name, s) in enumerate(comparison.slices.items()):
        rows = comparison.scored[:, q]
        said, guessed = comparison.said[rows][:, s], comparison.fractions[rows][:, s]
        joint = comparison.said_joint[:, s]
        known = np.isfinite(joint).any()
        high = said.max(1, initial=0.0) > HIGH_AGREEMENT
        best, guess = said.argmax(1), guessed.argmax(1)
        everywhere, agreed = _accuracies(best, guess), _accuracies(best[high], guess[high])
        figures[name] = {
            "rmse": kaggle_rmse(comparison.joint[:, s], joint) if known else None,
            "constant_rmse": constant_rmse(joint) if known else None,
            "n": int(rows.sum()),
            "fraction_mae": float(np.abs(guessed - said).mean()) if len(said) else None,
            "accuracy": everywhere[0],
            "balanced_accuracy": everywhere[1],
            "constant_accuracy": everywhere[2],
            "constant_balanced_accuracy": everywhere[3],
            "n_high_agreement": int(high.sum()),
            "accuracy_high_agreement": agreed[0],
            "balanced_accuracy_high_agreement": agreed[1],
            "constant_high_agreement": agreed[2],
            "constant_balanced_high_agreement": agreed[3],
        }
    return figures


def reliability(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    """Predicted against observed fractions of each question's scored galaxies, in bins of the predicted one.

    Returns
    -------
    dict
        For each question up to 10 bins, empty ones left out: ``low``, ``high``, mean ``predicted``, mean
        ``observed``, and ``n`` answers of galaxies.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for q, (name, s) in enumerate(comparison.slices.items()):
        rows = comparison.scored[:, q]
        predicted, observed = comparison.fractions[rows, s].ravel(), comparison.said[rows, s].ravel()
        bins = np.minimum((predicted * BINS).astype(int), BINS - 1)
        found[name] = [
            {
                "low": b / BINS,
                "high": (b + 1) / BINS,
                "predicted": float(predicted[bins == b].mean()),
                "observed": float(observed[bins == b].mean()),
                "n": int((bins == b).sum()),
            }
            for b in np.unique(bins).tolist()
        ]
    return found


def _accuracies(best: np.ndarray, guess: np.ndarray) -> tuple[float | None, ...]:
    """Accuracy, balanced accuracy, and both of always giving the most common answer; None over no galaxy."""
    if not len(best):
        return None, None, None, None
    right = best == guess
    classes, counts = np.unique(best, return_counts=True)
    balanced = float(np.mean([right[best == c].mean() for c in classes]))
    return float(right.mean()), balanced, float(counts.max() / len(best)), 1 / len(classes)
