"""SIGKILL at every step of the commit and of finalise, in one process: the same command finishes the run.

The rows and values must equal those of an undisturbed run bit for bit.
"""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import killing
import numpy as np
import pytest
from drive import REPOSITORY, assert_same_tables, assert_sound, forked, run_words, tables_of
from toys import toy_bundle, toy_catalog, toy_pixels

SHARDS = 20
SETTINGS = ["engine.shard_rows=10", "cluster=none", "cluster.actors=2", "limits.max_reject_fraction=0.9"]

# (step, subject, hit): every step, at every kind of unit that reaches it.
KILLS = [
    ("create.temporary", "run.json", 1),
    ("create.linked", "run.json", 1),
    ("create.temporary", "_plan.parquet", 1),
    ("create.linked", "_plan.parquet", 1),
    ("attempt.begun", "shard-", 1),
    ("attempt.begun", "shard-", 12),
    ("attempt.predicted", "shard-", 3),
    ("attempt.part", "shard-", 1),
    ("attempt.part", "shard-", 31),
    ("attempt.checked", "shard-", 5),
    ("commit.ready", "shard-", 7),
    ("create.temporary", "_commits/shard-", 9),
    ("create.linked", "_commits/shard-", 11),
    ("commit.done", "shard-", 1),
    ("commit.done", "shard-", SHARDS),
    ("finalise.surveyed", "", 1),
    ("attempt.begun", "merge-", 2),
    ("attempt.part", "merge-", 3),
    ("commit.ready", "merge-", 1),
    ("create.temporary", "_commits/merge-", 4),
    ("create.linked", "_commits/merge-", 2),
    ("commit.done", "merge-", 5),
    ("merge.published", "merge-", 1),
    ("merge.published", "merge-rejects", 1),
    ("attempt.begun", "index-", 1),
    ("attempt.part", "index-", 1),
    ("create.linked", "_commits/index-", 1),
    ("commit.done", "index-", 1),
    ("index.published", "index-", 1),
    ("finalise.metadata", "", 1),
    ("create.temporary", "_manifests/", 1),
    ("create.linked", "_manifests/", 1),
    ("finalise.manifest", "", 1),
    ("finalise.done", "", 1),
]


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """A catalog across the border of three HEALPix pixels, with a duplicate and two unusable cutouts; its tables."""
    folder = tmp_path_factory.mktemp("survey")
    rng = np.random.default_rng(5)
    ids = list(range(-100, 100))
    ids[150] = ids[40]
    pixels = toy_pixels(200)
    pixels[[25, 26]] = 7
    positions = rng.uniform(41, 49, 200), rng.uniform(0, 4, 200)
    catalog = toy_catalog(folder / "in.cat", ids=ids, pixels=pixels, positions=positions)
    bundle = toy_bundle(folder / "toy")
    done = forked(run_words(catalog, folder / "undisturbed.run", bundle, *SETTINGS), folder / "log")
    assert done.returncode == 0, done.stderr
    assert_sound(folder / "undisturbed.run")
    return catalog, bundle, tables_of(folder / "undisturbed.run")


def steps_in_the_code() -> set[str]:
    """First arguments of all calls of `surveyproc.steps.step`."""
    found = set()
    for path in (REPOSITORY / "surveyproc").rglob("*.py"):
        text = path.read_text()
        if "from surveyproc.steps import step" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "step":
                assert isinstance(node.args[0], ast.Constant), f"{path}: a step needs a literal name"
                found.add(node.args[0].value)
    return found


def test_every_step_of_the_main_job_has_its_kill():
    others = ("ingest.", "repack.", "making.")  # test_ingest_kills
    assert {s for s, _, _ in KILLS} == {s for s in steps_in_the_code() if not s.startswith(others)}


