"""Giving the command of a run again: resume, nothing to do, or a refusal that loses nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from drive import assert_same_tables, assert_sound, run_here, tables_of
from toys import toy_bundle, toy_catalog, toy_pixels

from surveyproc.errors import InputError, PartialError, UsageError
from surveyproc.runs import open_run


@pytest.fixture
def catalog(tmp_path):
    return toy_catalog(tmp_path / "in.cat", rows=60)


@pytest.fixture
def meddle(monkeypatch):
    def set_hook(function: str, step: str, subject: str, file: Path) -> None:
        monkeypatch.setenv("SURVEYPROC_STEP_HOOK", f"meddling:{function}")
        monkeypatch.setenv("SURVEYPROC_MEDDLE_STEP", json.dumps([step, subject]))
        monkeypatch.setenv("SURVEYPROC_MEDDLE_FILE", str(file))

    return set_hook


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in folder.rglob("*")
        if p.is_file()
    }


def data_file(catalog: Path) -> Path:
    return next(catalog.rglob("*.parquet"))


def stop_after(monkeypatch, commits: int) -> None:
    """Make the run of this process stop with an error once so many shards are committed."""
    from surveyproc.runs import ledger

    left = [commits]
    real = ledger.Attempt.commit

    def commit(self, *args, **kwargs):
        if self.unit.startswith("shard-"):
            left[0] -= 1
            if left[0] < 0:
                raise PartialError("stopped by the test")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(ledger.Attempt, "commit", commit)


def test_a_finished_run_says_so_and_changes_nothing(catalog, bundle, tmp_path):
    first = run_here(catalog, tmp_path / "out.run", bundle)
    before = snapshot(tmp_path / "out.run")
    again = run_here(catalog, tmp_path / "out.run", bundle)
    assert not first.nothing_to_do
    assert again.nothing_to_do
    assert (again.rows, again.rejects) == (60, 0)
    assert snapshot(tmp_path / "out.run") == before


def test_a_stopped_run_keeps_its_commits_and_finishes_to_the_same_tables(
    catalog, bundle, tmp_path, monkeypatch
):
    run_here(catalog, tmp_path / "whole.run", bundle)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(PartialError):
            run_here(catalog, tmp_path / "out.run", bundle)
    status = open_run(str(tmp_path / "out.run")).status()
    assert (status["state"], status["shards_committed"], status["rows"]) == ("running", 3, 30)
    assert not (tmp_path / "out.run" / "morphology").exists()
    assert not list((tmp_path / "out.run" / "_attempts").glob("shard-0000005-*"))

    result = run_here(catalog, tmp_path / "out.run", bundle)

    assert result.resumed
    assert_same_tables(tables_of(tmp_path / "out.run"), tables_of(tmp_path / "whole.run"))
    assert_sound(tmp_path / "out.run")


def test_the_number_of_engines_may_change_between_two_commands(catalog, bundle, tmp_path, monkeypatch):
    run_here(catalog, tmp_path / "whole.run", bundle)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(PartialError):
            run_here(catalog, tmp_path / "out.run", bundle, "cluster.actors=1")
    run_here(catalog, tmp_path / "out.run", bundle, "cluster.actors=3")
    assert_same_tables(tables_of(tmp_path / "out.run"), tables_of(tmp_path / "whole.run"))


def test_changed_settings_are_refused_with_every_difference_and_nothing_is_lost(
    catalog, bundle, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(PartialError):
            run_here(catalog, tmp_path / "out.run", bundle)
    before = snapshot(tmp_path / "out.run")
    other = toy_bundle(tmp_path / "other", seed=1)

    with pytest.raises(UsageError) as caught:
        run_here(
            catalog, tmp_path / "out.run", other, "engine.views=4", "engine.draws=3", "output.index=false"
        )

    for difference in (
        "engine.views: was 2, is 4",
        "engine.draws",
        "output.index: was True, is False",
        "bundles.toy",
    ):
        assert difference in caught.value.what
    assert snapshot(tmp_path / "out.run") == before
    assert run_here(catalog, tmp_path / "out.run", bundle).rows == 60


def test_another_version_of_the_code_resumes_only_when_told_to(catalog, bundle, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(PartialError):
            run_here(catalog, tmp_path / "out.run", bundle)
    monkeypatch.setattr("surveyproc.runs.record.code_version", lambda: "9.9+newer")
    monkeypatch.setattr("surveyproc.runs.ledger.code_version", lambda: "9.9+newer")
    with pytest.raises(UsageError, match=r"code .*9\.9") as caught:
        run_here(catalog, tmp_path / "out.run", bundle)
    assert "--accept-code" in caught.value.fix
    run_here(catalog, tmp_path / "out.run", bundle, accept_code=True)
    commits = open_run(str(tmp_path / "out.run")).commits()
    assert {c.code == "9.9+newer" for c in commits} == {True, False}


@pytest.mark.parametrize("change", ["touch", "remove", "add"])
def test_input_that_changed_between_two_commands_is_refused(catalog, bundle, tmp_path, monkeypatch, change):
    extra = toy_catalog(tmp_path / "more.cat", rows=10)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(PartialError):
            run_here(catalog, tmp_path / "out.run", bundle)
    before = snapshot(tmp_path / "out.run")
    file = data_file(catalog)
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    added = file.with_name("part-00009.parquet")
    if change == "touch":
        os.utime(file, ns=(1, 1))
    else:
        data_file(extra).rename(added)
    if change == "remove":
        file.rename(tmp_path / "away")

    with pytest.raises(UsageError, match="other settings or input") as caught:
        run_here(catalog, tmp_path / "out.run", bundle)

    says = {
        "touch": "was written again",
        "remove": "part-00000.parquet is gone",
        "add": "part-00009.parquet is new",
    }
    assert says[change] in caught.value.what
    assert snapshot(tmp_path / "out.run") == before
    if change == "remove":
        (tmp_path / "away").rename(file)
    added.unlink(missing_ok=True)
    os.utime(file, ns=times)
    assert run_here(catalog, tmp_path / "out.run", bundle).rows == 60


def test_input_that_changed_before_anything_was_planned_is_refused(catalog, bundle, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            "surveyproc.distributed.job.store_plan", lambda *_: (_ for _ in ()).throw(PartialError("x"))
        )
        with pytest.raises(PartialError):
            run_here(catalog, tmp_path / "out.run", bundle)
    os.utime(data_file(catalog), ns=(1, 1))
    with pytest.raises(UsageError, match="written again"):
        run_here(catalog, tmp_path / "out.run", bundle)


@pytest.mark.parametrize("change", ["touch", "remove"])
def test_an_input_file_that_changes_during_a_run_stops_it_and_keeps_what_is_committed(
    catalog, bundle, tmp_path, monkeypatch, meddle, change
):
    file = data_file(catalog)
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    with monkeypatch.context():
        meddle(change, "commit.done", "shard-0000002", file)
        with pytest.raises(InputError) as caught:
            run_here(catalog, tmp_path / "out.run", bundle, "cluster.actors=1")
    assert ("gone" if change == "remove" else "changed") in caught.value.what
    assert file.name in caught.value.where
    committed = open_run(str(tmp_path / "out.run")).status()["shards_committed"]
    assert committed in (3, 4), "the next shard may have been read before the file changed, no other one"

    monkeypatch.delenv("SURVEYPROC_STEP_HOOK")
    if change == "remove":
        Path(f"{file}.away").rename(file)
    os.utime(file, ns=times)
    assert run_here(catalog, tmp_path / "out.run", bundle).rows == 60
    assert_sound(tmp_path / "out.run")


def test_too_many_rejects_stop_a_run_and_a_higher_limit_resumes_it(bundle, tmp_path):
    pixels = toy_pixels(60)
    pixels[20:50] = 3
    catalog = toy_catalog(tmp_path / "in.cat", pixels=pixels, rows=60)
    settings = ["cluster.actors=1", "limits.max_reject_fraction=0.3"]
    with pytest.raises(PartialError, match=r"\d+ rows are rejects") as caught:
        run_here(catalog, tmp_path / "out.run", bundle, *settings)
    assert caught.value.exit_code == 4
    assert "limits.max_reject_fraction" in caught.value.what
    committed = open_run(str(tmp_path / "out.run")).status()["shards_committed"]
    assert committed >= 3

    with pytest.raises(PartialError):
        run_here(catalog, tmp_path / "out.run", bundle, *settings)
    assert open_run(str(tmp_path / "out.run")).status()["shards_committed"] == committed

    result = run_here(catalog, tmp_path / "out.run", bundle, "limits.max_reject_fraction=0.6")
    assert (result.rows, result.rejects) == (30, 30)
    assert_sound(tmp_path / "out.run")


def test_a_run_of_rejects_only_is_a_run(bundle, tmp_path):
    for name, positions in (("flat", False), ("sky", True)):
        pixels = np.full((20, 16, 16, 3), 9, np.uint8)
        catalog = toy_catalog(tmp_path / f"{name}.cat", pixels=pixels, rows=20, positions=positions)
        result = run_here(catalog, tmp_path / f"{name}.run", bundle, "limits.max_reject_fraction=1")
        assert (result.rows, result.rejects) == (0, 20)
        assert tables_of(tmp_path / f"{name}.run")["morphology"].num_rows == 0
        assert_sound(tmp_path / f"{name}.run")
