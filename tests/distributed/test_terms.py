"""A node that would compute other values than the driver says refuses, and says what differs."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
from toys import toy_bundle, toy_catalog

from surveyproc.config.run import load_run_config
from surveyproc.distributed.job import begin, draft
from surveyproc.distributed.terms import bundle_address
from surveyproc.distributed.worker import ShardWorker
from surveyproc.errors import InputError, ResourceError, UsageError
from surveyproc.inference import settings
from surveyproc.models.bundle import open_bundle, shipped_bundles


@pytest.fixture
def drafted(bundle, tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=20)
    own = tmp_path / "own"
    own.mkdir()
    for file in bundle.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    return draft(str(catalog), str(tmp_path / "out.run"), [str(own)], load_run_config(["cluster=none"]))


def test_a_node_like_the_driver_agrees(drafted):
    assert ShardWorker(pickle.loads(pickle.dumps(drafted.task))).engine.passes == 1


def test_a_node_with_other_code_refuses_unless_it_was_accepted(drafted):
    task = replace(drafted.task, software="surveyproc 0.0.1 with torch 1.0")
    with pytest.raises(UsageError, match=r"the driver has surveyproc 0\.0\.1 with torch 1\.0") as caught:
        ShardWorker(task)
    assert "--accept-code" in caught.value.fix
    with begin(replace(drafted, task=task), accept_code=True) as job:
        ShardWorker(job.draft.task)


def test_a_node_without_bf16_refuses_a_run_begun_with_it(drafted, monkeypatch):
    task = replace(drafted.task, settings=replace(drafted.task.settings, precision="bf16"))
    monkeypatch.setattr(settings, "_cpu_has_bf16", lambda: False)
    with pytest.raises(ResourceError, match=r"this node cannot compute .* bf16") as caught:
        ShardWorker(task)
    assert "engine.precision=fp32" in caught.value.fix


def test_a_node_without_the_gpu_refuses(drafted):
    task = replace(drafted.task, settings=replace(drafted.task.settings, device="cuda"))
    if settings.torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ResourceError, match="no CUDA device"):
        ShardWorker(task)


@pytest.mark.parametrize("change", ["weights", "record"])
def test_a_node_with_another_bundle_of_the_same_name_refuses(drafted, tmp_path, change):
    if change == "weights":
        toy_bundle(tmp_path / "own", seed=1)
    else:
        file = tmp_path / "own" / "model.json"
        record = json.loads(file.read_text())
        record["inference"]["views"] = 4
        file.write_text(json.dumps(record))
    with pytest.raises(InputError, match="is not the driver's"):
        ShardWorker(drafted.task)


def test_a_bundle_that_the_node_does_not_have_is_named(drafted, tmp_path):
    (tmp_path / "own").rename(tmp_path / "away")
    with pytest.raises(InputError, match="there is no bundle") as caught:
        ShardWorker(drafted.task)
    assert str(tmp_path / "own") in caught.value.where


def test_shipped_bundles_travel_by_name_and_others_by_address(bundle, monkeypatch):
    name = shipped_bundles()[0]
    assert bundle_address(open_bundle(name)) == name
    monkeypatch.chdir(bundle.parent)
    assert bundle_address(open_bundle(bundle.name)) == str(bundle)


def test_the_folders_of_a_run_are_found_from_another_working_folder(drafted, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = draft("in.cat", "other.run", ["own"], load_run_config(["cluster=none"]))
    assert (found.task.catalog, found.task.run) == (str(tmp_path / "in.cat"), str(tmp_path / "other.run"))
    with begin(found) as job:
        monkeypatch.chdir("/")
        assert ShardWorker(job.draft.task)(next(iter(job.plan))).ours
