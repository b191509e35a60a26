"""Whole runs from and to ``s3://``, on real servers, with answers that break."""

from __future__ import annotations

import json
import threading
import uuid

import pytest
from drive import assert_same_tables, forked, run_here, run_words, tables_of
from stores import BUCKET, SECRET, environment_of, fault_proxy, rclone_server, s3_server
from toys import toy_catalog

import surveyproc
from surveyproc.catalog import open_catalog, read_batches
from surveyproc.catalog.ranges import StoreObject
from surveyproc.distributed import job
from surveyproc.errors import InputError, ResourceError
from surveyproc.runs import open_run
from surveyproc.storage import Storage

ROWS = 120


@pytest.fixture(scope="module")
def moto():
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, bundle):
    folder = tmp_path_factory.mktemp("undisturbed")
    catalog = toy_catalog(folder / "in.cat", rows=ROWS, positions=True)
    run_here(catalog, folder / "out.run", bundle)
    return tables_of(folder / "out.run")


@pytest.fixture
def s3(moto, monkeypatch):
    with environment_of(moto, monkeypatch):
        yield f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def faults(moto, monkeypatch, tmp_path):
    with fault_proxy(moto, tmp_path / "proxy") as (server, rules), environment_of(server, monkeypatch):
        yield f"s3://{BUCKET}/{uuid.uuid4().hex}", rules


def assert_sound(uri):
    failed = [check for check in surveyproc.verify(uri) if not check.passed]
    assert not failed, failed
    storage = Storage(uri)
    left = [name for name in storage.walk() if name.startswith(("_attempts", "_drivers", "_probe"))]
    assert not left
    assert storage.fs.list_multipart_uploads(BUCKET) == []


def test_a_run_in_a_bucket_equals_one_on_a_disk(s3, bundle, undisturbed):
    toy_catalog(f"{s3}/in.cat", rows=ROWS, positions=True)
    result = run_here(f"{s3}/in.cat", f"{s3}/out.run", bundle)
    assert (result.rows, result.rejects) == (ROWS, 0)
    assert_same_tables(tables_of(f"{s3}/out.run"), undisturbed)
    assert_sound(f"{s3}/out.run")
    assert run_here(f"{s3}/in.cat", f"{s3}/out.run", bundle).nothing_to_do

    counted = surveyproc.sql("SELECT count(*) AS n, min(object_id) AS low FROM morphology", f"{s3}/out.run")
    assert counted.to_pylist() == [{"n": ROWS, "low": 1000}]
    assert surveyproc.sql("SELECT count(*) AS n FROM catalog", f"{s3}/in.cat").to_pylist() == [{"n": ROWS}]
    assert len(surveyproc.similar(f"{s3}/out.run", 1000, k=3)) == 3
    assert surveyproc.open(f"{s3}/out.run").status()["state"] == "finished"
    record = json.dumps(open_run(f"{s3}/out.run").record)
    assert SECRET not in record


def test_a_run_behind_broken_answers_equals_one_on_a_disk(faults, bundle, undisturbed):
    s3, rules = faults
    toy_catalog(f"{s3}/in.cat", rows=ROWS, positions=True)
    kinds = ("503", "cut", "truncate", "lost", "delay")
    rules.set(*({"kind": kind, "times": 10**6, "chance": 0.02} for kind in kinds))
    run_here(f"{s3}/in.cat", f"{s3}/out.run", bundle)
    rules.set()
    injected = [fault["kind"] for fault in rules.injected()]
    print({kind: injected.count(kind) for kind in kinds})
    assert set(injected) == set(kinds)
    assert_same_tables(tables_of(f"{s3}/out.run"), undisturbed)
    assert_sound(f"{s3}/out.run")


def test_lost_answers_to_every_first_commit_lose_and_double_nothing(faults, bundle, undisturbed):
    s3, rules = faults
    toy_catalog(f"{s3}/in.cat", rows=ROWS, positions=True)
    rules.set(
        {"kind": "lost", "method": "PUT", "path": "_commits/shard-0000003", "times": 9},
        {"kind": "lost", "method": "PUT", "path": "_commits/merge-morphology", "times": 3},
        {"kind": "lost", "method": "PUT", "path": "_manifests/", "times": 3},
        {"kind": "lost", "method": "PUT", "path": "run.json", "times": 2},
    )
    run_here(f"{s3}/in.cat", f"{s3}/out.run", bundle)
    assert len(rules.injected()) >= 8
    assert_same_tables(tables_of(f"{s3}/out.run"), undisturbed)
    assert_sound(f"{s3}/out.run")


def test_a_commit_of_unknown_fate_keeps_its_parts(faults, bundle, undisturbed, monkeypatch):
    s3, rules = faults
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    toy_catalog(f"{s3}/in.cat", rows=ROWS, positions=True)
    commit = "_commits/shard-0000005"
    rules.set(
        {"kind": "lost", "method": "PUT", "path": commit, "times": 1},
        {"kind": "503", "path": commit, "times": 10**6, "skip": 1},
    )
    with pytest.raises(ResourceError, match="does not answer"):
        run_here(f"{s3}/in.cat", f"{s3}/out.run", bundle, "cluster.actors=1")
    rules.set()
    assert Storage(f"{s3}/out.run").size(f"{commit}.json"), "the write was done, only its answer was lost"
    run_here(f"{s3}/in.cat", f"{s3}/out.run", bundle, "cluster.actors=1")
    assert_same_tables(tables_of(f"{s3}/out.run"), undisturbed)
    assert_sound(f"{s3}/out.run")


