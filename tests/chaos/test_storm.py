"""A small storm, in the suite: one process at a time against a bucket whose answers break; see `storm`."""

from __future__ import annotations

import random
import threading

import killing
import pytest
from drive import forked, run_words, tables_of
from stores import BUCKET, environment_of, fault_proxy, s3_server
from storm import (
    SETTINGS,
    STEPS,
    created_twice,
    describe,
    make_survey,
    store_rules,
    toll,
    undisturbed,
)

import surveyproc
from surveyproc.storage import Storage

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
ROWS, SHARDS, KILLS = 240, 24, 7


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    catalog, bundle, per_shard = make_survey(folder, ROWS, SHARDS)
    return (
        catalog,
        bundle,
        [*SETTINGS, f"engine.shard_rows={per_shard}", "cluster=none", "cluster.actors=2"],
        undisturbed(folder, catalog, bundle, per_shard),
    )


@pytest.fixture
def bucket(survey, tmp_path, monkeypatch):
    """The catalog in a bucket behind the proxy; this process and its children are pointed at it."""
    with (
        s3_server() as server,
        fault_proxy(server, tmp_path / "proxy") as (behind, faults),
        environment_of(behind, monkeypatch),
    ):
        storage = Storage(f"s3://{BUCKET}")
        for file in survey[0].rglob("*.parquet"):
            storage.replace(f"in.cat/{file.relative_to(survey[0])}", file.read_bytes())
        yield f"s3://{BUCKET}", behind, faults


def assert_unharmed(uri, expected, kills):
    cost = toll(tables_of(uri), expected)
    print(cost)
    assert cost.nothing
    assert created_twice(kills) == []
    assert not [check for check in surveyproc.verify(uri) if not check.passed]
    storage = Storage(uri)
    assert storage.walk("_attempts") == []
    assert storage.fs.list_multipart_uploads(BUCKET) == []


def test_a_small_storm_costs_nothing(survey, bucket, tmp_path):
    _, bundle, settings, expected = survey
    uri, server, faults = bucket
    dice = random.Random(3)
    chosen = [
        ("create.linked", "_commits/shard-"),
        ("merge.published", "merge-"),
        ("create.linked", "_manifests/"),
    ]
    chosen += dice.sample([s for s in STEPS if s not in chosen], KILLS - len(chosen))
    kills = [{"step": step, "subject": subject} for step, subject in chosen]
    env = server.env | killing.prepare(tmp_path / "kills", kills)
    faults.set(*store_rules(chance=0.02, times=12))
    words = run_words(f"{uri}/in.cat", f"{uri}/out.run", bundle, *settings)

    codes = [forked(words, tmp_path / f"{n}", env).returncode for n in range(KILLS)]
    last = forked(words, tmp_path / "last", env)
    faults.set()

    injected = killing.killed(tmp_path / "kills") + faults.injected()
    print(*map(describe, injected), codes, last.stderr, sep="\n")
    assert codes == [-9] * KILLS
    assert last.returncode == 0
    assert len(injected) >= 30
    assert_unharmed(f"{uri}/out.run", expected, tmp_path / "kills")


def test_lost_answers_to_all_commits_cost_nothing(survey, bucket, tmp_path):
    _, bundle, settings, expected = survey
    uri, server, faults = bucket
    env = server.env | killing.prepare(tmp_path / "kills", [])
    faults.set(*({"kind": "lost", "method": "PUT", "path": f"_commits/shard-{n:07d}"} for n in range(SHARDS)))

    done = forked(run_words(f"{uri}/in.cat", f"{uri}/out.run", bundle, *settings), tmp_path / "run", env)

    print(done.stderr)
    assert len(faults.injected()) == SHARDS
    assert done.returncode == 0
    assert_unharmed(f"{uri}/out.run", expected, tmp_path / "kills")


def test_two_drivers_that_commit_at_the_same_moment_share_the_work(survey, bucket, tmp_path):
    _, bundle, settings, expected = survey
    uri, server, _ = bucket
    env = server.env | killing.prepare(tmp_path / "kills", [], meet="commit.ready")
    words = run_words(f"{uri}/in.cat", f"{uri}/out.run", bundle, *settings)
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
    assert len(killing.met(tmp_path / "kills")) >= SHARDS // 2, "the drivers hardly met"
    assert forked(words, tmp_path / "last", env).returncode == 0
    assert_unharmed(f"{uri}/out.run", expected, tmp_path / "kills")
