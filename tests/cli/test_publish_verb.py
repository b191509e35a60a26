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
