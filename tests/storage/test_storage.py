"""The create-only write that commits rest on, and the writes around it."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surveyproc.errors import InputError, ResourceError
from surveyproc.storage import Storage, explain_write_errors

WRITERS = 8


def hidden(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob(".*")]


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_only_the_first_create_wins_and_the_file_stays_as_it_was(tmp_path, scheme):
    storage = Storage(tmp_path if scheme == "file" else f"memory://{tmp_path.name}-create")
    assert storage.create("a/b.json", b"first")
    assert not storage.create("a/b.json", b"second")
    assert storage.read("a/b.json") == b"first"
    assert storage.names("a") == ["b.json"]


def test_threads_that_race_to_create_have_one_winner(tmp_path):
    storage = Storage(tmp_path)
    for round_number in range(20):
        start, won = threading.Barrier(WRITERS), []

        def write(number, name=f"{round_number}.json", start=start, won=won):
            start.wait()
            if storage.create(name, b"%d" % number):
                won.append(number)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert storage.read(f"{round_number}.json") == b"%d" % won[0]
    assert hidden(tmp_path) == []


def _race(folder: str, number: int, start, won) -> None:
    storage = Storage(folder)
    for name in range(20):
        start.wait()
        if storage.create(f"{name}.json", b"%d" % number * 1000):
            won.put((name, number))


def test_processes_that_race_to_create_have_one_winner(tmp_path):
    context = multiprocessing.get_context("fork")
    start, won = context.Barrier(3), context.Queue()
    racers = [context.Process(target=_race, args=(str(tmp_path), n, start, won)) for n in range(3)]
    for racer in racers:
        racer.start()
    winners = dict(won.get(timeout=30) for _ in range(20))
    for racer in racers:
        racer.join()
    assert won.empty()
    assert sorted(winners) == list(range(20))
    for name, number in winners.items():
        assert Storage(tmp_path).read(f"{name}.json") == b"%d" % number * 1000
    assert hidden(tmp_path) == []


def test_a_create_that_fails_leaves_nothing(tmp_path, monkeypatch):
    storage = Storage(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("surveyproc.storage.os.fsync", full)
    with pytest.raises(ResourceError, match="no space left") as caught:
        storage.create("a.json", b"data")
    assert caught.value.where == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_of_a_replaced_file_sees_the_old_bytes_or_the_new_ones(tmp_path):
    storage = Storage(tmp_path)
    values = [bytes([n]) * 200_000 for n in range(8)]
    storage.replace("a", values[0])
    done = threading.Event()
    seen = set()

    def read() -> None:
        while not done.is_set():
            data = storage.read("a")
            assert data in values
            seen.add(data[0])

    reader = threading.Thread(target=read)
    reader.start()
    for value in values * 5:
        storage.replace("a", value)
    done.set()
    reader.join()
    assert seen
    assert storage.read("a") == values[-1]
    assert hidden(tmp_path) == []


@given(st.lists(st.binary(max_size=2000), max_size=8))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_written_file_knows_its_length_and_digest(tmp_path, chunks):
    storage = Storage(tmp_path)
    with storage.writing("deep/down/file") as file:
        for chunk in chunks:
            file.write(chunk)
    data = b"".join(chunks)
    assert storage.read("deep/down/file") == data
    assert (file.nbytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert storage.size("deep/down/file") == len(data)


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_publishing_again_or_over_another_file_leaves_the_committed_bytes(tmp_path, scheme):
    storage = Storage(tmp_path if scheme == "file" else f"memory://{tmp_path.name}-publish")
    storage.replace("parts/one", b"committed")
    storage.replace("table/file", b"of an earlier life")
    for _ in range(3):
        storage.publish("parts/one", "table/file")
        assert storage.read("table/file") == b"committed"
    storage.delete_folder("parts")
    assert storage.read("table/file") == b"committed"
    assert storage.walk() == ["table/file"]


def test_deleting_what_is_gone_is_fine(tmp_path):
    storage = Storage(tmp_path)
    storage.delete(["nothing"])
    storage.delete_folder("nowhere")
    storage.replace("a/b/c", b"1")
    storage.delete_folder("a")
    assert not (tmp_path / "a").exists()


def test_listings_see_what_another_wrote(tmp_path):
    one, other = Storage(tmp_path), Storage(tmp_path)
    assert one.names("x") == []
    assert one.size("x/y") is None
    other.replace("x/y", b"12345")
    assert one.names("x") == ["y"]
    assert one.size("x/y") == 5
    assert one.exists("x/y")


def test_only_temporary_files_are_tidied(tmp_path):
    storage = Storage(tmp_path)
    kept = [".zattrs", ".hidden.json", "a.0123456789ab", "deep/.x.0123456789abcd", "deep/run.json"]
    for name in [*kept, ".run.json.0123456789ab", "deep/.part-0.parquet.abcdefabcdef"]:
        storage.replace(name, b"")
    storage.delete_temporaries()
    assert storage.walk() == sorted(kept)


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOSPC, ResourceError, 5),
        (errno.EDQUOT, ResourceError, 5),
        (errno.EFBIG, ResourceError, 5),
        (errno.EACCES, InputError, 3),
        (errno.EROFS, InputError, 3),
        (errno.ENOTDIR, InputError, 3),
    ],
    ids=lambda v: errno.errorcode.get(v, "") if isinstance(v, int) else "",
)
def test_write_errors_say_what_to_do(number, kind, code):
    with pytest.raises(kind) as caught, explain_write_errors("out.run/part"):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == code
    assert caught.value.where == "out.run/part"
    assert caught.value.fix


def test_other_errors_pass_as_they_are():
    with pytest.raises(OSError, match="Input/output"), explain_write_errors("x"):
        raise OSError(errno.EIO, "Input/output error")


def test_a_write_whose_temporary_file_is_tidied_away_is_done_again(tmp_path, monkeypatch):
    storage, replace, link = Storage(tmp_path), os.replace, os.link
    tidied = []

    def after_tidying(give_name):
        def first_tidy(source, target):
            if len(tidied) < 2:
                tidied.append(source)
                os.unlink(source)
            give_name(source, target)

        return first_tidy

    monkeypatch.setattr(os, "replace", after_tidying(replace))
    storage.replace("a", b"1")
    tidied.clear()
    monkeypatch.setattr(os, "link", after_tidying(link))
    assert storage.create("b", b"2")
    assert not storage.create("b", b"3")
    assert (storage.read("a"), storage.read("b")) == (b"1", b"2")
    assert hidden(tmp_path) == []
