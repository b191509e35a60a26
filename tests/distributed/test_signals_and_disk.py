"""What the world does to a running command: signals, full disks, a second driver."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from drive import assert_same_tables, assert_sound, forked, run_here, run_words, started, tables_of
from toys import toy_bundle, toy_catalog

SETTINGS = ["engine.shard_rows=10", "cluster=none", "cluster.actors=2"]


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    catalog, bundle = toy_catalog(folder / "in.cat", rows=200), toy_bundle(folder / "toy")
    run_here(catalog, folder / "undisturbed.run", bundle)
    return catalog, bundle, tables_of(folder / "undisturbed.run")


def meddle(function: str, step: str, subject: str, file: Path) -> dict[str, str]:
    return {
        "SURVEYPROC_STEP_HOOK": f"meddling:{function}",
        "SURVEYPROC_MEDDLE_STEP": json.dumps([step, subject]),
        "SURVEYPROC_MEDDLE_FILE": str(file),
    }


def wait_for_commits(run: Path, number: int, process, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while len(list((run / "_commits").glob("shard-*.json"))) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "no commits in time"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "cluster"),
    [(signal.SIGTERM, "none"), (signal.SIGINT, "none"), (signal.SIGTERM, "local")],
    ids=["SIGTERM-none", "SIGINT-none", "SIGTERM-local"],
)
def test_a_signal_ends_a_run_cleanly_and_the_printed_command_resumes_it(survey, tmp_path, number, cluster):
    catalog, bundle, expected = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *SETTINGS[:1], *SETTINGS[2:], f"cluster={cluster}")
    with started(words, meddle("slow", "commit.done", "shard-", tmp_path / "x")) as process:
        wait_for_commits(run, 4, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "interrupted; resume with:" in err
    committed = len(list((run / "_commits").glob("shard-*.json")))
    assert 4 <= committed < 20
    if cluster == "none":
        begun = {p.name.rpartition("-")[0] for p in (run / "_attempts").iterdir()}
        assert begun <= {p.stem for p in (run / "_commits").iterdir()}, "an open attempt was left"

    printed = shlex.split(err.split("resume with:\n")[1].splitlines()[0])
    assert printed[0] == "surveyproc"
    resumed = forked([w.replace("cluster=local", "cluster=none") for w in printed[1:]], tmp_path / "resumed")

    assert resumed.returncode == 0, resumed.stderr
    assert_same_tables(tables_of(run), expected)
    assert_sound(run)


def check_three_lines(stderr: str, path: Path) -> None:
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if not line.startswith("run on ")]
    assert len(lines) == 3, lines
    assert lines[0].startswith("surveyproc: no space left to write")
    assert lines[1].startswith(f"  where: {path}")
    assert "same command again" in lines[2]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a tmpfs can only be mounted by root with the right to mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize(
    ("step", "subject"),
    [
        ("attempt.predicted", "shard-0000005"),
        ("attempt.part", "shard-0000005"),
        ("commit.ready", "shard-0000005"),
        ("attempt.begun", "merge-morphology-"),
        ("commit.ready", "merge-"),
        ("attempt.begun", "index-"),
        ("index.published", "index-"),
    ],
    ids=lambda value: value,
)
def test_a_disk_that_fills_up_keeps_what_is_committed(survey, tmp_path, small_disk, step, subject):
    catalog, bundle, expected = survey
    run = small_disk / "out.run"
    words = run_words(catalog, run, bundle, *SETTINGS)
    stopped = forked(words, tmp_path / "first", meddle("fill", step, subject, small_disk / "filler"))
    assert stopped.returncode == 5, stopped.stderr
    check_three_lines(stopped.stderr, run)
    committed = {p.name: p.read_bytes() for p in (run / "_commits").iterdir() if p.suffix == ".json"}
    assert committed
    assert all(json.loads(data) for data in committed.values())

    (small_disk / "filler").unlink()
    resumed = forked(words, tmp_path / "second")

    assert resumed.returncode == 0, resumed.stderr
    assert {n: (run / "_commits" / n).read_bytes() for n in committed} == committed
    assert_same_tables(tables_of(run), expected)
    assert_sound(run)


def test_a_limit_on_file_sizes_is_told_like_a_full_disk(survey, tmp_path):
    catalog, bundle, expected = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *SETTINGS)
    stopped = forked(words, tmp_path / "first", meddle("limit", "attempt.predicted", "shard-0000005", run))
    assert stopped.returncode == 5, stopped.stderr
    check_three_lines(stopped.stderr, run)

    assert forked(words, tmp_path / "second").returncode == 0
    assert_same_tables(tables_of(run), expected)
    assert_sound(run)


def test_two_drivers_at_once_end_in_one_correct_run(survey, tmp_path):
    catalog, bundle, expected = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *SETTINGS)
    with started(words) as one, started(words) as two:
        ends = [process.communicate(timeout=120) for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], ends
    assert_same_tables(tables_of(run), expected)
    assert len(list((run / "_manifests").glob("*.json"))) == 1
    again = forked(words, tmp_path / "again")
    assert "nothing to do" in again.stdout
    assert_sound(run)


def test_two_drivers_that_meet_in_every_step_end_in_one_correct_run(survey, tmp_path):
    """Both wait for each other before every commit, so that each unit is raced for."""
    catalog, bundle, expected = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *SETTINGS[:2], "cluster.actors=1")
    (tmp_path / "meet").mkdir()
    env = meddle("meet", "commit.ready", "", tmp_path / "meet")
    with started(words, env) as one, started(words, env) as two:
        ends = [process.communicate(timeout=200) for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], ends
    assert len(list((tmp_path / "meet").iterdir())) > 40, "they did not race"
    assert_same_tables(tables_of(run), expected)
    forked(words, tmp_path / "again")
    assert_sound(run)
