"""`surveyproc repair` as a user meets it: what it prints, and its exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from drive import run_here
from toys import toy_bundle, toy_catalog

from surveyproc.cli.main import main


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_here(toy_catalog(folder / "in.cat", rows=20), folder / "out.run", toy_bundle(folder / "toy"))
    return folder / "out.run"


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out.run"))


def test_a_whole_run_has_nothing_to_mend(run, capsys):
    assert main(["repair", str(run)]) == 0
    assert capsys.readouterr().out == f"nothing to mend\nnext:\n  surveyproc verify {run}\n"


def test_a_missing_manifest_is_written_and_said(run, capsys):
    shutil.rmtree(run / "_manifests")
    assert main(["repair", str(run), "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("would write _manifests/000001.json: every file")
    assert not (run / "_manifests").exists()
    assert main(["repair", str(run), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["dry_run"], said["left"]) == (False, None)
    assert [m["action"] for m in said["mends"]] == ["write"]
    assert main(["verify", str(run)]) == 0


def test_an_unfinished_run_is_three_lines_and_code_4(run, capsys):
    shutil.rmtree(run / "_manifests")
    (run / "_commits" / "shard-0000001.json").unlink()
    assert main(["repair", str(run), "--json"]) == 4
    captured = capsys.readouterr()
    assert json.loads(captured.out)["left"] in captured.err
    assert len(captured.err.strip().splitlines()) == 3
    assert main(["verify", str(run)]) == 4


def test_what_is_no_run_is_code_3(tmp_path, capsys):
    assert main(["repair", str(tmp_path)]) == 3
    assert "not a run folder" in capsys.readouterr().err
