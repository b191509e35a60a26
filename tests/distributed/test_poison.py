"""Cutouts that are poison to the model: the row is rejected, its neighbours keep every bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import poisoning
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from drive import assert_same_tables, assert_sound, run_here, tables_of
from toys import toy_catalog, toy_pixels

from surveyproc.config.run import load_run_config
from surveyproc.distributed import task, worker
from surveyproc.distributed.job import begin, draft
from surveyproc.errors import PartialError, ResourceError
from surveyproc.inference.passes import EncoderPass
from surveyproc.runs import open_run
from surveyproc.runs.ledger import Ledger

ROWS, SHARD = 80, 40
SETTINGS = [f"engine.shard_rows={SHARD}", "cluster.actors=1"]


@pytest.fixture
def poison(monkeypatch):
    """Poison this process and its children."""

    def set_deed(deed: str) -> None:
        monkeypatch.setenv(poisoning.DEED, deed)
        monkeypatch.syspath_prepend(Path(__file__).parent / "poison_site")
        if deed in poisoning.DECODER_DEEDS:
            monkeypatch.setattr(task, "decode_batch", poisoning.poisoned_decoder(task.decode_batch))
        else:
            monkeypatch.setattr(EncoderPass, "__call__", poisoning.poisoned_model(EncoderPass.__call__))

    return set_deed


@pytest.fixture
def catalog(tmp_path):
    return lambda bad: toy_catalog(
        tmp_path / "in.cat", rows=ROWS, pixels=poisoning.mark(toy_pixels(ROWS), bad), positions=True
    )


def assert_only_rejected(run, undisturbed, bad: list[int], reason: str, detail: str) -> None:
    """The bad rows are rejects, and every other row is as in the undisturbed run."""
    found, expected = tables_of(run), tables_of(undisturbed)
    rejects = found.pop("rejects")
    expected.pop("rejects")
    ids = [1000 + row for row in bad]
    assert rejects["object_id"].to_pylist() == ids
    assert rejects.select(["stage", "reason", "detail"]).to_pylist() == [
        {"stage": "model", "reason": reason, "detail": detail}
    ] * len(bad)
    for name, table in expected.items():
        expected[name] = table.filter(pc.invert(pc.is_in(table["object_id"], value_set=pa.array(ids))))
    assert_same_tables(found, expected)
    assert_sound(run)


@pytest.mark.parametrize(
    "bad", [[21], [0, 15, 39, 40, 79], list(range(16, 32))], ids=["one", "some", "a batch"]
)
def test_rows_that_make_the_model_raise_are_rejected(bundle, tmp_path, catalog, poison, bad):
    cutouts = catalog(bad)
    run_here(cutouts, tmp_path / "undisturbed.run", bundle, *SETTINGS)
    poison("raise")
    result = run_here(cutouts, tmp_path / "out.run", bundle, *SETTINGS)
    assert (result.rows, result.rejects) == (ROWS - len(bad), len(bad))
    assert_only_rejected(
        tmp_path / "out.run",
        tmp_path / "undisturbed.run",
        bad,
        "model_error",
        "ValueError: degenerate ellipse",
    )


def test_a_batch_that_raises_once_rejects_nothing(bundle, tmp_path, catalog, poison, monkeypatch):
    cutouts = catalog([21])
    run_here(cutouts, tmp_path / "undisturbed.run", bundle, *SETTINGS)
    monkeypatch.setenv(poisoning.FILE, str(tmp_path / "raised"))
    poison("once")
    assert run_here(cutouts, tmp_path / "out.run", bundle, *SETTINGS).rejects == 0
    assert (tmp_path / "raised").exists()
    assert_same_tables(tables_of(tmp_path / "out.run"), tables_of(tmp_path / "undisturbed.run"))
    assert_sound(tmp_path / "out.run")


@pytest.mark.parametrize(
    ("deed", "says"), [("eat", "can't allocate memory"), ("swell", "MemoryError: too large a picture")]
)
def test_a_row_that_wants_all_memory_is_rejected_when_a_child_shows_it(
    bundle, tmp_path, catalog, poison, deed, says
):
    cutouts = catalog([50])
    run_here(cutouts, tmp_path / "undisturbed.run", bundle, *SETTINGS)
    poison(deed)
    run_here(cutouts, tmp_path / "out.run", bundle, *SETTINGS)
    detail = tables_of(tmp_path / "out.run")["rejects"]["detail"][0].as_py()
    assert says in detail
    assert_only_rejected(tmp_path / "out.run", tmp_path / "undisturbed.run", [50], "out_of_memory", detail)


def test_a_model_that_always_raises_stops_the_run_says_why_and_rejects_nothing(
    bundle, tmp_path, catalog, poison, monkeypatch
):
    cutouts, run = catalog([]), tmp_path / "out.run"
    run_here(cutouts, tmp_path / "undisturbed.run", bundle, *SETTINGS)
    poison("always")
    with pytest.raises(PartialError, match="RuntimeError: no kernel image, on a blank batch too") as caught:
        run_here(cutouts, run, bundle, *SETTINGS)
    assert caught.value.exit_code == 4
    assert "shard-000000" in caught.value.where
    assert "mend the bundle" in caught.value.fix
    assert not list((run / "_attempts").glob("*/*")), "living attempts that give up leave nothing"

    monkeypatch.undo()
    assert run_here(cutouts, run, bundle, *SETTINGS).rejects == 0
    assert_same_tables(tables_of(run), tables_of(tmp_path / "undisturbed.run"))


def test_a_model_that_raises_on_every_cutout_stops_at_the_limit_and_keeps_its_commits(
    bundle, tmp_path, catalog, poison
):
    cutouts, run = catalog([]), tmp_path / "out.run"
    poison("each")
    settings = ["engine.shard_rows=10", "cluster.actors=1", "limits.max_reject_fraction=0.3"]
    with pytest.raises(
        PartialError, match=r"more than limits.max_reject_fraction=0.3 of the input"
    ) as caught:
        run_here(cutouts, run, bundle, *settings)
    assert "model_error, RuntimeError: no kernel image" in caught.value.what
    assert caught.value.exit_code == 4
    assert 3 <= open_run(str(run)).status()["shards_committed"] <= 5
    with pytest.raises(PartialError, match="model_error, RuntimeError: no kernel image"):
        run_here(cutouts, run, bundle, *settings)


def test_the_search_for_bad_rows_is_given_up_when_most_rows_of_an_engine_are(
    bundle, tmp_path, catalog, poison, monkeypatch
):
    calls = []
    monkeypatch.setattr(worker, "DEAR_REJECTS", 20)
    poison("each")
    counted = EncoderPass.__call__
    monkeypatch.setattr(EncoderPass, "__call__", lambda *args: calls.append(1) or counted(*args))
    with pytest.raises(PartialError, match=r"failed on 32 of the 32 rows this engine has seen") as caught:
        run_here(catalog([]), tmp_path / "out.run", bundle, *SETTINGS)
    assert "RuntimeError: no kernel image" in caught.value.what
    assert len(calls) <= 3 * (3 * 16 + 4)
    assert open_run(str(tmp_path / "out.run")).status()["shards_committed"] == 0


def test_a_few_bad_rows_first_do_not_stop_a_run(bundle, tmp_path, catalog, poison, monkeypatch):
    monkeypatch.setattr(worker, "DEAR_REJECTS", 20)
    poison("raise")
    settings = ["engine.shard_rows=10", "cluster.actors=1", "limits.max_reject_fraction=0.25"]
    assert run_here(catalog(list(range(19))), tmp_path / "out.run", bundle, *settings).rejects == 19


@pytest.fixture
def job(bundle, tmp_path, catalog):
    config = load_run_config(["engine.batch_size=16", "engine.views=2", *SETTINGS])
    with begin(draft(str(catalog([])), str(tmp_path / "out.run"), [str(bundle)], config)) as job:
        yield job


def test_a_shard_that_cost_one_command_ten_processes_is_given_up(job):
    ledger, shard = Ledger(job.storage), job.plan[0]
    for _ in range(worker.VANISHED_MOST):
        ledger.begin(shard.unit, job.draft.task.command)
    with pytest.raises(ResourceError, match="10 attempts at a shard vanished") as caught:
        worker.ShardWorker(job.draft.task)(shard)
    assert caught.value.where.startswith("shard-0000000")
    assert worker.ShardWorker(job.draft.task)(job.plan[1]).rows == SHARD


def test_processes_that_other_commands_lost_do_not_end_this_one(job):
    ledger, shard = Ledger(job.storage), job.plan[0]
    for number in range(worker.VANISHED_MOST + 2):
        ledger.begin(shard.unit, f"command {number}")
    assert worker.ShardWorker(job.draft.task)(shard).rows == SHARD
    assert len(ledger.attempts_at(shard.unit)) == worker.VANISHED_MOST + 3, "markers stay until finalise"


def test_an_attempt_that_fails_while_it_commits_keeps_its_files(job, monkeypatch):
    """Its commit may have arrived although the answer did not."""
    ledger, shard = Ledger(job.storage), job.plan[0]
    real = type(job.storage).create

    def lost_answer(self, name, data):
        real(self, name, data)
        raise ResourceError("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(type(job.storage), "create", lost_answer)
        with pytest.raises(ResourceError, match="lost"):
            worker.ShardWorker(job.draft.task)(shard)
    commit = ledger.commit_of(shard.unit)
    assert all(job.storage.size(part.path) == part.bytes for part in commit.parts.values())


def test_the_mark_is_seen():
    pixels = poisoning.mark(toy_pixels(9), [2, 5])
    assert poisoning.marked(pixels) == 2
    assert poisoning.marked(toy_pixels(500)) == 0
    assert np.array_equal(np.flatnonzero((pixels != toy_pixels(9)).any((1, 2, 3))), [2, 5])
