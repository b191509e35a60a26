"""SIGKILL at every step of an ingest of tiles: the same command ends in the bytes of an undisturbed one."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import killing
import pytest
from drive import forked, lasting_digests, started
from skytiles import mosaic, positions, write_sources
from test_kill_every_step import steps_in_the_code

SETTINGS = ["cluster=none", "cluster.actors=2", "ingest.partition_mb=0.1", "ingest.unit_mb=0.06"]
SETTINGS += ["ingest.chunk_rows=150"]
ALWAYS = [
    ("making.marked", "", 1),
    ("commit.done", "sources-", 1),
    ("ingest.planned", "", 1),
    ("create.linked", "_commits/cut-", 3),
    ("commit.done", "merge-", 1),
    ("ingest.published", "", 1),
    ("ingest.metadata", "", 1),
    ("making.described", "", 1),
]
MORE = [
    ("create.temporary", "run.json", 1),
    ("create.linked", "run.json", 1),
    ("create.linked", "_tiles.json", 1),
    ("attempt.begun", "sources-", 2),
    ("attempt.part", "sources-", 1),
    ("commit.ready", "sources-", 2),
    ("create.temporary", "_commits/sources-", 1),
    ("create.linked", "_commits/sources-", 2),
    ("create.linked", "_partitions.parquet", 1),
    ("create.temporary", "_plan.parquet", 1),
    ("create.linked", "_plan.parquet", 1),
    ("attempt.begun", "cut-", 1),
    ("attempt.begun", "cut-", 4),
    ("attempt.part", "cut-", 5),
    ("ingest.cut", "cut-", 2),
    ("commit.ready", "cut-", 3),
    ("create.temporary", "_commits/cut-", 1),
    ("commit.done", "cut-", 2),
    ("attempt.begun", "merge-", 1),
    ("attempt.part", "merge-", 1),
    ("commit.ready", "merge-", 1),
    ("create.temporary", "_commits/merge-", 1),
    ("create.linked", "_commits/merge-", 1),
    ("ingest.merged", "", 1),
    ("attempt.begun", "merge-rejects", 1),
    ("commit.done", "merge-rejects", 1),
    ("making.done", "", 1),
]

pytestmark = pytest.mark.chaos


def ingest_words(folder, output) -> list[str]:
    words = [
        "--tiles",
        f"{folder}/{{tile}}_{{band}}.fits",
        "--bands",
        "g,r",
        "--sources",
        f"{folder}/S.parquet",
    ]
    return ["ingest", *words, "--size", "12", "--output", str(output), *SETTINGS]


def files_of(catalog) -> dict[str, object]:
    """Every file of a catalog, byte for byte but for what tells of the command and its time."""
    found: dict[str, object] = {
        str(p.relative_to(catalog)): p.read_bytes() for p in catalog.rglob("*") if p.is_file()
    }
    found["checksums.sha256"] = lasting_digests(found.pop("checksums.sha256"))
    about = json.loads(found.pop("catalog.json"))
    found["catalog.json"] = {k: v for k, v in about.items() if k not in ("command", "created")}
    properties = found.pop("hats.properties").decode().splitlines()
    found["hats.properties"] = [x for x in properties if not x.startswith(("hats_creation_date", "obs_coll"))]
    return found


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Four tiles, sources on and beside them, two with one id; the catalog of an undisturbed ingest."""
    folder = tmp_path_factory.mktemp("survey")
    mosaic(folder)
    ra, dec = positions(300, beyond=0.002)
    ids = list(range(-100, 200))
    ids[250] = ids[40]
    write_sources(folder / "S.parquet", object_id=ids, ra=ra, dec=dec)
    done = forked(ingest_words(folder, folder / "undisturbed.cat"), folder / "log")
    assert done.returncode == 0, done.stderr
    return folder, files_of(folder / "undisturbed.cat")


def test_every_step_of_an_ingest_has_its_kill():
    own = {step for step in steps_in_the_code() if step.startswith(("ingest.", "making."))}
    assert own <= {step for step, _, _ in [*ALWAYS, *MORE]}
    assert len(own) == 8


def test_the_undisturbed_ingest_has_all_kinds_of_work(survey):
    _, files = survey
    about = files["catalog.json"]
    assert about["rows_in"] == 300
    assert about["rejects"]["duplicate_id"] == 1
    assert about["rejects"]["no_tile"] > 10
    assert about["partitions"] > 3
    assert not [name for name in files if name.startswith("_")]


