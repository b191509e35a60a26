"""From votes to joint values, and invented votes for labels that come without any."""

from __future__ import annotations

import numpy as np

from surveyproc.votes.tree import VoteSchema


def joint_of_counts(counts: np.ndarray, schema: VoteSchema) -> np.ndarray:
    """Turn votes into joint values: ``count / N`` of each question, times the proportion asked.

    Parameters
    ----------
    counts : numpy.ndarray
        ``(N, K)`` votes.

    Returns
    -------
    numpy.ndarray
        ``(N, K)`` float64, never NaN: a question nobody answered is 0, and so is all that hangs on it.
    """
    totals = schema.totals(counts)[:, schema.question_of]
    fractions = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    return np.nan_to_num(schema.joint(fractions), nan=0.0)


def pseudo_counts(joint: np.ndarray, schema: VoteSchema) -> np.ndarray:
    """Invent the votes behind labels that come as fractions: ``N = round(votes_per_galaxy x asked)``.

    Parameters
    ----------
    joint : numpy.ndarray
        ``(N, K)`` joint values.

    Returns
    -------
    numpy.ndarray
        ``(N, K)`` float64: each question's counts sum to its whole number N of pseudo-volunteers; all 0 where N
        is 0 or the question was not answered.
    """
    joint = np.asarray(joint, dtype=np.float64)
    number = np.round(schema.asked_of_joint(joint) * schema.votes_per_galaxy)[:, schema.question_of]
    totals = schema.totals(joint)[:, schema.question_of]
    return number * np.divide(joint, totals, out=np.zeros_like(joint), where=totals > 0)
