"""The plan covers every row once, in whole row groups, never across files."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import SPEC

from surveyproc.catalog import Catalog, CatalogFile, RowGroup
from surveyproc.errors import InputError
from surveyproc.runs.plan import (
    MAX_SHARD_ROWS,
    MOST_NAMED,
    changed_files,
    cut_shards,
    input_digest,
    load_plan,
    shard_rows,
    store_plan,
)
from surveyproc.storage import Storage


def catalog_of(*files: list[int], version: str = "1") -> Catalog:
    """A catalog whose files have row groups of these sizes."""
    found = [
        CatalogFile(f"part-{n:05d}.parquet", 100 + n, version, sum(rows), tuple(RowGroup(r, r) for r in rows))
        for n, rows in enumerate(files)
    ]
    return Catalog("in.cat", pa.schema([("object_id", pa.int64())]), SPEC, tuple(found))


group_sizes = st.lists(st.lists(st.integers(0, 50), max_size=12), min_size=1, max_size=6)


@given(group_sizes, st.integers(1, 200))
def test_every_row_group_with_rows_is_in_exactly_one_shard(sizes, target):
    catalog = catalog_of(*sizes)
    shards = list(cut_shards(catalog, target))
    seen = [(s.file, group) for s in shards for group in range(s.group_start, s.group_stop)]
    assert len(seen) == len(set(seen))
    everything = {(f.path, n) for f in catalog.files for n, g in enumerate(f.row_groups) if g.rows}
    assert everything <= set(seen)
    by_name = {f.path: f for f in catalog.files}
    for shard in shards:
        groups = by_name[shard.file].row_groups[shard.group_start : shard.group_stop]
        assert shard.rows == sum(g.rows for g in groups) > 0
        assert (shard.size, shard.version) == (by_name[shard.file].size, by_name[shard.file].version)


@given(group_sizes, st.integers(1, 200))
def test_shards_are_numbered_and_count_rows_in_plan_order(sizes, target):
    shards = list(cut_shards(catalog_of(*sizes), target))
    assert [s.shard for s in shards] == list(range(len(shards)))
    assert [s.first_row for s in shards] == [sum(t.rows for t in shards[:n]) for n in range(len(shards))]
    assert sum(s.rows for s in shards) == sum(map(sum, sizes))


@given(group_sizes, st.integers(1, 200))
def test_a_shard_ends_with_the_group_that_reaches_the_target(sizes, target):
    catalog = catalog_of(*sizes)
    groups = {f.path: f.row_groups for f in catalog.files}
    for shard in cut_shards(catalog, target):
        last = groups[shard.file][shard.group_stop - 1].rows
        assert shard.rows - last < target
        assert shard.rows >= target or not any(g.rows for g in groups[shard.file][shard.group_stop :])


@given(group_sizes.filter(lambda sizes: sum(map(sum, sizes))), st.integers(1, 100))
def test_a_stored_plan_is_read_back_and_the_first_one_stays(sizes, target):
    storage = Storage("memory://plan-test")
    storage.delete_folder("")
    catalog = catalog_of(*sizes)
    shards = list(cut_shards(catalog, target))
    store_plan(storage, iter(shards))
    store_plan(storage, cut_shards(catalog, target + 7))
    plan = load_plan(storage)
    assert list(plan) == [plan[n] for n in range(len(plan))] == shards
    assert plan.rows == sum(s.rows for s in shards)
    assert plan[-1] == shards[-1]
    for cut in (slice(1, 3), slice(None, 2), slice(5, 2), slice(-2, None)):
        assert list(plan[cut]) == shards[cut]
    with pytest.raises(IndexError):
        plan[len(plan)]


@given(group_sizes.filter(lambda sizes: sum(map(sum, sizes))), st.sets(st.integers(0, 40)))
def test_a_plan_is_parted_by_what_is_committed(sizes, committed):
    storage = Storage("memory://plan-test")
    storage.delete_folder("")
    shards = list(cut_shards(catalog_of(*sizes), 10))
    store_plan(storage, shards)
    units = {f"shard-{n:07d}" for n in committed}
    done, left = load_plan(storage).split(units)
    assert list(done) == [s for s in shards if s.shard in committed]
    assert list(left) == [s for s in shards if s.shard not in committed]
    assert done.rows + left.rows == sum(s.rows for s in shards)


def test_a_folder_without_a_plan_is_told(tmp_path):
    with pytest.raises(InputError, match="no plan"):
        load_plan(Storage(tmp_path))


def test_a_shard_is_half_a_minute_of_work_but_every_actor_gets_several():
    large = catalog_of([10_000] * 500)
    assert shard_rows(large, ms_per_cutout=3.0, shard_seconds=30, actors=8) == 10_000
    small = catalog_of([10] * 100)
    assert shard_rows(small, ms_per_cutout=3.0, shard_seconds=30, actors=8) <= 1000 / (8 * 4) + 1
    assert shard_rows(large, ms_per_cutout=1e-6, shard_seconds=3e5, actors=1) == MAX_SHARD_ROWS
    assert shard_rows(large, ms_per_cutout=1e9, shard_seconds=30, actors=1) == 1


def test_changed_files_are_named_each_on_a_line():
    planned = list(cut_shards(catalog_of([5], [5], [5]), 5))
    now = catalog_of([5], [5])
    again = catalog_of([5], [5], [5], [5], version="2")
    assert changed_files(catalog_of([5], [5], [5]), planned) == []
    assert changed_files(now, planned) == ["part-00002.parquet is gone"]
    assert changed_files(again, planned) == [
        "part-00003.parquet is new",
        "part-00000.parquet was written again",
        "part-00001.parquet was written again",
        "part-00002.parquet was written again",
    ]


def test_of_many_changed_files_the_first_are_named_and_the_others_counted():
    planned = list(cut_shards(catalog_of(*[[5]] * 50), 5))
    lines = changed_files(catalog_of([5]), planned)
    assert len(lines) == MOST_NAMED + 1
    assert lines[-1] == f"and {49 - MOST_NAMED} more files"


def test_the_input_digest_moves_with_names_sizes_times_and_rows():
    digests = {
        input_digest(c)
        for c in (
            catalog_of([5], [5]),
            catalog_of([5], [5], version="2"),
            catalog_of([5], [6]),
            catalog_of([5]),
        )
    }
    assert len(digests) == 4
    assert input_digest(catalog_of([5], [5])) == input_digest(catalog_of([5], [5]))
