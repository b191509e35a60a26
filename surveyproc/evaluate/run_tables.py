"""A run's tables beside labels: the galaxies and answers that both have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from surveyproc.errors import InputError, did_you_mean
from surveyproc.identifiers import hash_ids, splits_of
from surveyproc.runs.run import Run
from surveyproc.votes import Question, VoteSchema, pseudo_counts
from surveyproc.votes.labels import Labels, join_ids
from surveyproc.votes.metrics import Comparison, known_joint, scored_questions

POSTERIOR = "morphology_posterior"
FRIENDLY = "morphology"


@dataclass(frozen=True)
class Aligned:
    """Predictions and labels of the N galaxies of one split.

    Attributes
    ----------
    ids : list of str
    keys : numpy.ndarray
        ``(N,)`` uint64 hashes of the ids.
    comparison : Comparison
        Over the answers in both.
    whole : VoteSchema or None
        Of the questions whose answers are the same in both; None without one.
    concentrations, votes : numpy.ndarray or None
        ``(N, K')`` of ``whole``'s answers: the matched Dirichlet, where the run has it, and the votes.
    lower, upper : numpy.ndarray
        ``(N, K')`` 90 % intervals, NaN where the run is silent.
    facts : dict
        ``split``, ``columns``, ``ids``, ``answers`` (which are in one only) and ``votes`` (real or pseudo).
    """

    ids: list[str]
    keys: np.ndarray
    comparison: Comparison
    whole: VoteSchema | None
    concentrations: np.ndarray | None
    votes: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    facts: dict[str, Any]


def align(run: Run, labels: Labels, schema: VoteSchema, split: str = "test", min_votes: float = 0) -> Aligned:
    """Find what a run and labels have in common.

    The predicted joint value of an answer is its mean fraction times the proportion asked by the labels' tree
    from the run's mean fractions; where the run lacks a question above it, the run's own
    ``{question}_proportion_asked``.

    Parameters
    ----------
    labels, schema
        Labels and the VoteSchema they are of; the run's may be another.
    split : str
        ``test``, ``calibration``, ``validation``, or ``all`` (which includes training ids).
    min_votes : float
        Votes a question needs of a galaxy to be scored.

    Raises
    ------
    InputError
        When no answer or no id of the split is in both, or a mean is not a number.
    """
    present = run.dataset(POSTERIOR).schema.names
    common = [c for c in schema.columns if f"{c}_mean" in present]
    if not common:
        theirs = [n.removesuffix("_mean") for n in present if n.endswith("_mean")]
        raise InputError(
            f"the run has none of the {len(schema.columns)} answers of {schema.name!r}."
            f"{did_you_mean(schema.columns[0], theirs)}",
            where=f"{run.uri}/{POSTERIOR}: {', '.join(theirs[:3])}, ...",
            fix="evaluate with labels of a tree that shares questions with the run's bundle",
        )
    posterior = run.table(
        POSTERIOR, [n for n in present if n == "object_id" or n.endswith(("_mean", "_concentration"))]
    )
    ids = [str(i) for i in posterior["object_id"].to_pylist()]
    join = join_ids(ids, labels.ids)
    splits = splits_of(ids[row] for row in join.left)
    chosen = np.ones(len(join.left), bool) if split == "all" else splits == split
    if not chosen.any():
        raise InputError(
            f"no {split} id is in both: {join.describe('run', 'labels')} "
            f"(run: {', '.join(ids[:3])}; labels: {', '.join(labels.ids[:3])})",
            where=run.uri,
            fix="check --id, and that these labels belong to this run",
        )
    left, right = join.left[chosen], join.right[chosen]
    posterior, joint = posterior.take(pa.array(left)), labels.joint[right]
    counts = labels.counts[right] if labels.counts is not None else None
    fractions = _columns(posterior, [f"{c}_mean" for c in schema.columns])
    if not np.isfinite(fractions[:, [c in common for c in schema.columns]]).all():
        raise InputError(
            f"{POSTERIOR} holds a mean that is not a number", where=run.uri, fix="verify the run"
        )
    friendly = _friendly(run, [ids[row] for row in left], schema)
    votes = pseudo_counts(joint, schema) if counts is None else counts
    comparison = _comparison(schema, common, fractions, joint, friendly, counts, min_votes)
    whole, places = _whole(schema, present)
    names = [schema.columns[k] for k in places]
    dirichlet = bool(names) and all(f"{c}_concentration" in present for c in names)
    return Aligned(
        ids=[ids[row] for row in left],
        keys=hash_ids(posterior["object_id"]),
        comparison=comparison,
        whole=whole,
        concentrations=_columns(posterior, [f"{c}_concentration" for c in names]) if dirichlet else None,
        votes=votes[:, places],
        lower=_columns(friendly, [f"{c}_fraction_lower" for c in names]),
        upper=_columns(friendly, [f"{c}_fraction_upper" for c in names]),
        facts={
            "split": split,
            "columns": len(common),
            "ids": {
                "matched": len(join.left),
                "only_in_run": join.left_only,
                "only_in_labels": join.right_only,
            },
            "answers": {
                "compared": len(common),
                "only_in_labels": [c for c in schema.columns if c not in common],
                "only_in_run": _only_in_run(present, schema),
            },
            "votes": "counts"
            if counts is not None
            else f"pseudo-counts: the labels are fractions; round({schema.votes_per_galaxy} x proportion asked)",
        },
    )


def _comparison(
    schema: VoteSchema,
    common: list[str],
    fractions: np.ndarray,
    joint: np.ndarray,
    friendly: pa.Table,
    counts: np.ndarray | None,
    min_votes: float,
) -> Comparison:
    predicted = schema.joint(fractions)
    own = _columns(friendly, [f"{q.name}_proportion_asked" for q in schema.questions])[:, schema.question_of]
    predicted = np.where(np.isfinite(predicted), predicted, fractions * own)
    scored = scored_questions(joint, schema, counts, min_votes)
    kept, slices, start = [], {}, 0
    for name, s in schema.slices.items():
        mine = [k for k in range(s.start, s.stop) if schema.columns[k] in common]
        if mine:
            slices[name] = slice(start, start + len(mine))
            start += len(mine)
            kept += mine
    questions = [q for q, name in enumerate(schema.slices) if name in slices]
    return Comparison(
        slices,
        fractions[:, kept],
        predicted[:, kept],
        schema.conditional(joint)[:, kept],
        known_joint(joint, schema)[:, kept],
        scored[:, questions],
    )


def _whole(schema: VoteSchema, present: list[str]) -> tuple[VoteSchema | None, list[int]]:
    """Return the questions with the same answers in both, and their places among the labels' columns."""
    extra = {_question_of(c, schema) for c in _only_in_run(present, schema)}
    same = [
        q for q in schema.questions if q.name not in extra and all(f"{c}_mean" in present for c in q.columns)
    ]
    places = [k for q in same for k in range(schema.slices[q.name].start, schema.slices[q.name].stop)]
    return (
        VoteSchema(schema.name, tuple(Question(q.name, q.answers) for q in same)) if same else None
    ), places


def _only_in_run(present: list[str], schema: VoteSchema) -> list[str]:
    means = [n.removesuffix("_mean") for n in present if n.endswith("_mean")]
    return [c for c in means if c not in schema.columns]


def _question_of(column: str, schema: VoteSchema) -> str | None:
    """The longest of the labels' question names that the column begins with."""
    names = [q.name for q in schema.questions if column.startswith(f"{q.name}_")]
    return max(names, key=len) if names else None


def _friendly(run: Run, ids: list[str], schema: VoteSchema) -> pa.Table:
    """Rows of ``morphology`` in the order of the ids, the columns that are there."""
    wanted = [f"{q.name}_proportion_asked" for q in schema.questions]
    wanted += [f"{c}_fraction_{end}" for c in schema.columns for end in ("lower", "upper")]
    names = set(run.dataset(FRIENDLY).schema.names)
    table = run.table(FRIENDLY, ["object_id", *(n for n in wanted if n in names)])
    row_of = {str(i): row for row, i in enumerate(table["object_id"].to_pylist())}
    return table.take(pa.array([row_of[i] for i in ids]))


def _columns(table: pa.Table, names: list[str]) -> np.ndarray:
    """``(N, len(names))`` float64; NaN for nulls and for columns that are not there."""
    found = np.full((table.num_rows, len(names)), np.nan)
    for k, name in enumerate(names):
        if name in table.column_names:
            found[:, k] = table[name].to_numpy().astype(np.float64)
    return found
