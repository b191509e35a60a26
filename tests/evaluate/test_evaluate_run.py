import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from surveyproc.cli import evaluate as verb
from surveyproc.errors import InputError
from surveyproc.evaluate import run_tables
from surveyproc.identifiers import splits_of
from surveyproc.votes import Question, VoteSchema
from surveyproc.votes.labels import Labels

SCHEMA = VoteSchema(
    "t",
    (Question("a", ("x", "y")), Question("b", ("p", "q"), ("a_x",))),
    {"a_x": "Class1.1", "a_y": "Class1.2", "b_p": "Class2.1", "b_q": "Class2.2"},
)
IDS = list(range(200))
FRACTIONS = np.tile([0.5, 0.5, 0.25, 0.75], (200, 1))


class FakeRun:
    def __init__(self, columns):
        self.columns = columns

    def dataset(self, name):
        assert name == "morphology_posterior"
        return SimpleNamespace(schema=pa.table(self.columns).schema)

    def table(self, name, columns):
        assert name == "morphology_posterior"
        return pa.table(self.columns).select(columns)


@pytest.fixture
def run(monkeypatch):
    columns = {"object_id": IDS} | {f"{c}_mean": FRACTIONS[:, i] for i, c in enumerate(SCHEMA.columns)}
    monkeypatch.setattr(run_tables, "open_run", lambda uri: FakeRun(columns))
    return columns


def labels(error=0.0):
    joint = SCHEMA.joint(FRACTIONS)
    joint[splits_of(IDS) == "train"] += error
    return Labels([str(i) for i in IDS], joint)


def test_only_test_ids_count_unless_asked_otherwise(run):
    figures = run_tables.evaluate_run("r", labels(error=0.2), SCHEMA)
    assert figures["n"] == int((splits_of(IDS) == "test").sum()) > 0
    assert figures["rmse"] == pytest.approx(0, abs=1e-12)
    assert figures["ids"] == {"matched": 200, "only_in_run": 0, "only_in_labels": 0}
    assert run_tables.evaluate_run("r", labels(error=0.2), SCHEMA, "all")["rmse"] > 0.1


def test_rows_are_matched_by_id_not_by_place(run):
    shuffled = Labels([str(i) for i in reversed(IDS)], SCHEMA.joint(FRACTIONS))
    shuffled.joint[:] = np.linspace(0, 0.1, 200)[:, None]
    run_order = Labels([str(i) for i in IDS], shuffled.joint[::-1].copy())
    one = run_tables.evaluate_run("r", shuffled, SCHEMA)
    assert one == run_tables.evaluate_run("r", run_order, SCHEMA)


def test_a_run_without_ids_of_the_split_is_refused(run):
    foreign = Labels([f"x{i}" for i in IDS], SCHEMA.joint(FRACTIONS))
    with pytest.raises(InputError, match="no test id is in both: 0 ids in both, 200 only in the run"):
        run_tables.evaluate_run("r", foreign, SCHEMA)


def test_a_run_of_another_schema_is_refused(run):
    del run["b_q_mean"]
    with pytest.raises(InputError, match="lacks 1 of 4 columns of 't': b_q_mean"):
        run_tables.evaluate_run("r", labels(), SCHEMA)


def test_the_verb_prints_json_and_warns_of_training_ids(run, tmp_path, capsys):
    tree = tmp_path / "tree.json"
    tree.write_text(json.dumps(SCHEMA.to_dict()))
    table = tmp_path / "labels.csv"
    rows = "\n".join(f"{i},0.5,0.5,0.125,0.375" for i in IDS)
    table.write_text(f"GalaxyID,Class1.1,Class1.2,Class2.1,Class2.2\n{rows}\n")
    args = SimpleNamespace(run="r", labels=str(table), id=None, schema=str(tree), split="test", json=True)
    assert verb.run(args) == 0
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    assert figures["rmse"] == pytest.approx(0, abs=1e-12)
    assert set(figures["questions"]) == {"a", "b"}
    assert figures["n"] > 0
    assert printed.err == ""
    args.split, args.json = "all", False
    assert verb.run(args) == 0
    printed = capsys.readouterr()
    assert "TRAINING ids" in printed.err
    assert "TRAINING IDS INCLUDED" in printed.out
