"""Cutouts that kill the process: a child dies in its stead, and only what the child shows is rejected."""

from __future__ import annotations

import os
from pathlib import Path

import poisoning
import pytest
from drive import assert_same_tables, assert_sound, environment, forked, run_words, started, tables_of
from test_poison import assert_only_rejected
from toys import toy_bundle, toy_catalog, toy_pixels

pytestmark = pytest.mark.chaos
BAD = 37
SETTINGS = ["engine.shard_rows=40", "cluster.actors=1"]
HERE = [*SETTINGS, "cluster=none"]


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """A catalog in two shards of three batches with one marked row, and its undisturbed run."""
    folder = tmp_path_factory.mktemp("survey")
    pixels = poisoning.mark(toy_pixels(80), [BAD])
    catalog = toy_catalog(folder / "in.cat", rows=80, pixels=pixels, positions=True)
    bundle = toy_bundle(folder / "toy")
    done = forked(run_words(catalog, folder / "undisturbed.run", bundle, *HERE), folder / "log")
    assert done.returncode == 0, done.stderr
    return catalog, bundle, folder / "undisturbed.run"


def poisoned(deed: str) -> dict[str, str]:
    """Environment in which forks, fresh processes and Ray's workers are poisoned."""
    site = str(Path(poisoning.__file__).parent / "poison_site")
    path = os.pathsep.join([site, environment()["PYTHONPATH"]])
    return {"SURVEYPROC_STEP_HOOK": "poisoning:hook", poisoning.DEED: deed, "PYTHONPATH": path}


def markers(run: Path) -> int:
    return len(list((run / "_attempts").glob("shard-0000000-*/attempt.json")))


@pytest.mark.parametrize(
    ("deed", "died", "detail"),
    [
        ("exit", 7, "its process ended with exit code 7"),
        ("kill", -9, "its process was killed by SIGKILL"),
        ("decode", -11, "its process was killed by SIGSEGV"),
    ],
)
def test_a_row_that_kills_the_process_is_found_by_the_fourth_command(survey, tmp_path, deed, died, detail):
    catalog, bundle, undisturbed = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *HERE)
    for number in range(3):
        assert forked(words, tmp_path / f"{number}", poisoned(deed)).returncode == died
        assert markers(run) == number + 1
    survived = forked(words, tmp_path / "last", poisoned(deed))
    assert survived.returncode == 0, survived.stderr
    assert_only_rejected(run, undisturbed, [BAD], "killed_engine", detail)


def vanish(words: list[str], folder: Path) -> None:
    """Lose three processes to the first shard, for no row's fault."""
    assert [forked(words, folder / f"{n}", poisoned("vanish")).returncode for n in range(3)] == [-9, -9, -9]


def test_a_process_killed_three_times_for_no_rows_fault_rejects_nothing(survey, tmp_path):
    catalog, bundle, undisturbed = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *HERE)
    vanish(words, tmp_path / "vanished")
    assert markers(run) == 3
    assert forked(words, tmp_path / "last").returncode == 0
    assert_same_tables(tables_of(run), tables_of(undisturbed))
    assert tables_of(run)["rejects"].num_rows == 0
    assert_sound(run)


def test_a_parent_that_dies_with_its_child_condemns_nothing(survey, tmp_path):
    catalog, bundle, undisturbed = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *HERE)
    vanish(words, tmp_path / "vanished")
    for number in range(2):
        assert forked(words, tmp_path / f"{number}", poisoned("family")).returncode == -9
        assert markers(run) == 4 + number
    assert forked(words, tmp_path / "last").returncode == 0
    assert_same_tables(tables_of(run), tables_of(undisturbed))
    assert_sound(run)


def test_a_machine_that_kills_every_child_ends_in_three_lines_and_loses_nothing(survey, tmp_path):
    catalog, bundle, undisturbed = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *HERE)
    vanish(words, tmp_path / "vanished")
    before = markers(run)

    stopped = forked(words, tmp_path / "stopped", poisoned("child"))

    assert stopped.returncode == 5, stopped.stderr
    assert "Traceback" not in stopped.stderr
    lines = [line for line in stopped.stderr.splitlines() if not line.startswith("run on ")]
    assert len(lines) == 3, lines
    assert "with every row of it hidden: its process was killed by SIGKILL" in lines[0]
    assert lines[1].startswith(("  where: shard-0000000 of ", "  where: shard-0000001 of ")), lines[1]
    assert "no row was rejected" in lines[2]
    assert markers(run) == before, "an attempt that gives up alive leaves no marker"
    assert forked(words, tmp_path / "last").returncode == 0
    assert_same_tables(tables_of(run), tables_of(undisturbed))
    assert_sound(run)


@pytest.mark.slow
def test_a_row_that_kills_engine_actors_on_ray_is_found_within_one_command(survey, tmp_path):
    catalog, bundle, undisturbed = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *SETTINGS, "cluster=local")
    with started(words, poisoned("kill")) as process:
        _, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    detail = "its process was killed by SIGKILL"
    assert_only_rejected(run, undisturbed, [BAD], "killed_engine", detail)


def test_a_row_that_makes_the_model_raise_on_ray_is_rejected(survey, tmp_path):
    catalog, bundle, undisturbed = survey
    run = tmp_path / "out.run"
    with started(run_words(catalog, run, bundle, *SETTINGS, "cluster=local"), poisoned("raise")) as process:
        _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert_only_rejected(run, undisturbed, [BAD], "model_error", "ValueError: degenerate ellipse")
