"""Shards are handed out whole, in order, many at a time while much is left."""

from __future__ import annotations

import json

import pytest
from drive import assert_same_tables, run_here, tables_of
from hypothesis import given
from hypothesis import strategies as st
from toys import toy_catalog

from surveyproc.distributed import feed, rays


@given(st.integers(0, 5000), st.integers(1, 200))
def test_groups_hand_out_every_shard_once_in_order_and_end_with_single_ones(shards, lanes):
    found = [list(group) for group in feed.groups(range(shards), lanes)]
    sizes = [len(group) for group in found]
    assert [n for group in found for n in group] == list(range(shards))
    assert sizes == sorted(sizes, reverse=True)
    assert all(0 < size <= feed.MOST_SHARDS for size in sizes)
    assert sizes[-lanes:] == [1] * min(lanes, shards)


@pytest.mark.parametrize("lanes", [2, 64, 256])
def test_a_hundred_thousand_shards_are_a_few_thousand_groups(lanes):
    tail = 6 * feed.GROUPS_PER_LANE * lanes
    assert len(list(feed.groups(range(100_000), lanes))) < 100_000 / feed.MOST_SHARDS + tail


def test_waves_cover_all():
    assert [list(wave) for wave in feed.waves(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_groups_and_waves_on_ray_give_the_tables_of_a_plain_run(ray_session, bundle, tmp_path, monkeypatch):
    catalog = toy_catalog(tmp_path / "in.cat", rows=24, group_rows=1)
    monkeypatch.setattr(feed, "GROUPS_PER_LANE", 1)
    one_row = "engine.shard_rows=1"
    run_here(catalog, tmp_path / "here.run", bundle, one_row)
    handed_out = []
    real = feed.groups

    def groups(shards, lanes):
        for group in real(shards, lanes):
            handed_out.append(len(group))
            yield group

    monkeypatch.setattr(rays, "groups", groups)
    monkeypatch.setattr(rays, "WAVE_SHARDS", 16)
    result = run_here(catalog, tmp_path / "there.run", bundle, one_row, "cluster=local", "cluster.actors=2")
    assert result.rows == 24
    assert max(handed_out) > 1
    assert sum(handed_out) == 24
    assert_same_tables(tables_of(tmp_path / "there.run"), tables_of(tmp_path / "here.run"))
    commits = [json.loads(p.read_text()) for p in (tmp_path / "there.run/_commits").glob("shard-*.json")]
    assert len({commit["unit"] for commit in commits}) == 24


def test_outcomes_arrive_one_by_one_although_shards_are_handed_out_in_groups(
    ray_session, bundle, tmp_path, monkeypatch
):
    catalog = toy_catalog(tmp_path / "in.cat", rows=12, group_rows=1)
    monkeypatch.setattr(feed, "GROUPS_PER_LANE", 1)
    told = []
    monkeypatch.setattr(
        "surveyproc.progress.Progress.advance", lambda self, rows, rejects=0: told.append((rows, rejects))
    )
    run_here(
        catalog, tmp_path / "out.run", bundle, "engine.shard_rows=1", "cluster=local", "cluster.actors=1"
    )
    assert told == [(1, 0)] * 12