def test_the_undisturbed_run_accounts_for_all_rows(survey):
    _, _, tables = survey
    assert tables["morphology"].num_rows == tables["embeddings"].num_rows == 197
    assert tables["rejects"]["reason"].to_pylist().count("duplicate_id") == 1
    assert tables["rejects"]["reason"].to_pylist().count("constant_pixels") == 2


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("step", "subject", "hit"), KILLS, ids=[f"{s}@{u or 'run'}#{n}" for s, u, n in KILLS]
)
def test_a_run_killed_at_a_step_resumes_to_the_same_tables(survey, tmp_path, step, subject, hit):
    catalog, bundle, expected = survey
    words = run_words(catalog, tmp_path / "out.run", bundle, *SETTINGS)
    env = killing.prepare(tmp_path / "kills", [{"step": step, "subject": subject, "hit": hit}])

    died = forked(words, tmp_path / "first", env)
    print(died.stderr, killing.killed(tmp_path / "kills"))
    assert died.returncode == -9, "the kill did not hit"
    assert [k["step"] for k in killing.killed(tmp_path / "kills")] == [step]
    resumed = forked(words, tmp_path / "second", env)
    print(resumed.stderr)
    assert resumed.returncode == 0

    assert_same_tables(tables_of(tmp_path / "out.run"), expected)
    assert_sound(tmp_path / "out.run")


@pytest.mark.chaos
def test_a_run_killed_again_and_again_resumes_to_the_same_tables(survey, tmp_path):
    catalog, bundle, expected = survey
    words = run_words(catalog, tmp_path / "out.run", bundle, *SETTINGS)
    order = [
        ("create.linked", "_commits/shard-", 2),
        ("commit.done", "shard-", 9),
        ("attempt.part", "merge-", 2),
    ]
    order += [("merge.published", "", 6), ("create.linked", "_manifests/", 1)]
    env = killing.prepare(
        tmp_path / "kills", [{"step": s, "subject": subject, "hit": hit} for s, subject, hit in order]
    )

    codes = [forked(words, tmp_path / f"{n}", env).returncode for n in range(len(order) + 1)]

    print(killing.killed(tmp_path / "kills"))
    assert codes == [-9] * len(order) + [0]
    assert_same_tables(tables_of(tmp_path / "out.run"), expected)
    assert_sound(tmp_path / "out.run")


@pytest.mark.chaos
def test_what_a_killed_run_committed_is_not_done_again(survey, tmp_path):
    catalog, bundle, _ = survey
    run = tmp_path / "out.run"
    words = run_words(catalog, run, bundle, *SETTINGS)
    env = killing.prepare(tmp_path / "kills", [{"step": "commit.done", "subject": "shard-", "hit": 8}])
    assert forked(words, tmp_path / "first", env).returncode == -9
    before = {p.name: p.read_bytes() for p in (run / "_commits").glob("shard-*.json")}
    assert len(before) >= 8

    assert forked(words, tmp_path / "second", env).returncode == 0

    after = {p.name: p.read_bytes() for p in (run / "_commits").glob("shard-*.json")}
    assert {name: after[name] for name in before} == before
    assert len(after) == SHARDS


def test_the_comparison_of_tables_sees_one_bit(survey):
    _, _, tables = survey
    column = tables["morphology"].column_names.index("difficulty")
    values = tables["morphology"]["difficulty"].to_numpy().copy()
    values.view(np.int32)[5] ^= 1
    changed = tables["morphology"].set_column(column, tables["morphology"].schema.field(column), [values])
    with pytest.raises(AssertionError):
        assert_same_tables(tables | {"morphology": changed}, tables)


def test_soundness_sees_an_orphan(survey, tmp_path):
    catalog, bundle, _ = survey
    words = run_words(catalog, tmp_path / "out.run", bundle, *SETTINGS)
    assert forked(words, tmp_path / "log").returncode == 0
    assert_sound(tmp_path / "out.run")
    orphan = tmp_path / "out.run" / "_attempts" / "shard-0000000-0" / "morphology.parquet"
    orphan.parent.mkdir(parents=True)
    shutil.copy(next(Path(catalog).rglob("*.parquet")), orphan)
    with pytest.raises(AssertionError):
        assert_sound(tmp_path / "out.run")
