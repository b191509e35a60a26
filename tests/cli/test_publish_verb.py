"""``surveyproc publish`` and what it says."""

from __future__ import annotations

import json

import pytest
from drive import run_here
from toys import toy_bundle, toy_catalog

from surveyproc.cli.main import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verb")
    run_here(
        toy_catalog(folder / "in.cat", rows=40, positions=True), folder / "gz.run", toy_bundle(folder / "toy")
    )
    return folder / "gz.run"


def test_it_says_what_was_written_and_what_is_next(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["publish", str(finished), "--format", "hats"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("gz.hats: hats of gz.run\n")
    for word in ("morphology", "40 rows", "lsdb.open_catalog('gz.hats')", "surveyproc cone gz.hats"):
        assert word in said
    assert main(["publish", str(finished), "--format", "hats"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["verify", "gz.hats"]) == 0
    assert "every row where it belongs" in capsys.readouterr().out
    assert main(["publish", str(finished), "--format", "fits", "--tables", "rejects", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["output"], about["tables"].keys()) == ("gz.fits", {"rejects"})
    assert (tmp_path / "gz.fits" / "rejects.fits").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "--format must be given"),
        (["--format", "fit"], 2, "invalid choice"),
        (["--format", "hats", "--margin", "-1", "--output", "x"], 2, "not between 0 and 3600"),
        (["--format", "hats", "--names", "zobot"], 2, "invalid choice"),
        (["--format", "fits", "--tables", "morfology"], 2, "Did you mean 'morphology'?"),
    ],
)
def test_mistakes_are_answered_in_three_lines(finished, tmp_path, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(tmp_path)
    assert main(["publish", str(finished), *words]) == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert main(["publish", str(tmp_path), "--format", "fits", "--output", str(tmp_path / "x")]) == 3
    assert "not a run folder" in capsys.readouterr().err
    assert main(["verify", str(tmp_path)]) == 3
    assert "neither a run nor a catalog" in capsys.readouterr().err


def test_what_is_published_is_asked_by_the_names_of_its_tables(finished, tmp_path, capsys):
    count = "SELECT count(*) AS n, count(DISTINCT object_id) AS ids FROM "
    around = ["--ra", "45", "--dec", "0", "--radius", "648000", "--columns", "object_id", "--json"]
    for form in ("hats", "parquet"):
        output = str(tmp_path / form)
        assert main(["publish", str(finished), "--format", form, "--output", output]) == 0
        capsys.readouterr()
        for table, rows in (("morphology", 40), ("embeddings", 40), ("catalog", 40), ("rejects", 0)):
            assert main(["sql", output, count + table, "--json"]) == 0
            assert json.loads(capsys.readouterr().out) == [{"n": rows, "ids": rows}], (form, table)
        for table in ([], ["--table", "embeddings"]):
            assert main(["cone", output, *around, *table]) == 0
            assert len(json.loads(capsys.readouterr().out)) == 40
        assert main(["cone", output, *around, "--table", "embedings"]) == 3
        assert "Did you mean 'embeddings'?" in capsys.readouterr().err
    assert main(["publish", str(finished), "--format", "fits", "--output", str(tmp_path / "f")]) == 0
    capsys.readouterr()
    for words in (["sql", str(tmp_path / "f"), "SELECT 1"], ["cone", str(tmp_path / "f"), *around]):
        assert main(words) == 3
        assert "published for other programs" in capsys.readouterr().err


def test_what_cannot_be_published_leaves_nothing(finished, tmp_path, capsys):
    output = str(tmp_path / "out")
    words = ["publish", str(finished), "--format", "hats", "--output", output]
    assert main([*words, "--tables", "rejects"]) == 2
    assert "nothing to publish as HATS" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
