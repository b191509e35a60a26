"""`verify` of whole, unfinished and just finished runs; `test_damages.py` has what it must find."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damages import edit, failed, flip
from drive import run_here
from toys import toy_catalog

from surveyproc.errors import PartialError
from surveyproc.identifiers import id_sum
from surveyproc.runs import files, ledger, open_run
from surveyproc.runs.ledger import Part
from surveyproc.runs.verify import verify_run
from surveyproc.storage import Storage


def details(run: Path) -> dict[str, str]:
    return {c.name: c.detail for c in verify_run(open_run(str(run)))}


@pytest.fixture(scope="module")
def stopped(survey, tmp_path_factory) -> Path:
    """A run that ended after four of its six shards."""
    run = tmp_path_factory.mktemp("stopped") / "out.run"
    stop(survey, run, "shard-", 4)
    return run


@pytest.fixture
def unfinished(stopped, tmp_path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "out.run"))


def stop(survey, run: Path, prefix: str, commits: int) -> None:
    """Run until so many units whose names start with ``prefix`` are committed."""
    real, left = ledger.Attempt.commit, [commits]

    def commit(self, *args, **kwargs):
        if self.unit.startswith(prefix):
            left[0] -= 1
            if left[0] < 0:
                raise PartialError("stopped by the test")
        return real(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger.Attempt, "commit", commit)
        with pytest.raises(PartialError, match="stopped by the test"):
            run_here(survey[0], run, survey[1])


def test_a_whole_run_passes_every_check(whole):
    checks = list(verify_run(open_run(str(whole))))
    assert all(c.passed for c in checks), checks
    assert all(c.detail for c in checks)
    names = [c.name for c in checks]
    assert len(names) == len(set(names))
    expected = {"plan", "commits", "manifest", "manifest: contents", "index: accounts", "no leftovers"}
    expected |= {f"morphology: {kind}" for kind in (*files_kinds(), "pixel", "schema", "hats", "accounts")}
    expected |= {f"index ids: {kind}" for kind in files_kinds()} | {"no other files", "rejects: ids"}
    assert expected <= set(names)


def files_kinds() -> tuple[str, ...]:
    return "present", "digest", "rows", "ids"


def test_a_run_that_was_renamed_passes_too(run):
    assert failed(run.rename(run.parent / "other.run")) == set()


def test_a_flat_run_without_index_passes_too(survey, tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=30, ids=[f"J{i}" for i in range(30)])
    run_here(catalog, tmp_path / "out.run", survey[1], "output.index=false")
    assert failed(tmp_path / "out.run") == set()
    assert details(tmp_path / "out.run")["index"] == "the run has none"
    edit(tmp_path / "out.run" / "run.json", lambda r: r["config"]["output"].update(index=True))
    assert failed(tmp_path / "out.run") == {"index"}


def test_an_unfinished_run_is_told_with_the_command_that_resumes_it(unfinished):
    edit(unfinished / "run.json", lambda r: r.update(command=["/bin/surveyproc", "run", "--input", "a b"]))
    assert failed(unfinished) == {"manifest"}
    says = details(unfinished)
    assert "4 of 6 shards are committed" in says["manifest"]
    assert says["manifest"].endswith("resume with: surveyproc run --input 'a b'")
    assert says["commits"] == "4 of 6 shards are committed"


def test_an_unfinished_run_may_have_attempts_and_temporary_files(unfinished):
    (unfinished / "_attempts" / "shard-0000005-00").mkdir()
    (unfinished / "_attempts" / "shard-0000005-00" / "rejects.parquet").write_bytes(b"half")
    (unfinished / "_commits" / ".shard-0000005.json.0123456789ab").write_bytes(b"half")
    assert failed(unfinished) == {"manifest"}
    (unfinished / "_attempts.txt").write_text("")
    assert failed(unfinished) == {"manifest", "no other files"}


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda path: path.unlink(), "parts: present"),
        (lambda path: os.truncate(path, 100), "parts: present"),
        (flip, "parts: digest"),
    ],
    ids=["missing", "truncated", "flipped"],
)
def test_damage_to_a_part_of_a_commit_is_found_and_the_advice_mends_it(
    survey, unfinished, whole, damage, line
):
    attempt = open_run(str(unfinished)).commits()[1]
    damage(unfinished / attempt.parts["embeddings"].path)
    assert failed(unfinished) == {line, "manifest"}
    assert "delete its file in _commits/" in details(unfinished)[line]
    (unfinished / "_commits" / f"{attempt.unit}.json").unlink()
    run_here(survey[0], unfinished, survey[1])
    assert failed(unfinished) == set()
    assert open_run(str(unfinished)).table("embeddings").equals(open_run(str(whole)).table("embeddings"))


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (lambda c: c["parts"]["morphology"].update(rows=9), {"parts: rows", "parts: accounts"}),
        (lambda c: c["parts"]["morphology"].update(id_sum=9), {"parts: ids", "parts: accounts"}),
        (lambda c: c["facts"].update(id_sum="9"), {"parts: accounts"}),
        (lambda c: c.update(rows=c["rows"] + 1), {"commits", "parts: accounts"}),
        (lambda c: c.update(unit="shard-0000000"), {"commits"}),
        (lambda c: c.pop("parts"), {"commits"}),
    ],
    ids=["rows", "ids", "ids in", "rows in", "unit", "no parts"],
)
def test_a_changed_commit_of_an_unfinished_run_is_found(unfinished, change, lines):
    edit(unfinished / "_commits" / "shard-0000001.json", change)
    assert failed(unfinished) == lines | {"manifest"}


def test_a_run_stopped_in_finalise_is_checked_with_what_it_has_merged(survey, tmp_path):
    stop(survey, tmp_path / "out.run", "merge-", 3)
    says = details(tmp_path / "out.run")
    assert failed(tmp_path / "out.run") == {"manifest"}
    assert "all 6 shards are committed, but not all files of its tables" in says["manifest"]
    commit = next((tmp_path / "out.run" / "_commits").glob("merge-*.json"))
    folder = next((tmp_path / "out.run" / "_attempts").glob(f"{commit.stem}-*"))
    flip(next(folder.glob("*.parquet")))
    assert failed(tmp_path / "out.run") == {"manifest", "parts: digest"}


def test_a_run_that_lacks_only_its_manifest_is_told_of_repair(run):
    shutil.rmtree(run / "_manifests")
    assert failed(run) == {"manifest"}
    assert f"surveyproc repair {run}" in details(run)["manifest"]
    flip(next((run / "morphology").rglob("*.parquet")))
    assert failed(run) == {"manifest", "morphology: digest", "morphology: accounts"}


def test_a_run_that_was_claimed_but_not_planned_is_unfinished(unfinished):
    for name in ("_plan.parquet", "_attempts", "_commits"):
        path = unfinished / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert failed(unfinished) == {"plan", "manifest"}


def test_a_run_that_finishes_meanwhile_is_checked_as_a_finished_one(survey, unfinished):
    """Its parts are deleted then: what was seen missing is no damage."""
    opened = open_run(str(unfinished))
    run_here(survey[0], unfinished, survey[1])
    assert opened.manifest is None
    checks = list(verify_run(opened))
    assert all(c.passed for c in checks), checks
    assert "manifest: contents" in {c.name for c in checks}


def test_a_large_file_is_read_in_pieces(tmp_path, monkeypatch):
    """50 MB of embeddings are checked with a few megabytes of Arrow memory and no list of ids."""
    rng = np.random.default_rng(0)
    rows = 200_000
    vectors = pa.array(rng.integers(0, 2**16, rows * 128, dtype=np.uint16).view(np.float16))
    ids = pa.array(np.arange(rows))
    table = pa.table({"object_id": ids, "embedding": pa.FixedSizeListArray.from_arrays(vectors, 128)})
    pq.write_table(table, tmp_path / "large.parquet", compression="none", use_dictionary=False)
    size = (tmp_path / "large.parquet").stat().st_size
    assert size > 45e6
    expected = id_sum(ids)
    del table, vectors, ids
    before, peaks = pa.total_allocated_bytes(), []

    def watched(column):
        peaks.append(pa.total_allocated_bytes() - before)
        return id_sum(column)

    monkeypatch.setattr(files, "id_sum", watched)
    storage = Storage(tmp_path)
    part = Part("large.parquet", rows, size, digest(tmp_path / "large.parquet"), expected)
    found = files.inspect(storage, files.Stated("large.parquet", part))
    assert not found.problems
    assert found.count == (rows, expected)
    assert len(peaks) >= 4
    assert max(peaks) < 8e6


def digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
