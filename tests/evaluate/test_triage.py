"""Confident answers and the list for experts."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import beta, entropy

from surveyproc.errors import InputError, UsageError
from surveyproc.evaluate.triage import agreement, triage
from surveyproc.identifiers import splits_of
from surveyproc.votes import Question, VoteSchema
from surveyproc.votes.labels import Labels

SCHEMA = VoteSchema("t", (Question("a", ("x", "y")), Question("a-b", ("p", "q", "r"), ("a_x",))))
ROWS = 300
IDS = np.arange(ROWS)
X = np.linspace(0.01, 0.99, ROWS)


class FakeRun:
    uri = "r"

    def __init__(self):
        one = {"a_x": X, "a_y": 1 - X, "a-b_p": np.full(ROWS, 0.8), "a-b_q": X / 10, "a-b_r": 0.2 - X / 10}
        posterior = {"object_id": IDS[::-1]}
        for name, values in one.items():
            posterior |= {f"{name}_mean": values[::-1], f"{name}_concentration": 40 * values[::-1]}
        friendly = {"object_id": IDS, "a_proportion_asked": np.ones(ROWS), "a-b_proportion_asked": X}
        floats = {"morphology_posterior": posterior, "morphology": friendly}
        self.tables = {
            name: pa.table({k: v if k == "object_id" else v.astype(np.float32) for k, v in table.items()})
            for name, table in floats.items()
        }

    def dataset(self, name):
        return SimpleNamespace(schema=self.tables[name].schema)

    def table(self, name, columns):
        return self.tables[name].select(columns)


def test_agreement_is_one_minus_the_entropy_in_units_of_the_largest():
    p = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert agreement(p) == pytest.approx(1 - entropy(p, base=3, axis=1), abs=1e-12)


def test_every_asked_answer_is_in_one_of_the_two_tables():
    found = triage(FakeRun(), 0.5)
    sure, rest = found.confident.to_pylist(), found.experts.to_pylist()
    pairs = [(r["object_id"], r["question"]) for r in sure + rest]
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == {(i, "a") for i in IDS} | {(i, "a-b") for i in IDS if X[i] >= 0.5}
    assert min(r["agreement"] for r in sure) >= 0.5 > max(r["agreement"] for r in rest)
    assert sure == sorted(sure, key=lambda r: (-r["agreement"], r["object_id"]))
    assert rest == sorted(rest, key=lambda r: (r["agreement"], r["object_id"]))
    point = next(p for p in found.curves["all"] if p["agreement"] == 0.5)
    assert point["kept"] == pytest.approx(len(sure) / len(pairs))
    assert "measured" not in point


def test_answers_and_expected_accuracies_are_those_of_the_galaxy():
    found = triage(FakeRun(), 0.0, ["a"])
    assert found.experts.num_rows == 0
    rows = {r["object_id"]: r for r in found.confident.to_pylist()}
    for i in (0, 100, 160, 299):
        best = max(X[i], 1 - X[i])
        assert rows[i]["answer"] == ("x" if X[i] > 0.5 else "y")
        assert rows[i]["fraction"] == pytest.approx(best, abs=1e-6)
        assert rows[i]["expected_accuracy"] == pytest.approx(
            beta.sf(0.5, 40 * best, 40 - 40 * best), abs=2e-3
        )
    kept = [p["kept"] for p in found.curves["a"]]
    assert kept == sorted(kept, reverse=True)
    assert list(found.curves) == ["a"]


def test_labels_measure_the_accuracy_on_ids_of_the_split_where_people_were_asked():
    test = splits_of(IDS) == "test"
    fractions = np.tile([0.9, 0.1, 0.1, 0.8, 0.1], (ROWS, 1))
    fractions[~test, :2] = [0.1, 0.9]
    labels = Labels([str(i) for i in IDS], SCHEMA.joint(fractions))
    curves = triage(FakeRun(), 0.3, None, labels, SCHEMA).curves
    everything = curves["a"][0]["measured"]
    assert everything["n"] == test.sum()
    assert everything["accuracy"] == pytest.approx((X[test] > 0.5).mean())
    assert curves["a-b"][0]["measured"] == pytest.approx(
        {
            "n": (test & (X >= 0.5)).sum(),
            "kept": 1.0,
            "accuracy": 0.0,
            "expected_accuracy": curves["a-b"][0]["measured"]["expected_accuracy"],
        }
    )
    part = next(p for p in curves["a"] if p["agreement"] == 0.3)["measured"]
    sure = test & (agreement(np.stack([X, 1 - X], axis=1)) >= 0.3)
    assert part["n"] == sure.sum()
    assert part["accuracy"] == pytest.approx((X[sure] > 0.5).mean())


def test_what_cannot_be_done_is_said():
    with pytest.raises(UsageError, match=r"no question 'ab'\. Did you mean 'a-b'"):
        triage(FakeRun(), 0.5, ["ab"])
    strangers = Labels(["x1"], np.array([[1.0, 0, 1, 0, 0]]))
    with pytest.raises(InputError, match="no test id of the labels was asked one of these questions: a, a-b"):
        triage(FakeRun(), 0.5, None, strangers, SCHEMA)
    run = FakeRun()
    run.tables["morphology_posterior"] = run.tables["morphology_posterior"].drop_columns(
        ["a_x_concentration"]
    )
    with pytest.raises(InputError, match="the run has no column a_x_concentration"):
        triage(run, 0.5)
