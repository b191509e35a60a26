"""`repair` mends what follows from the commits, says what it cannot, and harms nobody."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from damages import MANIFEST, edit, failed, flip, leaves
from drive import assert_same_tables, assert_sound, run_here, tables_of

from surveyproc.errors import InputError, PartialError
from surveyproc.identifiers import id_sum
from surveyproc.runs import ledger, open_run
from surveyproc.runs.ledger import Ledger
from surveyproc.runs.repair import repair_run
from surveyproc.storage import Storage


def repair(run: Path, dry_run: bool = False) -> list[tuple[str, str]]:
    return [(m.action, m.subject) for m in repair_run(Storage(run), dry_run)]


def snapshot(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


class Stopped(Exception):
    """Raised by the test where a process would have died."""


def stop_at(monkeypatch, survey, run: Path, where: str, unit: str = "", left: int = 0) -> None:
    """Run until a method of the ledger is called for a unit for the time ``left`` + 1, and no further."""
    real, counter = getattr(Ledger if where == "tidy" else ledger.Attempt, where), [left]

    def method(self, *args, **kwargs):
        if getattr(self, "unit", "").startswith(unit):
            counter[0] -= 1
            if counter[0] < 0:
                raise Stopped
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger if where == "tidy" else ledger.Attempt, where, method)
        with pytest.raises(Stopped):
            run_here(survey[0], run, survey[1], "cluster.actors=1")


@pytest.fixture(scope="module")
def stopped(survey, tmp_path_factory) -> Path:
    """A run that died after four of its six shards."""
    run = tmp_path_factory.mktemp("stopped") / "out.run"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, survey, run, "commit", "shard-", 4)
    return run


@pytest.fixture
def unfinished(stopped, tmp_path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "unfinished" / "out.run"))


@pytest.fixture(scope="module")
def untidied(survey, tmp_path_factory) -> Path:
    """A run that died right after its manifest was created."""
    run = tmp_path_factory.mktemp("untidied") / "out.run"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, survey, run, "tidy")
    return run


@pytest.fixture
def finished(untidied, tmp_path) -> Path:
    return Path(shutil.copytree(untidied, tmp_path / "untidied" / "out.run"))


def test_a_whole_run_needs_no_repair(run):
    before = snapshot(run)
    assert repair(run) == []
    assert snapshot(run) == before


def test_a_missing_manifest_is_made_of_the_commits(run, whole):
    before = json.loads((run / MANIFEST).read_text())
    shutil.rmtree(run / "_manifests")
    assert repair(run) == [("write", MANIFEST)]
    assert_sound(run)
    assert_same_tables(tables_of(run), tables_of(whole))
    after = json.loads((run / MANIFEST).read_text())
    assert after.pop("timings") == {}
    assert before.pop("timings")
    assert {k: v for k, v in after.items() if k != "created"} == {
        k: v for k, v in before.items() if k != "created"
    }


def test_a_manifest_is_made_although_the_parts_are_still_there(finished, whole):
    shutil.rmtree(finished / "_manifests")
    deeds = repair(finished)
    assert deeds[0] == ("write", MANIFEST)
    assert {action for action, _ in deeds[1:]} == {"delete"}
    assert_sound(finished)
    assert_same_tables(tables_of(finished), tables_of(whole))


def test_hats_metadata_are_written_anew(run):
    (run / "morphology" / "partition_info.csv").unlink()
    flip(run / "embeddings" / "hats.properties")
    (run / "embeddings" / "dataset" / "_common_metadata").write_bytes(b"")
    assert repair(run) == [("write", "embeddings/"), ("write", "morphology/")]
    assert_sound(run)
    shutil.rmtree(run / "_manifests")
    (run / "morphology" / "hats.properties").unlink()
    repair(run)
    assert_sound(run)


def test_what_a_finished_run_needs_no_more_is_deleted(finished):
    (finished / "_manifests" / ".000001.json.0123456789ab").write_bytes(b"half")
    assert failed(finished) == {"no leftovers"}
    attempts = [f"_attempts/{p.name}" for p in (finished / "_attempts").iterdir()]
    assert len(attempts) > 10
    deeds = repair(finished)
    assert {("delete", name) for name in attempts} < set(deeds)
    assert ("delete", "_manifests/.000001.json.0123456789ab") in deeds
    assert_sound(finished)


@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: os.truncate(path, 9)])
@pytest.mark.parametrize("manifest", [True, False])
def test_a_damaged_file_is_published_again_while_its_part_is_there(finished, whole, damage, manifest):
    paths = [leaves(finished, "morphology")[0], next((finished / "index").glob("*.faiss"))]
    for path in paths:
        damage(path)  # of a copy of the run; in the run itself both names are hard links to one file
    if not manifest:
        shutil.rmtree(finished / "_manifests")
    deeds = repair(finished)
    assert {str(p.relative_to(finished)) for p in paths} == {s for a, s in deeds if a == "publish"}
    assert_sound(finished)
    assert_same_tables(tables_of(finished), tables_of(whole))


def test_a_damaged_file_without_its_part_is_told_and_nothing_is_deleted(run, finished):
    shutil.rmtree(run / "_manifests")
    flip(leaves(run, "morphology")[0])
    flip(leaves(finished, "morphology")[0])
    unit = leaves(finished, "morphology")[0].relative_to(finished)
    for commit in (finished / "_commits").glob("merge-morphology-*"):
        stated = json.loads(commit.read_text())
        if stated["facts"]["targets"] == [["morphology", str(unit)]]:
            flip(finished / stated["parts"]["morphology"]["path"])
    for damaged in (run, finished):
        before = snapshot(damaged)
        with pytest.raises(PartialError, match="no other copy is left") as caught:
            repair(damaged)
        assert leaves(damaged, "morphology")[0].name in caught.value.what
        assert snapshot(damaged) == before


@pytest.mark.parametrize("state", ["untidied", "no manifest", "damaged", "unfinished", "whole"])
def test_a_dry_run_says_the_same_and_changes_nothing(finished, unfinished_with_losers, run, state):
    folder = {"unfinished": unfinished_with_losers, "whole": run}.get(state, finished)
    if state == "no manifest":
        shutil.rmtree(finished / "_manifests")
    if state == "damaged":
        leaves(finished, "embeddings")[0].unlink()
        (finished / "morphology" / "hats.properties").unlink()
    before = snapshot(folder)
    said, done = [], []
    for mends, dry_run in ((said, True), (done, False)):
        try:
            for mend in repair_run(Storage(folder), dry_run):
                mends.append(mend)
        except PartialError as error:
            mends.append(error.what)
        if dry_run:
            assert snapshot(folder) == before
    assert said == done
    assert bool(said) == (state != "whole")


@pytest.fixture
def unfinished_with_losers(stopped, tmp_path) -> Path:
    run = Path(shutil.copytree(stopped, tmp_path / "losers.run"))
    for name in ("shard-0000001-00ff", "shard-0000005-00ff"):
        (run / "_attempts" / name).mkdir()
        (run / "_attempts" / name / "attempt.json").write_text("{}")
        (run / "_attempts" / name / "rejects.parquet").write_bytes(b"half")
        (run / "_attempts" / name / ".attempt.json.0123456789ab").write_bytes(b"half")
    return run


def test_of_an_unfinished_run_only_files_of_attempts_that_lost_are_deleted(unfinished_with_losers):
    """Not those of open attempts, whatever their age; not temporary files, whose writers may live."""
    run = unfinished_with_losers
    (run / "_commits" / ".shard-0000005.json.0123456789ab").write_bytes(b"half")
    for path in run.rglob("*"):
        os.utime(path, (1, 1))
    before = snapshot(run)
    with pytest.raises(PartialError):
        repair(run)
    gone = {f"_attempts/shard-0000001-00ff/{name}" for name in ("attempt.json", "rejects.parquet")}
    assert snapshot(run) == {name: data for name, data in before.items() if name not in gone}
    assert (run / "_attempts" / "shard-0000001-00ff").is_dir()


def test_an_unfinished_run_is_told_with_the_command_that_resumes_it(unfinished, survey):
    edit(unfinished / "run.json", lambda r: r.update(command=["x", "run", "--output", "out.run"]))
    before = snapshot(unfinished)
    with pytest.raises(PartialError, match="4 of 6 shards are committed") as caught:
        repair(unfinished)
    assert caught.value.exit_code == 4
    assert caught.value.fix == "resume it with: surveyproc run --output out.run"
    assert snapshot(unfinished) == before
    run_here(survey[0], unfinished, survey[1])
    assert_sound(unfinished)


@pytest.mark.parametrize(("unit", "left"), [("merge-", 0), ("merge-", 5), ("index-", 0), ("index-", 2)])
def test_a_run_that_died_in_finalise_is_unfinished(survey, tmp_path, monkeypatch, unit, left):
    stop_at(monkeypatch, survey, tmp_path / "out.run", "commit", unit, left)
    with pytest.raises(PartialError, match="but not all files of its tables"):
        repair(tmp_path / "out.run")
    assert not (tmp_path / "out.run" / "_manifests").exists()
    run_here(survey[0], tmp_path / "out.run", survey[1])
    assert_sound(tmp_path / "out.run")


def test_a_run_without_plan_is_unfinished(unfinished):
    (unfinished / "_plan.parquet").unlink()
    with pytest.raises(PartialError, match="no plan yet"):
        repair(unfinished)


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        repair(tmp_path)


def test_a_damaged_commit_is_told_and_the_advice_helps(unfinished, whole, survey):
    flip(unfinished / "_commits" / "shard-0000002.json", 0)
    with pytest.raises(PartialError, match=r"shard-0000002: a commit is damaged") as caught:
        repair(unfinished)
    assert "delete the files of these units in _commits/" in caught.value.fix
    (unfinished / "_commits" / "shard-0000002.json").unlink()
    with pytest.raises(PartialError, match="3 of 6 shards are committed"):
        repair(unfinished)
    run_here(survey[0], unfinished, survey[1])
    assert_sound(unfinished)
    assert_same_tables(tables_of(unfinished), tables_of(whole))


def test_lost_parts_are_told_and_the_advice_helps(unfinished, whole, survey):
    unit = open_run(str(unfinished)).commits()[1]
    shutil.rmtree(unfinished / unit.folder)
    with pytest.raises(PartialError, match=f"the parts of {unit.unit} are gone") as caught:
        repair(unfinished)
    assert "delete the files of these units in _commits/" in caught.value.fix
    (unfinished / "_commits" / f"{unit.unit}.json").unlink()
    run_here(survey[0], unfinished, survey[1])
    assert_sound(unfinished)
    assert_same_tables(tables_of(unfinished), tables_of(whole))


def test_a_run_that_lost_its_manifest_and_a_commit_is_done_anew(run, whole, survey):
    """Its parts were deleted when it was finished, so that nothing is left to make that file of."""
    shutil.rmtree(run / "_manifests")
    next((run / "_commits").glob("merge-morphology-*")).unlink()
    with pytest.raises(PartialError, match=r"the parts of shard-0000000 are gone") as caught:
        repair(run)
    assert "delete all files in _commits/" in caught.value.fix
    for path in (run / "_commits").iterdir():
        path.unlink()
    run_here(survey[0], run, survey[1])
    assert_sound(run)
    assert_same_tables(tables_of(run), tables_of(whole))


def test_a_living_attempt_whose_files_repair_deleted_finds_that_it_has_lost(unfinished):
    """Two drivers work on one shard; the other has committed, and repair comes before this one is done."""
    storage = Storage(unfinished)
    shards = Ledger(storage)
    rows = pa.table({"object_id": pa.array([1, 2])})
    one, other = shards.begin("shard-0000005"), shards.begin("shard-0000005")
    for attempt in (one, other):
        attempt.write_table("morphology", rows.slice(0, 1), 10)
        attempt.write_table("rejects", rows.slice(1), 10)
    winner = one.commit(1, 1, {"id_sum": str(id_sum(rows["object_id"]))})
    with pytest.raises(PartialError):
        repair(unfinished)
    assert storage.walk(one.folder)
    assert not storage.walk(other.folder)
    other.check(2, id_sum(rows["object_id"]), ["morphology"])
    assert other.commit(1, 1) == winner


def test_an_attempt_whose_files_vanish_before_anybody_has_committed_is_an_error(unfinished):
    attempt = Ledger(Storage(unfinished)).begin("shard-0000005")
    attempt.write_table("morphology", pa.table({"object_id": pa.array([1])}), 10)
    attempt.abandon()
    with pytest.raises(FileNotFoundError):
        attempt.check(1, 0, ["morphology"])


def test_the_python_function_is_the_verb(run):
    import surveyproc

    shutil.rmtree(run / "_manifests")
    assert [m.action for m in surveyproc.repair(run, dry_run=True)] == ["write"]
    assert [m.action for m in surveyproc.repair(run)] == ["write"]
    assert open_run(str(run)).manifest
