"""Duplicates are found whatever the ids, the shards and the number of buckets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surveyproc.identifiers import hash_ids, id_sum
from surveyproc.runs.duplicates import find_duplicates

integers = st.one_of(
    st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1])
)
texts = st.one_of(st.sampled_from(["1", "01", " 1", "a", "A", ""]), st.text(max_size=4))


def naive(shards: list[list]) -> dict[int, list[int]]:
    seen: set = set()
    drops: dict[int, list[int]] = {}
    for shard, ids in enumerate(shards):
        for row, name in enumerate(ids):
            if name in seen:
                drops.setdefault(shard, []).append(row)
            seen.add(name)
    return drops


def found(shards: list[list], kind: pa.DataType, rows_per_bucket: int, shuffle: bool = False) -> dict:
    rng = np.random.default_rng(0)

    def columns():
        for shard, ids in enumerate(shards):
            order = rng.permutation(len(ids)) if shuffle else np.arange(len(ids))
            yield shard, order.astype(np.int32), pa.array([ids[i] for i in order], kind)

    result = find_duplicates(columns(), sum(map(len, shards)), rows_per_bucket)
    return {shard: rows.tolist() for shard, rows in result.items()}


@pytest.mark.parametrize("rows_per_bucket", [2, 7, 1000])
@pytest.mark.parametrize(
    ("ids", "kind"), [(integers, pa.int64()), (texts, pa.string())], ids=["int64", "string"]
)
def test_the_later_ones_in_plan_order_are_found_as_a_set_finds_them(ids, kind, rows_per_bucket):
    @given(st.lists(st.lists(ids, max_size=12), min_size=1, max_size=6))
    @settings(max_examples=40, deadline=None)
    def check(shards):
        assert found(shards, kind, rows_per_bucket) == naive(shards)

    check()


def test_the_first_in_plan_order_stays_even_when_the_part_is_sorted_otherwise():
    shards = [[5, 6, 5, 5], [7, 6], [5, 8]]
    assert found(shards, pa.int64(), 3, shuffle=True) == {0: [2, 3], 1: [1], 2: [0]}


def test_nothing_is_found_among_unique_ids():
    assert found([list(range(100)), list(range(100, 150))], pa.int64(), 10) == {}


@given(st.lists(integers, max_size=50), st.randoms())
def test_the_id_sum_does_not_depend_on_order_but_on_every_id(ids, random):
    shuffled = ids.copy()
    random.shuffle(shuffled)
    assert id_sum(pa.array(ids, pa.int64())) == id_sum(pa.array(shuffled, pa.int64()))
    assert id_sum(pa.array([*ids, 12345], pa.int64())) != id_sum(pa.array(ids, pa.int64()))


@given(st.sets(integers, max_size=200))
def test_integer_hashes_are_one_to_one(ids):
    assert len(set(hash_ids(pa.array(ids, pa.int64())).tolist())) == len(ids)


def test_hashes_are_the_published_ones():
    # splitmix64 from seed 0 (Vigna, prng.di.unimi.it): its first output is the mix of the first increment.
    assert hash_ids(pa.array([0], pa.int64()))[0] == 0xE220A8397B1DCDAF
    import hashlib

    digest = hashlib.blake2b("é1".encode(), digest_size=8).digest()
    assert hash_ids(pa.array(["é1"]))[0] == int.from_bytes(digest, "little")


@given(integers)
def test_an_integer_and_its_text_fall_into_one_split(value):
    from surveyproc.identifiers import split_of

    assert split_of(value) == split_of(str(value))
