"""Runs against labels: the join, other trees, counts, groups, and what the verb prints."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from surveyproc.cli.main import main
from surveyproc.errors import InputError, UsageError
from surveyproc.evaluate import morphology
from surveyproc.evaluate.morphology import evaluate_run
from surveyproc.identifiers import splits_of
from surveyproc.votes import Question, VoteSchema
from surveyproc.votes.labels import Labels

SCHEMA = VoteSchema(
    "t",
    (Question("a", ("x", "y")), Question("b", ("p", "q"), ("a_x",))),
    {"a_x": "Class1.1", "a_y": "Class1.2", "b_p": "Class2.1", "b_q": "Class2.2"},
)
ROWS = 400
IDS = list(range(ROWS))
FRACTIONS = np.tile([0.6, 0.4, 0.25, 0.75], (ROWS, 1))


class FakeRun:
    uri = "r"

    def __init__(self, tables):
        self.tables = tables
        self.record = {"config": {"input": "/nowhere"}}

    def dataset(self, name):
        return SimpleNamespace(schema=pa.table(self.tables[name]).schema)

    def table(self, name, columns):
        return pa.table(self.tables[name]).select(columns)


@pytest.fixture
def run(monkeypatch):
    posterior = {"object_id": IDS}
    friendly = {"object_id": IDS[::-1], "mag_r": np.linspace(20, 10, ROWS), "note": ["bright"] * ROWS}
    for i, c in enumerate(SCHEMA.columns):
        posterior |= {f"{c}_mean": FRACTIONS[:, i], f"{c}_concentration": 30 * FRACTIONS[:, i]}
        hidden = pa.array(FRACTIONS[:, i] - 0.2, mask=np.arange(ROWS) < 20)
        friendly |= {f"{c}_fraction_lower": hidden, f"{c}_fraction_upper": FRACTIONS[:, i] + 0.2}
    friendly |= {"a_proportion_asked": np.ones(ROWS), "b_proportion_asked": np.full(ROWS, 0.6)}
    tables = {"morphology_posterior": posterior, "morphology": friendly}
    monkeypatch.setattr(morphology, "open_run", lambda uri: FakeRun(tables))
    return tables


def labels(error=0.0, counts=False):
    joint = SCHEMA.joint(FRACTIONS)
    joint[splits_of(IDS) == "train"] += error
    return Labels([str(i) for i in IDS], joint, np.round(joint * 100) if counts else None)


def test_only_test_ids_count_unless_asked_otherwise(run):
    figures = evaluate_run("r", labels(error=0.2), SCHEMA)
    assert figures["n"] == int((splits_of(IDS) == "test").sum()) > 0
    assert figures["rmse"] == pytest.approx(0, abs=1e-12)
    assert figures["ids"] == {"matched": ROWS, "only_in_run": 0, "only_in_labels": 0}
    assert evaluate_run("r", labels(error=0.2), SCHEMA, "all")["rmse"] > 0.1


def test_rows_are_matched_by_id_not_by_place(run):
    shuffled = labels()
    shuffled = Labels(shuffled.ids[::-1], np.linspace(0, 0.1, ROWS)[:, None] * np.ones(4))
    one = evaluate_run("r", shuffled, SCHEMA, by="magnitude")
    assert one == evaluate_run("r", Labels(shuffled.ids[::-1], shuffled.joint[::-1]), SCHEMA, by="magnitude")


def test_a_run_without_ids_of_the_split_is_refused(run):
    foreign = Labels([f"x{i}" for i in IDS], SCHEMA.joint(FRACTIONS))
    with pytest.raises(InputError, match="no test id is in both: 0 ids in both, 400 only in the run"):
        evaluate_run("r", foreign, SCHEMA)


def test_a_run_without_an_answer_of_the_labels_is_refused(run):
    other = VoteSchema("other", (Question("c", ("m", "n")),))
    with pytest.raises(InputError, match="the run has none of the 2 answers of 'other'"):
        evaluate_run("r", Labels([str(i) for i in IDS], np.full((ROWS, 2), 0.5)), other)


def test_answers_in_one_of_two_trees_are_named_and_left_out(run):
    wider = VoteSchema("wider", (*SCHEMA.questions, Question("c", ("m", "n"), ("b_p",))))
    fractions = np.concatenate([FRACTIONS, np.full((ROWS, 2), 0.5)], axis=1)
    figures = evaluate_run("r", Labels([str(i) for i in IDS], wider.joint(fractions)), wider)
    assert figures["answers"] == {"compared": 4, "only_in_labels": ["c_m", "c_n"], "only_in_run": []}
    assert set(figures["questions"]) == set(figures["coverage"]["questions"]) == {"a", "b"}
    assert figures["rmse"] == pytest.approx(0, abs=1e-12)
    narrow = VoteSchema("narrow", (Question("b", ("p", "q")),))
    figures = evaluate_run("r", Labels([str(i) for i in IDS], FRACTIONS[:, 2:]), narrow)
    assert figures["answers"]["only_in_run"] == ["a_x", "a_y"]
    assert figures["columns"] == 2


def test_below_a_question_the_run_lacks_its_own_proportion_asked_is_used(run):
    above = VoteSchema("above", (Question("root", ("yes", "no")), Question("b", ("p", "q"), ("root_yes",))))
    joint = np.tile([0.6, 0.4, 0.15, 0.45], (ROWS, 1))
    figures = evaluate_run("r", Labels([str(i) for i in IDS], joint), above)
    assert figures["questions"]["b"]["rmse"] == pytest.approx(0, abs=1e-12)
    assert figures["columns"] == 2


def test_a_question_with_other_answers_is_compared_but_has_no_likelihood(run):
    wider = VoteSchema("wider", (Question("a", ("x", "y", "z")),))
    joint = np.tile([0.6, 0.3, 0.1], (ROWS, 1))
    figures = evaluate_run("r", Labels([str(i) for i in IDS], joint), wider)
    assert figures["questions"]["a"]["rmse"] == pytest.approx(np.sqrt(0.1**2 / 2))
    assert figures["coverage"] is None
    assert figures["log_likelihood"] is None


def test_what_volunteers_did_not_answer_is_missing_not_zero(run):
    joint = SCHEMA.joint(FRACTIONS)
    joint[:, 2:] = 0  # asked of 60 %, answered by none
    joint[splits_of(IDS) == "train", 2:] = [0.15, 0.45]
    figures = evaluate_run("r", Labels([str(i) for i in IDS], joint), SCHEMA)
    assert figures["rmse"] == pytest.approx(0, abs=1e-12)
    assert figures["questions"]["b"]["rmse"] is figures["questions"]["b"]["rmse_interval"] is None
    assert figures["questions"]["b"]["n"] == 0
    assert figures["coverage"]["questions"]["b"]["coverage"] is None


def test_real_counts_are_used_and_few_votes_are_not_scored(run):
    figures = evaluate_run("r", labels(counts=True), SCHEMA, min_votes=61)
    assert figures["votes"] == "counts"
    assert figures["questions"]["a"]["n"] == figures["n"]
    assert figures["questions"]["b"]["n"] == 0
    assert "pseudo-counts" in evaluate_run("r", labels(), SCHEMA)["votes"]


def test_spreads_are_judged_against_scipy(run):
    from scipy.stats import betabinom

    figures = evaluate_run("r", labels(counts=True), SCHEMA)
    expected = betabinom.logpmf(60, 100, 18, 12) + betabinom.logpmf(15, 60, 7.5, 22.5)
    assert figures["log_likelihood"]["nats_per_galaxy"] == pytest.approx(expected)
    assert figures["log_likelihood"]["questions"]["a"] == pytest.approx(betabinom.logpmf(60, 100, 18, 12))
    assert figures["coverage"]["pooled"]["coverage"] == 1  # every vote is at the predicted mean
    held = figures["interval_coverage"]
    assert held["pooled"]["coverage"] == 1
    assert held["pooled"]["n"] < 4 * figures["n"]  # the run is silent on its last ids


def test_the_bootstrap_interval_is_that_of_the_resampled_mean(run):
    rng = np.random.default_rng(0)
    joint = SCHEMA.joint(np.clip(FRACTIONS + rng.normal(0, 0.1, (ROWS, 1)) * [1, -1, 0, 0], 0, 1))
    figures = evaluate_run("r", Labels([str(i) for i in IDS], joint), SCHEMA, "all")
    low, high = figures["rmse_interval"]
    error = ((joint - SCHEMA.joint(FRACTIONS)) ** 2).mean(1)
    spread = 1.96 * error.std() / np.sqrt(ROWS)  # normal theory, on the mean square
    assert (low**2, high**2) == pytest.approx(
        (error.mean() - spread, error.mean() + spread), rel=0.12, abs=3e-4
    )
    assert figures == evaluate_run("r", Labels([str(i) for i in IDS], joint), SCHEMA, "all")


def test_groups_are_bins_of_equal_numbers_of_a_column_by_its_usual_name(run):
    error = SCHEMA.joint(FRACTIONS)
    error[: ROWS // 2, 0] += 0.1  # ids below 200 have magnitudes below 15
    figures = evaluate_run("r", Labels([str(i) for i in IDS], error), SCHEMA, "all", by="magnitude")
    assert figures["by"] == {"column": "mag_r", "found_in": "run", "without": 0}
    groups = figures["groups"]
    assert [g["n"] for g in groups] == [80] * 5
    assert groups[0]["low"] == 10
    assert groups[-1]["high"] == 20
    assert groups[0]["rmse"] > 0.04
    assert groups[-1]["rmse"] == pytest.approx(0, abs=1e-12)


def test_a_column_of_the_labels_groups_too_and_wrong_ones_are_refused(run, tmp_path):
    rows = "\n".join(f"{i},{i if i % 2 else ''}" for i in IDS)
    (tmp_path / "l.csv").write_text(f"GalaxyID,z\n{rows}\n")
    found = {"labels_path": str(tmp_path / "l.csv"), "id_column": "GalaxyID"}
    figures = evaluate_run("r", labels(), SCHEMA, "all", by="redshift", **found)
    assert figures["by"] == {"column": "z", "found_in": "labels", "without": ROWS // 2}
    with pytest.raises(
        UsageError, match=r"no column 'mag_t' goes with these galaxies\. Did you mean 'mag_r'"
    ):
        evaluate_run("r", labels(), SCHEMA, by="mag_t")
    with pytest.raises(InputError, match="column note is not numeric"):
        evaluate_run("r", labels(), SCHEMA, by="note")


@pytest.fixture
def words(run, tmp_path):
    tree = tmp_path / "tree.json"
    tree.write_text(json.dumps(SCHEMA.to_dict()))
    table = tmp_path / "labels.csv"
    rows = "\n".join(f"{i},0.6,0.4,0.15,0.45" for i in IDS)
    table.write_text(f"GalaxyID,Class1.1,Class1.2,Class2.1,Class2.2\n{rows}\n")
    return ["evaluate", "morphology", "--run", "r", "--labels", str(table), "--schema", str(tree)]


def test_the_verb_prints_json(words, capsys):
    assert main([*words, "--json"]) == 0
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    assert figures["rmse"] == pytest.approx(0, abs=1e-12)
    assert set(figures["questions"]) == {"a", "b"}
    assert figures["n"] > 0
    assert printed.err == "labels: 400 galaxies, joint of the 4 answers of t\n"


def test_the_verb_prints_tables_and_warns_of_training_ids(words, capsys):
    assert main([*words, "--split", "all", "--by", "mag_r"]) == 0
    printed = capsys.readouterr()
    assert "TRAINING ids" in printed.err
    assert "TRAINING IDS INCLUDED" in printed.out
    assert "accuracy by mag_r (from the run)" in printed.out
    assert "pseudo-counts" in printed.out


def test_the_page_shows_every_question_and_names_what_was_compared(words, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    assert main([*words, "--plot", str(page), "--by", "mag_r"]) == 0
    text = page.read_text()
    assert text.count('aria-label="reliability of ') == 2
    assert 'aria-label="coverage of 90 % intervals"' in text
    assert 'aria-label="RMSE by mag_r"' in text
    assert "Votes are pseudo-counts" in text
    assert "http:" not in text
    assert "src=" not in text
    assert main([*words, "--plot", "page.png"]) == 2
    assert "the page is HTML" in capsys.readouterr().err
