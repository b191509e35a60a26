"""One unit of work counts exactly once, whoever does it and however often."""

from __future__ import annotations

import errno
import json
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surveyproc.errors import ResourceError, SurveyprocError
from surveyproc.hashing import HashingFile
from surveyproc.identifiers import id_sum
from surveyproc.runs.ledger import STORE_THREADS, Commit, Ledger, Part
from surveyproc.storage import Storage


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Storage(tmp_path / "out.run"))


def table(ids, **columns) -> pa.Table:
    return pa.table({"object_id": pa.array(ids, pa.int64()), **columns})


def attempt_with(ledger: Ledger, unit: str, ids=(1, 2, 3), rejects=(4,)):
    attempt = ledger.begin(unit)
    attempt.write_table("morphology", table(list(ids)), 100)
    attempt.write_table("rejects", table(list(rejects)), 100)
    return attempt


def test_a_commit_is_read_back_as_it_was_written(ledger):
    attempt = attempt_with(ledger, "shard-1")
    commit = attempt.commit(3, 1, {"id_sum": "12345678901234567890"})
    assert ledger.commit_of("shard-1") == commit
    assert commit.attempt == attempt.id
    assert commit.parts["morphology"].rows == 3
    assert ledger.committed("shard-") == {"shard-1"}
    assert ledger.committed("merge-") == set()
    assert ledger.commit_of("shard-2") is None


def test_many_commits_are_read_in_the_order_asked_for_and_few_ahead(ledger, monkeypatch):
    for number in range(100):
        attempt_with(ledger, f"shard-{number}", ids=(number,)).commit(1, 1)
    real, read = Ledger.commit_of, []
    monkeypatch.setattr(Ledger, "commit_of", lambda self, unit: (read.append(unit), real(self, unit))[1])
    units = [f"shard-{number}" for number in (*reversed(range(100)), 1000)]
    found = ledger.commits_of(unit for unit in units)
    assert next(found) == real(ledger, "shard-99")
    assert len(read) <= 2 * STORE_THREADS
    rest = list(found)
    assert [commit.unit for commit in rest[:-1]] == units[1:-1]
    assert rest[-1] is None


def test_a_loser_takes_the_winners_commit_and_deletes_only_its_own_parts(ledger):
    one, other = attempt_with(ledger, "shard-1"), attempt_with(ledger, "shard-1")
    bystander = attempt_with(ledger, "shard-2")
    won = one.commit(3, 1)
    lost = other.commit(3, 1)
    assert lost == won
    storage = ledger.storage
    assert not storage.walk(other.folder)
    assert len(storage.walk(one.folder)) == len(storage.walk(bystander.folder)) == 3


def test_a_commit_whose_answer_was_lost_has_won_all_the_same(ledger, monkeypatch):
    """The store created the record but the client was told that it exists."""
    attempt = attempt_with(ledger, "shard-1")
    real = Storage.create
    monkeypatch.setattr(Storage, "create", lambda *args: real(*args) and False)
    assert attempt.commit(3, 1).attempt == attempt.id
    assert len(ledger.storage.walk(attempt.folder)) == 3


def test_a_create_that_did_nothing_is_tried_again(ledger, monkeypatch):
    attempt = attempt_with(ledger, "shard-1")
    real, tries = Storage.create, []

    def create(*args):
        tries.append(args)
        return real(*args) if len(tries) == 3 else False

    monkeypatch.setattr(Storage, "create", create)
    assert attempt.commit(3, 1).attempt == attempt.id
    assert len(tries) == 3


def test_of_many_attempts_at_once_one_is_committed_and_only_its_parts_stay(ledger):
    start, commits = threading.Barrier(6), []

    def work():
        attempt = attempt_with(ledger, "shard-1")
        start.wait()
        commits.append(attempt.commit(3, 1).attempt)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(commits)) == 1
    assert len(commits) == 6
    assert {name.split("/")[1] for name in ledger.storage.walk("_attempts")} == {f"shard-1-{commits[0]}"}


