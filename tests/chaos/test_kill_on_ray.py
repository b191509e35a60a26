"""SIGKILL of engine actors and of the driver on a local Ray cluster."""

from __future__ import annotations

import re
from pathlib import Path

import killing
import pytest
from drive import (
    assert_same_tables,
    assert_sound,
    forked,
    result_of,
    run_words,
    started,
    surveyproc,
    tables_of,
)
from toys import toy_bundle, toy_catalog

pytestmark = pytest.mark.chaos
ACTOR_OR_SERVER = re.compile(r"gcs_server|raylet/raylet |ray::.*Map")
SETTINGS = ["engine.shard_rows=10", "cluster.actors=2"]
ON_RAY = [*SETTINGS, "cluster=local"]

# Steps that an engine actor passes, and those that only the driver does.
ACTOR_STEPS = [
    ("attempt.begun", "shard-"),
    ("attempt.predicted", "shard-"),
    ("attempt.part", "shard-"),
    ("attempt.checked", "shard-"),
    ("commit.ready", "shard-"),
    ("create.temporary", "_commits/shard-"),
    ("create.linked", "_commits/shard-"),
    ("commit.done", "shard-"),
]
DRIVER_STEPS = [
    ("finalise.surveyed", ""),
    ("commit.ready", "merge-"),
    ("create.linked", "_commits/merge-"),
    ("merge.published", ""),
    ("index.published", ""),
    ("finalise.metadata", ""),
    ("create.linked", "_manifests/"),
    ("finalise.manifest", ""),
    ("finalise.done", ""),
]
IN_THE_DEFAULT_SUITE = {
    ("create.linked", "_commits/shard-"),
    ("merge.published", ""),
    ("finalise.manifest", ""),
}
DRIVER_KILLS = [
    pytest.param(*kill, id="@".join(kill), marks=[] if kill in IN_THE_DEFAULT_SUITE else pytest.mark.slow)
    for kill in [*ACTOR_STEPS, *DRIVER_STEPS]
]


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    ids = list(range(200))
    ids[150] = ids[40]
    catalog, bundle = toy_catalog(folder / "in.cat", ids=ids), toy_bundle(folder / "toy")
    words = run_words(catalog, folder / "undisturbed.run", bundle, *SETTINGS, "cluster=none")
    done = forked(words, folder / "log")
    assert done.returncode == 0, done.stderr
    return catalog, bundle, tables_of(folder / "undisturbed.run")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(ACTOR_STEPS[-4:], id="commit"),
        pytest.param(ACTOR_STEPS, id="every step", marks=pytest.mark.slow),
    ],
)
def test_engine_actors_killed_one_after_the_other_cost_nothing(survey, tmp_path, steps):
    catalog, bundle, expected = survey
    kills = [
        {"step": step, "subject": subject, "hit": 1 + n * (5 if step == "attempt.part" else 1)}
        for n, (step, subject) in enumerate(steps)
    ]
    env = killing.prepare(tmp_path / "kills", kills)

    run = surveyproc([*run_words(catalog, tmp_path / "out.run", bundle, *ON_RAY), "--json"], env)

    hits = killing.killed(tmp_path / "kills")
    print(run.stderr, *hits, sep="\n")
    assert run.returncode == 0
    assert result_of(run)["rows"] == 199, "stdout is for data, whatever Ray has to say"
    assert {hit["step"] for hit in hits} == {step for step, _ in steps}
    assert_same_tables(tables_of(tmp_path / "out.run"), expected)
    assert_sound(tmp_path / "out.run")


@pytest.mark.parametrize(("step", "subject"), DRIVER_KILLS)
def test_a_driver_killed_on_ray_resumes_to_the_same_tables(survey, tmp_path, step, subject):
    catalog, bundle, expected = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *ON_RAY)
    kill = {"step": step, "subject": subject, "hit": 6 if subject.endswith("shard-") else 1, "who": "driver"}
    env = killing.prepare(tmp_path / "kills", [kill])
    with started(words, env) as process:
        (tmp_path / "kills" / killing.DRIVER).write_text(str(process.pid))
        assert process.wait(timeout=200) == -9
        hits = killing.killed(tmp_path / "kills")
        print(*hits)
        assert [hit["step"] for hit in hits] == [step]

        # The actors of the dead driver may still be at work while the same command resumes.
        resumed = surveyproc(words, env)
        assert not workers_of(process.pid)

    assert resumed.returncode == 0, resumed.stderr
    assert_same_tables(tables_of(run), expected)
    finished = forked(run_words(catalog, run, bundle, *SETTINGS, "cluster=none"), tmp_path / "again")
    assert "nothing to do" in finished.stdout
    assert_sound(run)


def workers_of(leader: int) -> list[str]:
    """Command lines of the Ray servers and engine actors of a session; Ray's agents may stay a while."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z" and ACTOR_OR_SERVER.search(command):
            found.append(command[:80])
    return found