def test_a_run_left_by_a_store_that_went_away_resumes(faults, bundle, undisturbed, monkeypatch):
    s3, rules = faults
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    toy_catalog(f"{s3}/in.cat", rows=ROWS, positions=True)
    rules.set({"kind": "503", "method": "PUT", "times": 10**6, "skip": 30})
    with pytest.raises(ResourceError, match="give the same command again"):
        run_here(f"{s3}/in.cat", f"{s3}/out.run", bundle)
    rules.set()
    result = run_here(f"{s3}/in.cat", f"{s3}/out.run", bundle)
    assert result.resumed
    assert_same_tables(tables_of(f"{s3}/out.run"), undisturbed)
    assert_sound(f"{s3}/out.run")


def test_on_a_store_that_overwrites_one_driver_alone_commits(
    tmp_path, monkeypatch, bundle, undisturbed, capfd
):
    with rclone_server(tmp_path / "rclone") as server, environment_of(server, monkeypatch):
        s3 = f"s3://{BUCKET}"
        toy_catalog(f"{s3}/in.cat", rows=ROWS, positions=True)
        entered, settle = threading.Event(), job._settle
        refused = []

        def second(*args):
            if not entered.is_set():
                entered.set()
                with pytest.raises(ResourceError, match="another driver is at work") as caught:
                    run_here(f"{s3}/in.cat", f"{s3}/out.run", bundle)
                refused.append(caught.value)
            settle(*args)

        monkeypatch.setattr(job, "_settle", second)
        run_here(f"{s3}/in.cat", f"{s3}/out.run", bundle)
        assert refused
        assert "this driver alone commits" in capfd.readouterr().err
        assert_same_tables(tables_of(f"{s3}/out.run"), undisturbed)
        assert not [c for c in surveyproc.verify(f"{s3}/out.run") if not c.passed]


def test_reading_some_columns_moves_little_more_than_their_bytes(s3, monkeypatch):
    toy_catalog(f"{s3}/in.cat", rows=4000, group_rows=400)
    catalog = open_catalog(f"{s3}/in.cat")
    (file,) = catalog.files
    moved, fetch = [], StoreObject.fetch
    monkeypatch.setattr(StoreObject, "fetch", lambda self, a, b: (moved.append(b - a), fetch(self, a, b))[1])
    rows = sum(
        batch.num_rows
        for batch in read_batches(
            catalog.uri, file.path, [3, 4], 64, ["object_id", "image"], expect=(file.size, file.version)
        )
    )
    assert rows == 800
    assert sum(moved) < 0.2 * file.size + 2 * 64 * 2**10


def test_an_object_written_again_under_a_run_is_refused_in_the_middle_of_a_file(s3):
    toy_catalog(f"{s3}/in.cat", rows=4000, group_rows=100)
    catalog = open_catalog(f"{s3}/in.cat")
    (file,) = catalog.files
    batches = read_batches(
        catalog.uri, file.path, range(40), 100, ["object_id"], expect=(file.size, file.version)
    )
    next(batches)
    storage = Storage(f"{s3}/in.cat")
    storage.replace(file.path, storage.read(file.path)[:-1] + b"2")
    with pytest.raises(InputError, match="changed since"):
        list(batches)


def test_an_unfinished_catalog_is_refused(s3):
    toy_catalog(f"{s3}/in.cat", rows=20)
    Storage(f"{s3}/in.cat").replace("_unfinished", b"")
    with pytest.raises(InputError, match="unfinished"):
        open_catalog(f"{s3}/in.cat")
    with pytest.raises(InputError, match="being written there"):
        toy_catalog(f"{s3}/in.cat", rows=20)


def test_a_writer_that_fails_leaves_nothing(s3, monkeypatch):
    from surveyproc.catalog import CatalogWriter

    def fail(self):
        raise ResourceError("full")

    monkeypatch.setattr(CatalogWriter, "_end_file", fail)
    with pytest.raises(ResourceError, match="full"):
        toy_catalog(f"{s3}/in.cat", rows=20)
    assert Storage(s3).walk() == []
    assert Storage(s3).fs.list_multipart_uploads(BUCKET) == []


def test_a_request_that_is_never_answered_is_asked_again(faults, bundle, undisturbed):
    s3, rules = faults
    toy_catalog(f"{s3}/in.cat", rows=ROWS, positions=True)
    rules.set(
        {"kind": "hang", "method": "PUT", "path": "_commits/shard-0000002"},
        {"kind": "hang", "method": "GET", "path": "in.cat/dataset", "skip": 3},
    )
    run_here(f"{s3}/in.cat", f"{s3}/out.run", bundle)
    assert [fault["kind"] for fault in rules.injected()] == ["hang", "hang"]
    assert_same_tables(tables_of(f"{s3}/out.run"), undisturbed)
    assert_sound(f"{s3}/out.run")


def test_a_clock_that_jumps_changes_nothing(s3, moto, bundle, undisturbed, tmp_path):
    toy_catalog(f"{s3}/in.cat", rows=ROWS, positions=True)
    env = moto.env | {"SURVEYPROC_STEP_HOOK": "meddling:clock"}
    settings = ["engine.shard_rows=10", "cluster=none", "cluster.actors=2"]
    done = forked(run_words(f"{s3}/in.cat", f"{s3}/out.run", bundle, *settings), tmp_path / "log", env)
    print(done.stderr)
    assert done.returncode == 0
    assert_same_tables(tables_of(f"{s3}/out.run"), undisturbed)
    assert_sound(f"{s3}/out.run")
