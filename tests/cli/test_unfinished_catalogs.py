"""``status`` and ``verify`` on catalogs that are being made, and that are finished."""

from __future__ import annotations

import json
import shlex

import pytest
from skytiles import mosaic, positions, write_sources

from surveyproc.cli.main import main


def stop(name, subject):
    """Stop an ingest when its third unit is committed."""
    if name == "commit.done" and subject == "cut-0000002":
        raise RuntimeError("enough")


@pytest.fixture
def ingest(tmp_path, monkeypatch):
    """Words of an ingest of two tiles with six units, and how to stop it in the midst."""
    mosaic(tmp_path, 2, 1)
    ra, dec = positions(200, 2, 1, beyond=0.002)
    write_sources(tmp_path / "S.parquet", object_id=list(range(200)), ra=ra, dec=dec)
    words = ["ingest", "--tiles", f"{tmp_path}/{{tile}}_{{band}}.fits", "--bands", "g,r", "--size", "12"]
    words += ["--sources", f"{tmp_path}/S.parquet", "--output", str(tmp_path / "o.cat"), "cluster=none"]
    words += ["cluster.actors=1", "ingest.unit_mb=0.06"]
    monkeypatch.setattr("sys.argv", ["surveyproc", *words])

    def interrupted():
        with monkeypatch.context() as patch:
            patch.setenv("SURVEYPROC_STEP_HOOK", "test_unfinished_catalogs:stop")
            with pytest.raises(RuntimeError, match="enough"):
                main(words)

    return words, interrupted


def test_an_unfinished_catalog_says_what_is_done_and_what_resumes(ingest, tmp_path, capsys):
    words, interrupted = ingest
    interrupted()
    capsys.readouterr()
    catalog, resume = str(tmp_path / "o.cat"), shlex.join(["surveyproc", *words])
    assert main(["status", catalog]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{catalog}: unfinished, by ingest")
    assert "  3 of " in said
    assert f"to resume: {resume}" in said
    assert main(["status", catalog, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    commits = [json.loads(p.read_text()) for p in (tmp_path / "o.cat/_work/_commits").glob("cut-*")]
    assert status["rows"] == sum(commit["rows"] for commit in commits) > 0
    assert (status["units_committed"], status["resume"]) == (len(commits), resume)
    assert status["units"] > 3
    assert main(["verify", catalog]) == 4
    assert f"FAIL  unfinished: readers are kept off; to finish it: {resume}" in capsys.readouterr().out
    assert main(["sql", catalog, "SELECT 1"]) == 3
    assert f"surveyproc status {catalog}" in capsys.readouterr().err

    part = next((tmp_path / "o.cat/_work/_attempts").glob("cut-*/*.parquet"))
    part.write_bytes(part.read_bytes()[:-1])
    assert main(["verify", catalog]) == 4
    assert f"FAIL  commits: _attempts/{part.parent.name}/{part.name} has" in capsys.readouterr().out


def test_a_finished_catalog_says_what_is_in_it(ingest, tmp_path, capsys):
    words, _ = ingest
    assert main(words) == 0
    capsys.readouterr()
    assert main(["status", str(tmp_path / "o.cat"), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["state"], status["verb"], status["rows"] + status["rejects"]) == (
        "finished",
        "ingest",
        200,
    )
    assert main(["verify", str(tmp_path / "o.cat"), "--json"]) == 0
    checks = {check["name"] for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks == {"files", "digests", "o.cat: hats", "accounts"}
    (tmp_path / "o.cat" / "rejects.parquet").write_bytes(b"")
    assert main(["verify", str(tmp_path / "o.cat")]) == 4
    said = capsys.readouterr().out
    assert "FAIL  digests: rejects.parquet was changed" in said
    assert "FAIL  accounts: a file cannot be read" in said


def test_what_nothing_is_known_of_is_refused(tmp_path, capsys):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "_unfinished").write_text("")
    for verb in ("status", "verify"):
        assert main([verb, str(tmp_path / "absent")]) == 3
        assert "neither a run nor a catalog" in capsys.readouterr().err
        assert main([verb, str(tmp_path / "bare")]) == 3
        assert "nothing tells how it was begun" in capsys.readouterr().err
