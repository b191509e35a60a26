"""All figures of a run's morphology against labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from surveyproc.evaluate.bootstrap import bootstrap
from surveyproc.evaluate.groups import group_rows
from surveyproc.evaluate.run_tables import Aligned, align
from surveyproc.inference.calibration import LEVEL, MIN_VOTES, coverage
from surveyproc.inference.likelihood import vote_log_likelihood
from surveyproc.runs import open_run
from surveyproc.votes import VoteSchema
from surveyproc.votes.labels import Labels
from surveyproc.votes.metrics import Comparison, constant_rmse, kaggle_rmse, question_figures, reliability


def evaluate_run(
    run_uri: str,
    labels: Labels,
    schema: VoteSchema,
    split: str = "test",
    *,
    min_votes: float = 0,
    by: str | None = None,
    labels_path: str | None = None,
    id_column: str | None = None,
) -> dict[str, Any]:
    """Compare ``morphology_posterior`` of a run with labels.

    Parameters
    ----------
    labels, schema
        Labels and the VoteSchema they are of; the answers that the run has too are compared.
    split : str
        ``test``, ``calibration``, ``validation``, or ``all`` (which includes training ids).
    min_votes : float
        Votes a question needs of a galaxy to be scored; needs labels with counts to matter.
    by : str, optional
        ``magnitude``, ``size``, ``redshift`` or a numeric column of the run, its catalog or the labels: the
        figures are repeated in quantile bins of it.
    labels_path, id_column : str, optional
        Where the labels came from, to look for ``by`` there.

    Returns
    -------
    dict
        ``comparison_figures``, ``spread_figures`` and ``align``'s facts; ``groups`` with ``by``.

    Raises
    ------
    InputError
        When run and labels have no answer or no id of the split in common, or there is no column ``by``.
    """
    run = open_run(run_uri)
    aligned = align(run, labels, schema, split, min_votes)
    figures = comparison_figures(aligned.comparison)
    interval, questions = bootstrap(aligned.comparison)
    figures["rmse_interval"] = interval
    bins = reliability(aligned.comparison)
    for name, entry in figures["questions"].items():
        entry |= questions[name] | {"reliability": bins[name]}
    figures |= spread_figures(aligned) | aligned.facts | {"min_votes": min_votes}
    if by is not None:
        name, where, groups = group_rows(run, aligned.ids, by, labels_path, id_column)
        figures["by"] = {"column": name, "found_in": where, "without": groups.without}
        figures["groups"] = [
            {"low": low, "high": high}
            | comparison_figures(aligned.comparison.take(rows))
            | {"coverage": _coverage(aligned, rows)}
            for low, high, rows in groups.bins
        ]
    return figures


def comparison_figures(comparison: Comparison) -> dict[str, Any]:
    """Return ``rmse``, ``constant_rmse``, ``n`` and ``questions``.

    ``rmse`` compares the expected fraction times the proportion asked with the volunteers' joint values.
    ``constant_rmse`` predicts the mean of these same labels: what a model must beat.
    """
    joint = comparison.said_joint
    return {
        "rmse": kaggle_rmse(comparison.joint, joint),
        "constant_rmse": constant_rmse(joint),
        "n": len(comparison),
        "questions": question_figures(comparison),
    }


def spread_figures(aligned: Aligned) -> dict[str, Any]:
    """Judge what the run says of its own uncertainty.

    Returns
    -------
    dict
        ``coverage`` of predicted votes (`inference.calibration.coverage`, one Dirichlet with the concentrations
        of ``morphology_posterior``), ``log_likelihood``: nats for each galaxy, in all and for each question
        over the galaxies with votes, and ``interval_coverage``: how often ``_fraction_lower`` to ``_upper`` hold
        the volunteers' fraction, which also scatters because few were asked, so that less than 90 % is
        expected. None where the run has no concentrations or no question has the same answers in both.
    """
    schema = aligned.whole
    if schema is None:
        return {"coverage": None, "log_likelihood": None, "interval_coverage": None}
    number = schema.totals(aligned.votes)
    likelihood = None
    if aligned.concentrations is not None:
        nats = vote_log_likelihood(aligned.concentrations[None], aligned.votes, schema)
        likelihood = {
            "nats_per_galaxy": float(nats.sum(1).mean()),
            "questions": {
                name: float(nats[number[:, q] > 0, q].mean()) if (number[:, q] > 0).any() else None
                for q, name in enumerate(schema.slices)
            },
        }
    return {
        "coverage": _coverage(aligned, np.arange(len(aligned.ids))),
        "log_likelihood": likelihood,
        "interval_coverage": _interval_coverage(aligned, schema, number),
    }


def _coverage(aligned: Aligned, rows: np.ndarray) -> dict[str, Any] | None:
    if aligned.whole is None or aligned.concentrations is None:
        return None
    return coverage(
        aligned.concentrations[None, rows], aligned.votes[rows], aligned.whole, aligned.keys[rows]
    )


def _interval_coverage(aligned: Aligned, schema: VoteSchema, number: np.ndarray) -> dict[str, Any]:
    asked = number[:, schema.question_of]
    said = np.divide(aligned.votes, asked, out=np.zeros_like(asked), where=asked > 0)
    counted = np.isfinite(aligned.lower) & np.isfinite(aligned.upper) & (asked >= MIN_VOTES)
    hit = (said >= aligned.lower) & (said <= aligned.upper)

    def share(which: np.ndarray, hits: np.ndarray) -> dict[str, Any]:
        return {"n": int(which.sum()), "coverage": float(hits[which].mean()) if which.any() else None}

    return {
        "level": LEVEL,
        "pooled": share(counted, hit),
        "questions": {name: share(counted[:, s], hit[:, s]) for name, s in schema.slices.items()},
    }
