"""What a survey costs in memory and operations: bounded, or growing as the input does and no faster."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from drive import environment
from hypothesis import given, settings
from hypothesis import strategies as st

from surveyproc.catalog.sky import parent_pixel
from surveyproc.errors import InputError, PartialError
from surveyproc.identifiers import ROW, id_sum
from surveyproc.runs import duplicates, merge
from surveyproc.runs.ledger import COMMITS, Ledger
from surveyproc.runs.merge import merge_unit, merge_units, survey_parts
from surveyproc.runs.plan import Plan, Shard, load_plan, store_plan
from surveyproc.runs.skymap import ORDER, SkyMap
from surveyproc.runs.winners import read_winners
from surveyproc.storage import Storage

BILLION_BYTES = 256 * 2**20
ROWS = 30


@pytest.mark.slow
def test_a_billion_rows_in_100_000_files_are_planned_in_256_mb(tmp_path):
    words = [sys.executable, str(Path(__file__).with_name("billion.py")), "100000", str(tmp_path / "out.run")]
    child = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=240)
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout)
    assert (found["files"], found["rows"]) == (100_000, 10**9)
    assert found["shards"] == 2 * found["left"] == 200_000
    assert found["peak_bytes"] < BILLION_BYTES
    assert found["plan_bytes"] < 40 * found["shards"]


@pytest.fixture
def operations(monkeypatch) -> Counter:
    """Count what is asked of the storage, and the names and bytes it gives."""
    counted: Counter = Counter()
    real = {name: getattr(Storage, name) for name in ("open", "read", "names")}

    def opening(self, name):
        counted["opened"] += 1
        return real["open"](self, name)

    def reading(self, name):
        counted["read"] += 1
        return real["read"](self, name)

    def naming(self, folder=""):
        found = real["names"](self, folder)
        counted["listings"] += 1
        counted["names"] += len(found)
        return found

    for name, double in (("open", opening), ("read", reading), ("names", naming)):
        monkeypatch.setattr(Storage, name, double)
    return counted


def committed_run(folder: Path, shards: int, in_sky_order: bool = True) -> Storage:
    """A run of which every shard is committed, along the sky or all over it; its last id is a duplicate."""
    storage = Storage(folder)
    ledger = Ledger(storage)
    rng = np.random.default_rng(0)
    store_plan(storage, (Shard(n, f"{n}.parquet", 1, "v", 0, 1, ROWS, n * ROWS) for n in range(shards)))
    width = 4**29 // 64
    for number in range(shards):
        ids = np.arange(number * ROWS, (number + 1) * ROWS, dtype=np.int64)
        ids[-1] = 0 if number + 1 == shards else ids[-1]
        low = number * width if in_sky_order else 0
        high = low + width if in_sky_order else shards * width
        pixels = np.sort(rng.integers(low, high, ROWS))
        keys = {ROW: pa.array(np.arange(ROWS, dtype=np.int32)), "object_id": pa.array(ids)}
        table = pa.table(
            keys
            | {"_healpix_29": pa.array(pixels), "x": pa.array(rng.random(ROWS))}
            | {"quality": pa.array(np.zeros(ROWS, np.int32))}
        )
        why = {name: pa.array([], pa.string()) for name in ("stage", "reason", "detail")}
        why |= {"quality": pa.array([], pa.int32())}
        rejects = pa.table({n: c.slice(0, 0) for n, c in keys.items()} | why)
        attempt = ledger.begin(f"shard-{number:07d}")
        attempt.write_table("things", table, 4096)
        attempt.write_table("rejects", rejects, 4096)
        attempt.commit(ROWS, 0, {"id_sum": str(id_sum(table["object_id"]))})
    return storage


def finalise_parts(storage: Storage) -> list:
    """What finalise does with shards: read the commits, survey, merge every unit."""
    ledger = Ledger(storage)
    winners = read_winners(ledger, load_plan(storage))
    survey = survey_parts(storage, winners, "things", positions=True)
    units = merge_units(winners, winners.tables, survey)
    return [(u, merge_unit(storage, ledger, winners, u, survey, "things")) for u in units]


def table_bytes_of_five_shards(storage: Storage) -> int:
    winners = read_winners(Ledger(storage), load_plan(storage))
    return 5 * int(winners.bytes["things"][0])


def test_ledger_listing_and_finalise_grow_as_the_shards_do(tmp_path, monkeypatch, operations):
    found = {}
    for shards in (32, 64, 128):
        storage = committed_run(tmp_path / f"{shards}.run", shards)
        monkeypatch.setattr(merge, "TABLE_BYTES", table_bytes_of_five_shards(storage))
        operations.clear()
        plan = load_plan(storage)
        done, left = plan.split(Ledger(storage).committed("shard-"))
        assert (len(done), len(left)) == (shards, 0)
        assert operations["listings"] == 1
        merged = finalise_parts(storage)
        Ledger(storage).tidy()
        things = [commit.rows for unit, commit in merged if unit.table == "things"]
        assert len(things) >= shards // 8, "as many files as the input is large"
        assert sum(things) == shards * ROWS - 1
        assert sum(c.rows for u, c in merged if u.table == "rejects") == 1
        found[shards] = dict(operations)
    assert found[64]["opened"] < 5 * 64, "each part is opened for its keys and by the pixels that it reaches"
    for small, large in ((32, 64), (64, 128)):
        for what, count in found[large].items():
            assert count <= 2.1 * found[small][what] + 8, f"{what}: {found}"


def test_in_no_sky_order_every_pixel_reaches_every_shard(tmp_path, monkeypatch, operations):
    """The known exception: such input should be sorted first."""
    storage = committed_run(tmp_path / "out.run", 32, in_sky_order=False)
    monkeypatch.setattr(merge, "TABLE_BYTES", table_bytes_of_five_shards(storage))
    operations.clear()
    pixels = [unit for unit, _ in finalise_parts(storage) if unit.pixel]
    assert operations["opened"] > len(pixels) * 32 * 0.8


def test_the_duplicate_check_holds_no_list_of_ids(monkeypatch):
    monkeypatch.setattr(duplicates, "GATHER_ROWS", 20_000)
    shard_rows, peaks = 5_000, {}

    def columns(shards: int):
        for shard in range(shards):
            first = shard * shard_rows - (1 if shard == shards - 1 else 0)
            yield shard, np.arange(shard_rows), pa.array(np.arange(first, first + shard_rows))

    for shards in (40, 160):
        tracemalloc.start()
        drops = duplicates.find_duplicates(columns(shards), shards * shard_rows, rows_per_bucket=50_000)
        peaks[shards] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert {shard: rows.tolist() for shard, rows in drops.items()} == {shards - 1: [0]}
    assert peaks[160] < 1.1 * peaks[40]
    assert peaks[160] < 160 * shard_rows * 8


def test_more_buckets_than_files_may_be_open_are_not_made(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_BUCKETS", 4)
    ids = pa.array([*range(500), *range(100)])
    drops = duplicates.find_duplicates([(7, np.arange(600), ids)], 600, rows_per_bucket=1)
    assert drops[7].tolist() == list(range(500, 600))


positions = st.lists(st.lists(st.integers(0, 12 * 4**29 - 1), max_size=20), min_size=1, max_size=8)


@given(positions, st.integers(12, 200), st.integers(0, ORDER + 2), st.data())
@settings(deadline=None)
def test_a_sky_map_knows_the_shards_of_a_pixel_in_bounded_memory(shards, most, order, data):
    sky = SkyMap(most_entries=most)
    for pixels in shards:
        sky.add(np.array(pixels, dtype=np.int64))
    everything = np.concatenate([np.array(p, dtype=np.int64) for p in shards])
    expected = np.bincount(parent_pixel(everything, ORDER), minlength=12 * 4**ORDER)
    assert (sky.histogram == expected).all()
    assert sky.entries <= max(most, 12 * len(shards))
    pixel = data.draw(st.sampled_from(parent_pixel(everything, order).tolist() or [0]))
    inside = [n for n, p in enumerate(shards) if (parent_pixel(np.array(p, np.int64), order) == pixel).any()]
    found = sky.shards_in(order, pixel).tolist()
    assert set(inside) <= set(found)
    assert found == sorted(set(found))
    if most >= len(everything) and order <= ORDER:
        assert found == inside


def test_a_commit_that_names_other_files_than_its_own_is_refused(tmp_path):
    storage = committed_run(tmp_path / "out.run", 2)
    path = tmp_path / "out.run" / COMMITS / "shard-0000001.json"
    path.write_text(path.read_text().replace("/things.parquet", "/../../x.parquet"))
    with pytest.raises(InputError, match="not name the parts of its own attempt") as caught:
        read_winners(Ledger(storage), load_plan(storage))
    assert caught.value.where.endswith("shard-0000001.json")
    path.unlink()
    with pytest.raises(PartialError, match="1 of 2 shards"):
        read_winners(Ledger(storage), load_plan(storage))


def test_a_plan_in_columns_is_a_third_of_its_objects_at_most(tmp_path):
    shards = 20_000
    storage = Storage(tmp_path)
    store_plan(
        storage,
        (
            Shard(n, f"dataset/Npix={n // 4}.parquet", n, f"e{n // 4}", 0, 1, 10, 10 * n)
            for n in range(shards)
        ),
    )
    before = pa.total_allocated_bytes()
    plan: Plan = load_plan(storage)
    held = pa.total_allocated_bytes() - before
    tracemalloc.start()
    objects = list(plan)
    assert len(objects) == shards
    assert held < tracemalloc.get_traced_memory()[0] / 3
    tracemalloc.stop()
