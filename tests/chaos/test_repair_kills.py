"""Repair after kills, killed itself, and during runs: the tables stay what they are."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

import killing
import pytest
from drive import assert_same_tables, assert_sound, forked, run_here, run_words, started, tables_of
from toys import toy_bundle, toy_catalog, toy_pixels

from surveyproc.errors import PartialError
from surveyproc.runs.repair import repair_run
from surveyproc.storage import Storage

SETTINGS = ["engine.shard_rows=10", "cluster=none", "cluster.actors=2"]

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    pixels = toy_pixels(100)
    pixels[[25, 26]] = 7
    catalog = toy_catalog(folder / "in.cat", rows=100, pixels=pixels, positions=True)
    bundle = toy_bundle(folder / "toy")
    run_here(catalog, folder / "undisturbed.run", bundle)
    return catalog, bundle, tables_of(folder / "undisturbed.run")


@pytest.mark.parametrize(
    ("step", "subject"),
    [("create.temporary", "_manifests/"), ("finalise.manifest", ""), ("finalise.done", "")],
)
def test_what_a_killed_finalise_left_is_finished_by_repair(survey, tmp_path, step, subject):
    catalog, bundle, expected = survey
    run = tmp_path / "out.run"
    env = killing.prepare(tmp_path / "kills", [{"step": step, "subject": subject}])
    assert forked(run_words(catalog, run, bundle, *SETTINGS), tmp_path / "first", env).returncode == -9
    mended = forked(["repair", str(run)], tmp_path / "second")
    assert mended.returncode == 0, mended.stderr
    assert_same_tables(tables_of(run), expected)
    assert_sound(run)


@pytest.mark.parametrize(
    ("step", "subject", "then"),
    [
        ("finalise.metadata", "", "run"),
        ("create.temporary", "_manifests/", "repair"),
        ("create.linked", "_manifests/", "run"),
        ("finalise.manifest", "", "repair"),
    ],
)
def test_a_repair_that_is_killed_is_repaired_or_resumed(survey, tmp_path, step, subject, then):
    catalog, bundle, expected = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *SETTINGS)
    kill = {"step": step, "subject": subject}
    first = {"step": "finalise.metadata", "subject": "", "hit": 1}
    env = killing.prepare(tmp_path / "one", [first])
    assert forked(words, tmp_path / "first", env).returncode == -9
    env = killing.prepare(tmp_path / "two", [kill])
    assert forked(["repair", str(run)], tmp_path / "second", env).returncode == -9
    last = forked(["repair", str(run)] if then == "repair" else words, tmp_path / "third")
    assert last.returncode == 0, last.stderr
    assert_same_tables(tables_of(run), expected)
    assert_sound(run)


def repair_until(processes: list, run: Path, seconds: float = 200) -> int:
    """Repair again and again until the processes have ended; returns how often."""
    repairs, until = 0, time.monotonic() + seconds
    while any(process.poll() is None for process in processes):
        assert time.monotonic() < until
        if (run / "run.json").exists():
            with suppress(PartialError):
                list(repair_run(Storage(run)))
            repairs += 1
        time.sleep(0.01)
    return repairs


@pytest.mark.parametrize("drivers", [1, 2])
def test_repair_during_a_run_harms_nobody(survey, tmp_path, drivers):
    """Two drivers wait for each other before every commit, so that there are living attempts that lost."""
    catalog, bundle, expected = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *SETTINGS[:2], "cluster.actors=1")
    (tmp_path / "meet").mkdir()
    env = {
        "SURVEYPROC_STEP_HOOK": "meddling:meet" if drivers == 2 else "meddling:slow",
        "SURVEYPROC_MEDDLE_STEP": json.dumps(["commit.ready" if drivers == 2 else "attempt.part", ""]),
        "SURVEYPROC_MEDDLE_FILE": str(tmp_path / "meet"),
    }
    with started(words, env) as one, started(words if drivers == 2 else ["status", "x"], env) as two:
        repairs = repair_until([one, two], run)
        ends = [process.communicate(timeout=10) for process in (one, two)]
    assert one.returncode == 0, ends
    assert two.returncode == (0 if drivers == 2 else 3), ends
    assert repairs > 10
    assert_same_tables(tables_of(run), expected)
    forked(["repair", str(run)], tmp_path / "again")
    assert_sound(run)
