"""An engine in a child process: it computes what the engine here does, and leaves no process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from drive import bits
from toys import toy_catalog

from surveyproc.config.run import load_run_config
from surveyproc.distributed import child as far_side
from surveyproc.distributed import parent as module
from surveyproc.distributed.job import begin, draft
from surveyproc.distributed.parent import ChildEngine
from surveyproc.distributed.task import predict_batch
from surveyproc.distributed.worker import Cancelled
from surveyproc.errors import InputError, ResourceError
from surveyproc.inference.bisect import EngineBroken

NOTHING = frozenset()


@pytest.fixture
def work(bundle, tmp_path):
    """The task and the only shard of a run over 40 cutouts in batches of 16."""
    catalog = toy_catalog(tmp_path / "in.cat", rows=40, positions=True)
    config = load_run_config(["engine.batch_size=16", "engine.shard_rows=40", "cluster.actors=1"])
    with begin(draft(str(catalog), str(tmp_path / "out.run"), [str(bundle)], config)) as job:
        yield job.draft.task, job.plan[0]


def children() -> list[str]:
    """Command lines of the processes this one started for engines."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = stat.read_bytes().replace(b"\0", b" ").decode()
            parent = int((stat.parent / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if "surveyproc.distributed.child" in command and parent in (os.getpid(), 1):
            found.append(command)
    return found


def test_a_child_computes_the_same_bits_batch_by_batch_also_after_a_loss(work):
    task, shard = work
    engine, batches = task.open_engine(), list(task.read(shard))
    with ChildEngine(task, shard, lambda: None) as child:
        for number, batch in enumerate(batches):
            if number == 1:
                os.kill(child._child[0], signal.SIGKILL)
                with pytest.raises(EngineBroken, match="killed by SIGKILL"):
                    child.ask(number, NOTHING, {})
            found = child.ask(number, NOTHING, {})
            expected = predict_batch(engine, batch, *task.decode(batch), 16 * number)
            assert (found.rows, found.ids) == (expected.rows, expected.ids)
            assert found.tables.keys() == expected.tables.keys()
            for name, table in expected.tables.items():
                for column in table.column_names:
                    assert bits(found.tables[name][column]) == bits(table[column]), (name, column)
        assert child.ask(3, NOTHING, {}) is None
    assert not children()


def test_hidden_and_condemned_rows_are_left_out(work):
    task, shard = work
    with ChildEngine(task, shard, lambda: None) as child:
        found = child.ask(1, frozenset({0, 1}), {5: ("killed_engine", "seen")})
    rejects = found.tables["rejects"].to_pylist()
    assert [row["object_id"] for row in rejects] == [1016, 1017, 1021]
    assert (rejects[2]["stage"], rejects[2]["reason"], rejects[2]["detail"]) == (
        "model",
        "killed_engine",
        "seen",
    )
    assert found.tables["morphology"].num_rows == 13


def test_an_error_of_the_input_arrives_as_it_is(work):
    task, shard = work
    Path(task.catalog, shard.file).unlink()
    with ChildEngine(task, shard, lambda: None) as child, pytest.raises(InputError, match="gone"):
        child.ask(0, NOTHING, {})
    assert not children()


def test_a_server_that_is_killed_is_replaced(work):
    task, shard = work
    with ChildEngine(task, shard, lambda: None) as child:
        child.ask(0, NOTHING, {})
        child._server.kill()
        os.kill(child._child[0], signal.SIGKILL)
        with pytest.raises(EngineBroken, match="and the one that started it were killed"):
            child.ask(1, NOTHING, {})
        assert child.ask(1, NOTHING, {}).rows == 16
    assert not children()


def test_a_run_that_is_stopped_leaves_no_process(work):
    checks = []

    def check():
        checks.append(1)
        if len(checks) == 2:
            raise Cancelled

    with ChildEngine(*work, check) as child, pytest.raises(Cancelled):
        child.ask(0, NOTHING, {})
    assert not children()


def test_a_machine_that_starts_no_process_says_so(work, monkeypatch):
    def refuse(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(module.subprocess, "Popen", refuse)
    with ChildEngine(*work, lambda: None) as child, pytest.raises(ResourceError) as caught:
        child.ask(0, NOTHING, {})
    assert "Cannot allocate memory" in caught.value.what


def test_a_child_has_a_limit_of_memory(work):
    with ChildEngine(*work, lambda: None) as child:
        child.ask(0, NOTHING, {})
        limits = Path(f"/proc/{child._child[0]}/limits").read_text().splitlines()
    soft = next(line for line in limits if line.startswith("Max data size")).split()[3]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < int(soft) < machine


@pytest.mark.parametrize(("limit", "expected"), [("1000000", 1_000_000 - 700_000 + 600_000), ("max", None)])
def test_the_memory_of_a_container_counts(tmp_path, monkeypatch, limit, expected):
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 90000\ninactive_file 600000\n")
    monkeypatch.setattr(far_side, "CGROUP", tmp_path)
    found = far_side._available_memory()
    assert found == expected if expected else found > 10**8
