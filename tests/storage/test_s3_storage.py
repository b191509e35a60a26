"""Storage on a real S3 endpoint: conditional creates, broken answers, uploads that are given up."""

from __future__ import annotations

import threading
import uuid

import pytest
from stores import BUCKET, KEY, SECRET, environment_of, rclone_server

from surveyproc.errors import InputError, ResourceError, UsageError
from surveyproc.storage import Storage
from surveyproc.stores import configure, filesystem, parse_options, without_secrets

CHUNK = b"x" * 2**20


@pytest.fixture
def uri():
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def test_only_the_first_create_wins(s3, uri):
    storage = Storage(uri)
    assert storage.create("a/b.json", b"first")
    assert not storage.create("a/b.json", b"second")
    assert storage.read("a/b.json") == b"first"
    assert storage.creates_only_once()
    assert storage.walk() == ["a/b.json"], "the probe leaves nothing"


def test_threads_that_race_to_create_have_one_winner(s3, uri):
    storage, writers = Storage(uri), 8
    for name in "abcde":
        start, won = threading.Barrier(writers), []

        def write(number, name=name, start=start, won=won):
            start.wait()
            if storage.create(name, b"%d" % number):
                won.append(number)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [storage.read(name)] == [b"%d" % number for number in won]


def test_listings_see_at_once_what_others_wrote(s3, uri):
    one, other = Storage(uri), Storage(uri)
    assert one.names() == []
    other.replace("x", b"1")
    assert one.names() == ["x"]
    assert one.exists("x")
    assert one.size("x") == 1
    other.delete(["x", "never there"])
    assert one.names() == []
    assert one.size("x") is None


def test_an_upload_given_up_leaves_neither_object_nor_parts(s3, uri):
    storage = Storage(uri)

    def write():
        with storage.writing("big") as file:
            for _ in range(40):
                file.write(CHUNK)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert storage.size("big") is None
    assert storage.fs.list_multipart_uploads(BUCKET) == []


def test_uploads_of_killed_writers_are_removed_below_the_folder_only(s3, uri):
    inside, outside = Storage(f"{uri}/run"), Storage(f"{uri}/run2")
    for storage in (inside, outside):
        _, _, key = storage.path("part").partition("/")
        storage.fs.call_s3("create_multipart_upload", Bucket=BUCKET, Key=key)
    inside.delete_temporaries()
    left = [upload["Key"] for upload in inside.fs.list_multipart_uploads(BUCKET)]
    assert left == [outside.path("part").partition("/")[2]]
    outside.delete_temporaries()


def test_published_files_are_copies(s3, uri):
    storage = Storage(uri)
    storage.replace("from", b"123")
    storage.publish("from", "to/here")
    storage.publish("from", "to/here")
    storage.delete(["from"])
    assert storage.read("to/here") == b"123"


@pytest.mark.parametrize("kind", ["503", "cut", "truncate"])
def test_a_broken_answer_is_asked_for_again(faults, uri, kind):
    storage = Storage(uri)
    with storage.writing("file") as file:
        file.write(CHUNK)
    faults.set({"kind": kind, "method": "GET", "path": "/file", "times": 2})
    assert storage.read("file") == CHUNK
    assert len(faults.injected()) == 2


@pytest.mark.parametrize("kind", ["503", "cut", "lost"])
def test_a_create_whose_answer_breaks_is_settled_by_reading_back(faults, uri, kind):
    storage = Storage(uri)
    faults.set({"kind": kind, "method": "PUT", "path": "/commit", "times": 3})
    assert storage.create("commit", b"mine")
    assert storage.read("commit") == b"mine"
    assert not storage.create("commit", b"other")
    assert len(faults.injected()) == 3


def test_a_create_whose_answer_is_lost_finds_the_winner(faults, uri):
    storage = Storage(uri)
    assert storage.create("commit", b"theirs")
    faults.set({"kind": "lost", "method": "PUT", "path": "/commit", "times": 9})
    assert not storage.create("commit", b"mine")
    assert storage.read("commit") == b"theirs"


def test_a_store_that_stays_away_is_an_error_that_says_what_to_do(faults, uri):
    storage = Storage(uri)
    faults.set({"kind": "503", "times": 10**6})
    with pytest.raises(ResourceError, match="does not answer as it should") as caught:
        storage.read("file")
    assert "give the same command again" in str(caught.value)
    with pytest.raises(ResourceError):
        storage.create("commit", b"mine")


def test_reads_through_an_open_file_explain_what_the_store_answered(faults, uri):
    storage = Storage(uri)
    storage.replace("file", CHUNK)
    with storage.open("file") as file:
        faults.set({"kind": "503", "times": 10**6})
        with pytest.raises(ResourceError, match="does not answer"):
            file.read()


def test_wrong_credentials_are_said_without_repeating_them(s3, uri, monkeypatch):
    storage = Storage(uri)

    def forbidden(path):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(storage.fs, "cat_file", forbidden)
    with pytest.raises(InputError, match="refuses access") as caught:
        storage.read("x")
    assert SECRET not in str(caught.value)


def test_rclone_is_found_to_overwrite(tmp_path, monkeypatch, uri):
    with rclone_server(tmp_path / "rclone") as server, environment_of(server, monkeypatch):
        storage = Storage(uri)
        assert not storage.creates_only_once()
        storage.create_only = False
        assert storage.create("commit", b"mine")
        assert not storage.create("commit", b"other")
        assert storage.read("commit") == b"mine"


def test_storage_options_open_a_store_without_the_environment(moto, uri, monkeypatch):
    for name in moto.env:
        monkeypatch.delenv(name, raising=False)
    words = [f"endpoint_url={moto.endpoint}", f"key={KEY}", f"secret={SECRET}", "region_name=us-east-1"]
    try:
        configure(parse_options(words))
        assert Storage(uri).create("x", b"1")
    finally:
        configure({})


def test_wrong_storage_options_are_refused_without_their_values():
    with pytest.raises(UsageError, match="KEY=VALUE") as caught:
        parse_options(["hunter2"])
    assert "hunter2" not in str(caught.value)
    try:
        configure({"secrett": "hunter2"})
        with pytest.raises(UsageError, match="Did you mean 'secret'") as caught:
            filesystem("s3://bucket/x")
    finally:
        configure({})
    assert "hunter2" not in str(caught.value)


def test_an_unknown_store_is_refused():
    with pytest.raises(UsageError, match="no store can be opened with nope://"):
        filesystem("nope://bucket/x")


def test_secrets_are_taken_out_of_a_command_line():
    words = ["run", "--storage", "key=abc", "--storage=secret=def", "cluster=none", "--input", "s3://b/x"]
    shown = without_secrets(words)
    assert shown == [
        "run",
        "--storage",
        "key=...",
        "--storage=secret=...",
        "cluster=none",
        "--input",
        "s3://b/x",
    ]
