"""`surveyproc triage` and `surveyproc evaluate` on the tables of a run that was really made."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from drive import run_here
from toys import toy_bundle, toy_catalog

from surveyproc.cli.main import main
from surveyproc.identifiers import splits_of
from surveyproc.votes import load_schema

ROWS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of an untrained bundle, and labels of its galaxies."""
    folder = tmp_path_factory.mktemp("run")
    run_here(toy_catalog(folder / "in.cat", rows=ROWS), folder / "out.run", toy_bundle(folder / "toy"))
    schema, rng = load_schema("galaxy-challenge"), np.random.default_rng(0)
    fractions = np.concatenate(
        [rng.dirichlet(np.ones(len(q.answers)), ROWS) for q in schema.questions], axis=1
    )
    rows = [",".join(map(str, [1000 + i, *row])) for i, row in enumerate(schema.joint(fractions))]
    header = ",".join(["GalaxyID", *(schema.labels[c] for c in schema.columns)])
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_triage_writes_both_lists_the_curves_and_a_page(folder, tmp_path, capsys):
    words = ["triage", str(folder / "out.run"), "--agreement", "0.02", "--output", str(tmp_path / "t")]
    assert main([*words, "--labels", str(folder / "labels.csv"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    sure = pq.read_table(tmp_path / "t" / "confident.parquet")
    experts = list(csv.DictReader((tmp_path / "t" / "experts.csv").open()))
    assert (summary["confident"], summary["experts"]) == (sure.num_rows, len(experts))
    assert sure.num_rows > 0 < len(experts)
    assert sure.schema.field("object_id").type == "int64"
    assert sure.schema.field("agreement").metadata[b"description"].startswith(b"1 - H(p)")
    assert summary["expected_accuracy"] == pytest.approx(
        sure["expected_accuracy"].to_numpy().mean(), rel=1e-6
    )
    curves = json.loads((tmp_path / "t" / "triage.json").read_text())["curves"]
    assert curves["smooth-or-featured"][0]["measured"]["n"] == (splits_of(range(1000, 1060)) == "test").sum()
    page = (tmp_path / "t" / "triage.html").read_text()
    assert page.count("dots: measured on test ids") == len(curves)
    assert main(words) == 2
    assert "there is a triage already (confident.parquet)" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--question", "something-odd"]) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path / 't'}/experts.csv" in printed
    assert "smooth-or-featured" not in printed


def test_an_agreement_outside_its_range_is_refused(folder, tmp_path, capsys):
    assert main(["triage", str(folder / "out.run"), "--agreement", "80", "--output", str(tmp_path)]) == 2
    assert "--agreement 80: must be from 0 to 1" in capsys.readouterr().err


def test_evaluate_reads_a_real_run_and_groups_by_its_columns(folder, capsys):
    words = [
        "evaluate",
        "morphology",
        "--run",
        str(folder / "out.run"),
        "--labels",
        str(folder / "labels.csv"),
    ]
    assert main([*words, "--split", "all", "--by", "difficulty", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["n"] == ROWS
    assert figures["coverage"]["questions"]["smooth-or-featured"]["galaxies"] == ROWS
    assert [g["n"] for g in figures["groups"]] == [12] * 5
    assert figures["rmse"] > 0.1
