"""SIGKILL at every step of a repack: the same command ends in the bytes of an undisturbed one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import killing
import numpy as np
import pyarrow as pa
import pytest
from drive import forked, lasting_digests
from test_kill_every_step import steps_in_the_code

sys.path.append(str(Path(__file__).resolve().parent.parent / "catalog"))
from foreign import display_pixels, nested, write

SETTINGS = ["cluster=none", "cluster.actors=2", "repack.unit_mb=0.004", "repack.partition_mb=0.01"]
ON_SKY = [
    ("repack.planned", "", 1),
    ("repack.written", "shard-", 3),
    ("commit.done", "shard-", 2),
    ("commit.done", "merge-", 1),
    ("ingest.published", "", 1),
    ("making.described", "", 1),
]
MORE = [
    ("making.marked", "", 1),
    ("create.linked", "_repeated.parquet", 1),
    ("create.linked", "_partitions.parquet", 1),
    ("create.temporary", "_plan.parquet", 1),
    ("create.linked", "_plan.parquet", 1),
    ("attempt.begun", "shard-", 1),
    ("attempt.part", "shard-", 4),
    ("commit.ready", "shard-", 3),
    ("create.linked", "_commits/shard-", 2),
    ("attempt.part", "merge-", 1),
    ("ingest.merged", "", 1),
    ("commit.done", "merge-rejects", 1),
    ("ingest.metadata", "", 1),
    ("making.done", "", 1),
]
FLAT = [("repack.published", "dataset/part-", 2)]

pytestmark = pytest.mark.chaos


def words_of(folder, name: str, output) -> list[str]:
    return ["repack", str(folder / name), "--output", str(output), *SETTINGS]


def files_of(catalog) -> dict[str, object]:
    """Every file of a catalog, byte for byte but for what tells of the command and its time."""
    found: dict[str, object] = {
        str(p.relative_to(catalog)): p.read_bytes() for p in catalog.rglob("*") if p.is_file()
    }
    found["checksums.sha256"] = lasting_digests(found.pop("checksums.sha256"))
    about = json.loads(found.pop("catalog.json"))
    found["catalog.json"] = {k: v for k, v in about.items() if k not in ("command", "created")}
    lines = found.pop("hats.properties", b"").decode().splitlines()
    found["hats.properties"] = [line for line in lines if not line.startswith("hats_creation_date")]
    return found


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Cutouts as lists over the whole sky and without positions, a bad one, two of one id; what is made of them."""
    folder = tmp_path_factory.mktemp("lists")
    rng = np.random.default_rng(2)
    pixels = display_pixels(80)
    pixels[12] = 9
    ids = list(range(80))
    ids[70] = 3
    away = np.arange(80) < 10  # the rows of one unit, in pixels that no other unit feeds
    where = {"ra": rng.uniform(0, 90, 80), "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, 80)))}
    where = {
        name: np.where(away, values * 0.01 + first, values)
        for (name, values), first in zip(where.items(), (250, -60))
    }
    columns = {"object_id": pa.array(ids)}
    sky = columns | {name: pa.array(values) for name, values in where.items()}
    write(folder / "sky.parquet", nested(pixels, pa.uint8()), group_rows=10, **sky)
    write(folder / "flat.parquet", nested(pixels, pa.uint8()), group_rows=10, **columns)
    made = {}
    for name in ("sky.parquet", "flat.parquet"):
        output = folder / f"made-{name}" / "made.cat"
        done = forked(words_of(folder, name, output), folder / f"log-{name}")
        assert done.returncode == 0, done.stderr
        made[name] = files_of(output)
    return folder, made


def test_every_step_of_a_repack_has_its_kill():
    own = {step for step in steps_in_the_code() if step.startswith("repack.")}
    assert own == {step for step, _, _ in [*ON_SKY, *FLAT] if step.startswith("repack.")}


def test_the_undisturbed_repack_has_all_kinds_of_work(survey):
    _, made = survey
    for files in made.values():
        about = files["catalog.json"]
        assert about["rows_in"] == 80 == about["rows_out"] + 2
        assert about["rejects"] == {"constant_pixels": 1, "duplicate_id": 1}
        assert about["files"] > 3
        assert not [name for name in files if name.startswith("_")]


@pytest.mark.parametrize(
    ("name", "step", "subject", "hit"),
    [
        *(("sky.parquet", *kill) for kill in ON_SKY),
        *(("flat.parquet", *kill) for kill in FLAT),
        *(pytest.param("sky.parquet", *kill, marks=pytest.mark.slow) for kill in MORE),
    ],
    ids=[f"{s}@{u or 'repack'}#{n}" for s, u, n in [*ON_SKY, *FLAT, *MORE]],
)
def test_a_repack_killed_at_a_step_resumes_to_the_same_bytes(survey, tmp_path, name, step, subject, hit):
    folder, made = survey
    words = words_of(folder, name, tmp_path / "made.cat")
    env = killing.prepare(tmp_path / "kills", [{"step": step, "subject": subject, "hit": hit}])

    died = forked(words, tmp_path / "first", env)
    print(died.stderr, killing.killed(tmp_path / "kills"))
    assert died.returncode == -9, "the kill did not hit"
    resumed = forked(words, tmp_path / "second", env)
    print(resumed.stderr)
    assert resumed.returncode == 0

    assert files_of(tmp_path / "made.cat") == made[name]