@pytest.mark.parametrize(
    ("ids", "rejects"),
    [((1, 2), (4,)), ((1, 2, 3, 4), (4,)), ((1, 2, 5), (4,)), ((1, 2, 3), (3,)), ((1, 2, 2), (4,))],
    ids=["row lost", "row twice", "another id", "id in both", "id doubled"],
)
def test_rows_that_do_not_add_up_are_never_committed(ledger, ids, rejects):
    attempt = attempt_with(ledger, "shard-1", ids, rejects)
    with pytest.raises(SurveyprocError, match=r"rows \+ .* rejects of 4 rows"):
        attempt.check(4, id_sum(pa.array([1, 2, 3, 4])), ["morphology"])
    assert ledger.commit_of("shard-1") is None


def test_rows_that_add_up_pass_the_check(ledger):
    attempt_with(ledger, "shard-1").check(4, id_sum(pa.array([4, 3, 2, 1])), ["morphology"])


def test_a_full_disk_in_any_write_of_a_part_is_explained(ledger, monkeypatch):
    rng = np.random.default_rng(0)
    rows = table(list(range(50_000)), noise=pa.array(rng.random(50_000)))
    attempt = ledger.begin("shard-1")
    attempt.write_table("morphology", rows, 1000)
    real, writes = HashingFile.write, []
    monkeypatch.setattr(HashingFile, "write", lambda self, data: (writes.append(1), real(self, data))[1])
    attempt.write_table("morphology", rows, 1000)
    total = len(writes)
    for failing in {1, 2, total // 2, total}:
        count = []

        def write(self, data, failing=failing, count=count):
            count.append(1)
            if len(count) == failing:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(self, data)

        monkeypatch.setattr(HashingFile, "write", write)
        with pytest.raises(ResourceError, match="no space left") as caught:
            attempt.write_table("morphology", rows, 1000)
        assert caught.value.where.endswith("morphology.parquet")


def test_a_part_knows_its_rows_digest_and_ids_however_it_is_written(ledger):
    attempt = ledger.begin("merge-1")
    schema = table([1]).schema
    with attempt.part_writer("t", schema, 4) as writer:
        for first in range(0, 10, 3):
            writer.write(table(list(range(first, min(first + 3, 10)))))
    part = attempt.commit(10, 0).parts["t"]
    with ledger.storage.open(part.path) as file:
        stored = pq.ParquetFile(file)
        assert stored.metadata.num_rows == part.rows == 10
        assert max(stored.metadata.row_group(g).num_rows for g in range(stored.num_row_groups)) <= 4
    assert part.id_sum == id_sum(pa.array(range(10)))
    assert part.bytes == ledger.storage.size(part.path)


def test_an_attempt_leaves_a_marker_that_tells_of_it(ledger):
    attempt = ledger.begin("shard-7")
    marker = json.loads(ledger.storage.read(f"{attempt.folder}/attempt.json"))
    assert marker["unit"] == "shard-7"
    assert {"host", "pid", "started"} <= marker.keys()


def test_tidying_spares_attempts_at_units_without_a_commit(ledger):
    committed, lost, open_one = (attempt_with(ledger, unit) for unit in ("shard-1", "shard-1", "shard-10"))
    committed.commit(3, 1)
    ledger.tidy()
    assert ledger.storage.names("_attempts") == [open_one.folder.split("/")[1]]
    assert lost.id != open_one.id
    open_one.commit(3, 1)
    ledger.tidy()
    assert not ledger.storage.exists("_attempts")


@given(
    st.text(),
    st.dictionaries(st.text(), st.integers(0, 2**64 - 1), max_size=3),
    st.integers(0, 2**63),
    st.floats(0, 1e9),
)
def test_commits_survive_json(unit, parts, rows, seconds):
    found = {name: Part(name, rows, rows, "ab", value) for name, value in parts.items()}
    commit = Commit(unit, "id", rows, 0, found, seconds, "code", "host", {"id_sum": str(rows)})
    assert Commit.from_bytes(commit.to_bytes()) == commit