@pytest.mark.parametrize(
    ("step", "subject", "hit"),
    [*ALWAYS, *(pytest.param(*kill, marks=pytest.mark.slow) for kill in MORE)],
    ids=[f"{s}@{u or 'ingest'}#{n}" for s, u, n in [*ALWAYS, *MORE]],
)
def test_an_ingest_killed_at_a_step_resumes_to_the_same_bytes(survey, tmp_path, step, subject, hit):
    folder, expected = survey
    words = ingest_words(folder, tmp_path / "undisturbed.cat")
    env = killing.prepare(tmp_path / "kills", [{"step": step, "subject": subject, "hit": hit}])

    died = forked(words, tmp_path / "first", env)
    print(died.stderr, killing.killed(tmp_path / "kills"))
    assert died.returncode == -9, "the kill did not hit"
    assert [k["step"] for k in killing.killed(tmp_path / "kills")] == [step]
    resumed = forked(words, tmp_path / "second", env)
    print(resumed.stderr)
    assert resumed.returncode == 0

    assert files_of(tmp_path / "undisturbed.cat") == expected


def test_an_ingest_killed_again_and_again_ends_in_the_same_bytes(survey, tmp_path):
    folder, expected = survey
    words = ingest_words(folder, tmp_path / "undisturbed.cat")
    order = [("commit.done", "cut-", 2), ("ingest.cut", "cut-", 4), ("ingest.published", "", 1)]
    kills = [{"step": s, "subject": subject, "hit": hit} for s, subject, hit in order]
    env = killing.prepare(tmp_path / "kills", kills)

    codes = [forked(words, tmp_path / f"{n}", env).returncode for n in range(len(order) + 1)]

    print(killing.killed(tmp_path / "kills"))
    assert codes == [-9] * len(order) + [0]
    assert files_of(tmp_path / "undisturbed.cat") == expected


def test_what_a_killed_ingest_committed_is_not_cut_again(survey, tmp_path):
    folder, _ = survey
    output = tmp_path / "undisturbed.cat"
    env = killing.prepare(tmp_path / "kills", [{"step": "commit.done", "subject": "cut-", "hit": 3}])
    assert forked(ingest_words(folder, output), tmp_path / "first", env).returncode == -9
    before = {p.name: p.read_bytes() for p in (output / "_work" / "_commits").glob("cut-*.json")}
    assert len(before) >= 3
    killed_late = killing.prepare(tmp_path / "late", [{"step": "ingest.metadata", "subject": "", "hit": 1}])
    assert forked(ingest_words(folder, output), tmp_path / "second", killed_late).returncode == -9
    after = {p.name: p.read_bytes() for p in (output / "_work" / "_commits").glob("cut-*.json")}
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)


def test_two_ingests_at_once_share_the_work(survey, tmp_path):
    import threading

    folder, expected = survey
    words = ingest_words(folder, tmp_path / "undisturbed.cat")
    env = killing.prepare(tmp_path / "kills", [], meet="commit.ready")
    done = {}

    def drive(name):
        done[name] = forked(words, tmp_path / name, env)

    drivers = [threading.Thread(target=drive, args=(name,)) for name in ("one", "other")]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    print(*(d.stderr for d in done.values()), sep="\n")
    assert {d.returncode for d in done.values()} == {0}
    assert killing.met(tmp_path / "kills"), "the drivers never met"
    assert forked(words, tmp_path / "last").returncode == 0
    assert files_of(tmp_path / "undisturbed.cat") == expected


def side_by_side(name: str, subject: str) -> None:
    """Let no process pass its first cut before another one is there too; then kill as `killing` does."""
    if name == "ingest.cut":
        here = Path(os.environ[killing.FOLDER])
        (here / f"cutter.{os.getpid()}").touch()
        until = time.monotonic() + 30
        while len(list(here.glob("cutter.*"))) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        if len(list(here.glob("cutter.*"))) >= 2 and not killing.killed(here):
            (here / "met").touch()
    killing.hook(name, subject)


def test_on_ray_units_go_side_by_side_and_a_killed_actor_and_a_killed_driver_cost_nothing(survey, tmp_path):
    folder, expected = survey
    words = ingest_words(folder, tmp_path / "undisturbed.cat")
    kills = [
        {"step": "ingest.cut", "subject": "cut-", "hit": 2},
        {"step": "commit.done", "subject": "cut-", "hit": 3, "who": "driver"},
    ]
    env = killing.prepare(tmp_path / "kills", kills)
    env |= {"SURVEYPROC_STEP_HOOK": "test_ingest_kills:side_by_side"}
    begun = time.time()
    with started([*words, "cluster=local"], env) as process:
        (tmp_path / "kills" / killing.DRIVER).write_text(str(process.pid))
        assert process.wait(timeout=200) == -9
        hits = killing.killed(tmp_path / "kills")
        print(*hits, time.time() - begun)
        assert [hit["step"] for hit in hits] == ["ingest.cut", "commit.done"]
        assert (tmp_path / "kills" / "met").exists(), "one actor did everything"
        assert hits[0]["pid"] != process.pid == hits[1]["pid"]
        # The actors of the dead driver may still be at work while the same command resumes.
        assert forked(words, tmp_path / "resumed").returncode == 0
    assert files_of(tmp_path / "undisturbed.cat") == expected
