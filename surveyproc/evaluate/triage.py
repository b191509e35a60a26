"""Split a run into what the model may decide and what experts should see (Dieleman et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from surveyproc.columns import described
from surveyproc.errors import InputError, UsageError, did_you_mean
from surveyproc.evaluate.run_tables import FRIENDLY, POSTERIOR
from surveyproc.identifiers import splits_of
from surveyproc.inference.majority import majority_probability
from surveyproc.runs.run import Run
from surveyproc.votes import VoteSchema
from surveyproc.votes.labels import Labels
from surveyproc.votes.metrics import ASKED_BY_HALF, scored_questions

THRESHOLDS = np.round(np.linspace(0, 1, 51), 2)
ASKED = "_proportion_asked"
CONFIDENT = pa.schema(
    [
        described("question", pa.string(), "question of the decision tree"),
        described("answer", pa.string(), "answer with the largest expected vote fraction"),
        described("fraction", pa.float32(), "expected fraction of that answer"),
        described("agreement", pa.float32(), "1 - H(p) / log n of the expected fractions p of n answers"),
        described(
            "expected_accuracy",
            pa.float32(),
            "probability under the matched Dirichlet that this is the majority answer",
        ),
    ]
)


@dataclass(frozen=True)
class Triage:
    """Each pair of a galaxy and a question that at least half would be asked is in one of the two tables.

    Attributes
    ----------
    confident, experts : pyarrow.Table
        ``object_id`` and `CONFIDENT`'s columns; at least the agreement, surest first; and below it, least sure
        first.
    curves : dict
        For each question and ``all``: list over thresholds, ``level`` among them, of ``agreement``, ``kept`` (share of the pairs), ``expected_accuracy`` of
        those kept, and with labels ``measured`` (``n``, ``accuracy`` and ``expected_accuracy`` of the labelled pairs).
    """

    confident: pa.Table
    experts: pa.Table
    curves: dict[str, list[dict[str, Any]]]


def agreement(fractions: np.ndarray) -> np.ndarray:
    r"""Level of agreement of ``(N, n)`` vote fractions: :math:`1 - H(p)/\log n`, in [0, 1].

    Dieleman et al. 2015 (MNRAS 450, 1441): 0 when all n answers get the same, 1 when one gets all; H is the entropy.
    """
    p = np.clip(fractions, 0, 1)
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(1)
    return np.clip(1 - entropy / np.log(p.shape[1]), 0, 1)


def triage(
    run: Run,
    level: float,
    questions: list[str] | None = None,
    labels: Labels | None = None,
    schema: VoteSchema | None = None,
    split: str = "test",
) -> Triage:
    """Sort the answers of a run by how much agreement it expects; one question at a time is in memory.

    Parameters
    ----------
    run : Run
    level : float
        Agreement from which the run's answer is taken.
    questions : list of str, optional
        Of these only.
    labels, schema : optional
        To measure the accuracy on the ids of ``split``, where the labels' tree has the question with the same answers
        and at least half of the volunteers were asked.

    Raises
    ------
    UsageError
        When the run has no such question.
    InputError
        When the run has no concentrations, or labels have no question or id of the split in common.
    """
    names = set(run.dataset(POSTERIOR).schema.names)
    answers = _questions(run, names)
    if unknown := [q for q in questions or [] if q not in answers]:
        raise UsageError(
            f"the run has no question {unknown[0]!r}.{did_you_mean(unknown[0], answers)}",
            where="--question",
            fix=f"questions: {', '.join(answers)}",
        )
    told = _Told(labels, schema, split) if labels is not None and schema is not None else None
    tables, curves, columns = [], {}, []
    for question in dict.fromkeys(questions or answers):
        table = _answered(run, question, answers[question])
        correct = told.correct(table, question, answers[question]) if told else np.full(len(table), np.nan)
        tables.append(table)
        columns.append((_numbers(table, "agreement"), _numbers(table, "expected_accuracy"), correct))
        curves[question] = _curve(*columns[-1], level, bool(told))
    if told is not None and not any(np.isfinite(c[2]).any() for c in columns):
        raise InputError(
            f"no {split} id of the labels was asked one of these questions: {', '.join(curves)}",
            where=run.uri,
            fix="check --labels, --id and --schema, or leave --labels out",
        )
    if len(columns) > 1:
        agreements, expected, correct = (np.concatenate(c) for c in zip(*columns, strict=True))
        curves = {"all": _curve(agreements, expected, correct, level, bool(told))} | curves
    whole = pa.concat_tables(tables)
    sure = pc.greater_equal(whole["agreement"], pa.scalar(level, pa.float32()))
    order = "object_id", "question"
    return Triage(
        whole.filter(sure).sort_by([("agreement", "descending"), *((n, "ascending") for n in order)]),
        whole.filter(pc.invert(sure)).sort_by(
            [("agreement", "ascending"), *((n, "ascending") for n in order)]
        ),
        curves,
    )


class _Told:
    """What volunteers said, by id."""

    def __init__(self, labels: Labels, schema: VoteSchema, split: str) -> None:
        self._schema = schema
        self._row_of = {
            name: row
            for row, (name, where) in enumerate(zip(labels.ids, splits_of(labels.ids), strict=True))
            if where == split
        }
        self._said = schema.conditional(labels.joint)
        self._scored = scored_questions(labels.joint, schema, labels.counts, 0)

    def correct(self, table: pa.Table, question: str, answers: list[str]) -> np.ndarray:
        """``(N,)`` 1 where the answer is the volunteers', 0 where not, NaN where they were not asked."""
        found = np.full(len(table), np.nan)
        if question not in self._schema.slices:
            return found
        s = self._schema.slices[question]
        theirs = [c.removeprefix(f"{question}_") for c in self._schema.columns[s]]
        if sorted(theirs) != sorted(answers):
            return found
        asked = self._scored[:, list(self._schema.slices).index(question)]
        ids, chosen = table["object_id"].to_pylist(), table["answer"].to_pylist()
        for n, (i, answer) in enumerate(zip(ids, chosen, strict=True)):
            row = self._row_of.get(str(i))
            if row is not None and asked[row]:
                found[n] = theirs[int(self._said[row, s].argmax())] == answer
        return found


