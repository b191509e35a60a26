"""Figures of a run: its tables against labels, on one split."""

from __future__ import annotations

from typing import Any

import numpy as np

from surveyproc.errors import InputError
from surveyproc.evaluate.morphology import evaluate_morphology
from surveyproc.identifiers import splits_of
from surveyproc.runs import open_run
from surveyproc.votes import VoteSchema
from surveyproc.votes.labels import Labels, join_ids

TABLE = "morphology_posterior"


def evaluate_run(run_uri: str, labels: Labels, schema: VoteSchema, split: str = "test") -> dict[str, Any]:
    """Compare ``morphology_posterior`` of a run with labels.

    The predicted joint value of an answer is its mean fraction times the proportion asked, both of this
    table alone.

    Parameters
    ----------
    split : str
        ``test``, ``calibration``, ``validation``, or ``all`` (which includes training ids).

    Returns
    -------
    dict
        ``evaluate_morphology``'s figures, with ``split``, ``columns`` and ``ids`` (matched, only_in_run,
        only_in_labels: of all splits).

    Raises
    ------
    InputError
        When the run lacks a column of the VoteSchema, has a null mean, or shares no id of the split with
        the labels.
    """
    opened = open_run(run_uri)
    means = [f"{column}_mean" for column in schema.columns]
    present = opened.dataset(TABLE).schema.names
    missing = [c for c in means if c not in present]
    if missing:
        raise InputError(
            f"the run lacks {len(missing)} of {len(means)} columns of {schema.name!r}: {missing[0]}, ...",
            where=f"{run_uri}/{TABLE}",
            fix="evaluate with the --schema of the run's bundle, or run a bundle of this schema",
        )
    table = opened.table(TABLE, columns=["object_id", *means])
    ids = [str(i) for i in table["object_id"].to_pylist()]
    join = join_ids(ids, labels.ids)
    chosen = np.ones(len(join.left), bool)
    if split != "all":
        chosen = splits_of(ids[row] for row in join.left) == split
    if not chosen.any():
        raise InputError(
            f"no {split} id is in both: {join.describe('run', 'labels')} "
            f"(run: {', '.join(ids[:3])}; labels: {', '.join(labels.ids[:3])})",
            where=run_uri,
            fix="check --id, and that these labels belong to this run",
        )
    fractions = np.stack([table[c].to_numpy().astype(np.float64) for c in means], axis=1)[join.left[chosen]]
    if not np.isfinite(fractions).all():
        raise InputError(f"{TABLE} holds a mean that is not a number", where=run_uri, fix="verify the run")
    figures = evaluate_morphology(fractions, labels.joint[join.right[chosen]], schema)
    return figures | {
        "split": split,
        "columns": len(means),
        "ids": {
            "matched": len(join.left),
            "only_in_run": join.left_only,
            "only_in_labels": join.right_only,
        },
    }
