"""Whether the numbers of a label file are what they are said to be: joint values, fractions, or votes."""

from __future__ import annotations

import numpy as np

from surveyproc.votes.label_file import LabelColumns
from surveyproc.votes.parse import VALUES
from surveyproc.votes.tree import VoteSchema

# the Galaxy Challenge targets are off by 1e-6 at most; catalogues with three decimals by 0.0005 for each answer
SUM_TOLERANCE = 0.005
RANGE_TOLERANCE = 1e-6


def value_problems(labels: LabelColumns, kind: str, schema: VoteSchema) -> list[str]:
    """List what keeps the values from being of a kind, each by column or question, count and example.

    Parameters
    ----------
    labels : LabelColumns
        Rows without any vote already left out.
    kind : str
        ``joint``, ``fractions`` or ``counts``.
    """
    infinite = np.isinf(labels.values)
    problems = _by_column(labels, infinite, "is infinite")
    check = _count_problems if kind == "counts" else _fraction_problems
    return problems + check(labels, np.where(infinite, np.nan, labels.values), infinite, kind, schema)


def kinds_that_fit(labels: LabelColumns, schema: VoteSchema) -> list[str]:
    """Kinds under which the values have no problem; ``counts`` only when they are whole numbers."""
    fits = [kind for kind in VALUES if not value_problems(labels, kind, schema)]
    finite = labels.values[np.isfinite(labels.values)]
    whole = bool((finite == np.round(finite)).all())
    return [kind for kind in fits if kind != "counts" or whole]


def partly_empty(values: np.ndarray, schema: VoteSchema) -> np.ndarray:
    """``(N, Q)`` bool: some answers of the question are empty, others not."""
    empty = np.isnan(values)
    return np.stack([empty[:, s].any(1) & ~empty[:, s].all(1) for s in schema.slices.values()], axis=1)


def _count_problems(
    labels: LabelColumns, values: np.ndarray, infinite: np.ndarray, kind: str, schema: VoteSchema
) -> list[str]:
    problems = _by_column(labels, values < 0, "is negative")
    partly = partly_empty(np.where(infinite, 0.0, values), schema)
    for q, question in enumerate(schema.questions):
        if (rows := np.flatnonzero(partly[:, q])).size:
            problems.append(
                f"galaxies where some answers of {question.name!r} are empty and others are not: {len(rows)} "
                f"(id {labels.ids[rows[0]]})"
            )
    totals = schema.totals(np.nan_to_num(values))
    parts = values[np.isfinite(values)] % 1 != 0
    if not problems and parts.any() and (totals <= 1 + SUM_TOLERANCE).all():
        problems.append("no question has more than one vote, and the votes are not whole numbers")
    return problems


def _fraction_problems(
    labels: LabelColumns, values: np.ndarray, infinite: np.ndarray, kind: str, schema: VoteSchema
) -> list[str]:
    outside = (values < -RANGE_TOLERANCE) | (values > 1 + RANGE_TOLERANCE)
    problems = _by_column(labels, outside, "is outside [0, 1]")
    joint = kind == "joint"
    asked = schema.asked_of_joint(values) if joint else schema.proportion_asked(values)
    missing = np.isnan(values) & ~infinite & (asked[:, schema.question_of] > 0)
    problems += _by_column(labels, missing, "is empty though its question was asked")
    target = asked if joint else np.where(asked > 0, 1.0, np.nan)
    totals = schema.totals(values)
    for q, (question, s) in enumerate(zip(schema.questions, schema.slices.values())):
        unusable = outside[:, s].any(1) | outside[:, schema.parent_columns[q]].any(1)
        # comparisons with NaN are false: what is empty or not asked has no sum
        off = np.abs(totals[:, q] - target[:, q]) > SUM_TOLERANCE
        if (rows := np.flatnonzero(off & ~unusable)).size:
            row = rows[0]
            aim = "the value of its parents" if joint and question.parents else "1"
            problems.append(
                f"galaxies where {question.name!r} does not sum to {aim}: {len(rows)} "
                f"(id {labels.ids[row]}: {totals[row, q]:.4g}, not {target[row, q]:.4g})"
            )
    return problems


def _by_column(labels: LabelColumns, wrong: np.ndarray, what: str) -> list[str]:
    problems = []
    for k in np.flatnonzero(wrong.any(axis=0)):
        rows = np.flatnonzero(wrong[:, k])
        value = labels.values[rows[0], k]
        example = f"id {labels.ids[rows[0]]}" + ("" if np.isnan(value) else f": {value:g}")
        problems.append(f"galaxies where {labels.names[k]} {what}: {len(rows)} ({example})")
    return problems