def _questions(run: Run, posterior: set[str]) -> dict[str, list[str]]:
    """Questions of a run and their answers, in the order of its columns."""
    friendly = run.dataset(FRIENDLY).schema.names
    found: dict[str, list[str]] = {n.removesuffix(ASKED): [] for n in friendly if n.endswith(ASKED)}
    for name in run.dataset(POSTERIOR).schema.names:
        if not name.endswith("_mean"):
            continue
        column = name.removesuffix("_mean")
        owners = [q for q in found if column.startswith(f"{q}_")]
        if owners:
            question = max(owners, key=len)
            found[question].append(column.removeprefix(f"{question}_"))
            if f"{column}_concentration" not in posterior:
                raise InputError(
                    f"the run has no column {column}_concentration: nothing says how sure it is",
                    where=f"{run.uri}/{POSTERIOR}",
                    fix="run a bundle with a head of concentrations",
                )
    return {q: a for q, a in found.items() if a}


def _answered(run: Run, question: str, answers: list[str]) -> pa.Table:
    """Answer, agreement and expected accuracy for the galaxies of which at least half would be asked."""
    asked = f"{question}{ASKED}"
    friendly = run.table(FRIENDLY, ["object_id", asked])
    friendly = friendly.filter(pc.greater_equal(friendly[asked], pa.scalar(ASKED_BY_HALF, pa.float32())))
    columns = [f"{question}_{a}_{kind}" for kind in ("mean", "concentration") for a in answers]
    joined = friendly.join(run.table(POSTERIOR, ["object_id", *columns]), "object_id", join_type="inner")
    values = np.stack([_numbers(joined, c) for c in columns], axis=1)
    means, concentrations = values[:, : len(answers)], values[:, len(answers) :]
    best = means.argmax(1)
    arrays = {
        "question": pa.array([question] * len(best), pa.string()),
        "answer": pa.array(answers, pa.string()).take(pa.array(best)),
        "fraction": means[np.arange(len(best)), best],
        "agreement": agreement(means),
        "expected_accuracy": majority_probability(concentrations, best),
    }
    table = pa.table({"object_id": joined["object_id"]} | arrays)
    return table.cast(pa.schema([table.schema.field("object_id"), *CONFIDENT]))


def _curve(
    agreements: np.ndarray, expected: np.ndarray, correct: np.ndarray, level: float, measured: bool
) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    labelled = np.isfinite(correct)
    for threshold in np.union1d(THRESHOLDS, [level]):
        kept = agreements >= np.float32(threshold)
        point: dict[str, Any] = {
            "agreement": float(threshold),
            "kept": float(kept.mean()) if len(kept) else 0.0,
            "expected_accuracy": _mean(expected[kept]),
        }
        if measured:
            judged = kept & labelled
            point["measured"] = {
                "n": int(judged.sum()),
                "kept": float(judged.sum() / labelled.sum()) if labelled.any() else 0.0,
                "accuracy": _mean(correct[judged]),
                "expected_accuracy": _mean(expected[judged]),
            }
        points.append(point)
    return points


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy().astype(np.float64)
