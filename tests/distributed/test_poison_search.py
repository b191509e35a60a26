"""The search for rows that kill a child, with an engine that only pretends to be one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surveyproc.distributed import quarantine
from surveyproc.distributed.parent import KILLED
from surveyproc.distributed.quarantine import Quarantine
from surveyproc.errors import PartialError, ResourceError
from surveyproc.inference.bisect import EngineBroken
from surveyproc.runs.plan import Shard

ROWS, BATCH = 50, 16
SHARD = Shard(3, "part-0.parquet", 1, "v", 0, 5, ROWS, 0)


class Children:
    """An engine that is lost when ``deadly(rows of the shard that are shown, number of the ask)``."""

    def __init__(self, deadly, reason=KILLED):
        self.deadly, self.reason = deadly, reason
        self.asks: list[set[int]] = []
        self.last = 0

    def ask(self, number, hidden, condemned):
        assert number >= self.last, "a child cannot go back"
        self.last = number
        start = number * BATCH
        if start >= ROWS:
            return None
        rows = set(range(min(BATCH, ROWS - start)))
        assert hidden <= rows
        shown = {start + row for row in rows - hidden - condemned.keys()}
        self.asks.append(shown)
        if self.deadly(shown, len(self.asks)):
            raise EngineBroken(self.reason, "its process was killed by SIGKILL")
        return number, {start + row: why for row, why in condemned.items()}


def condemned_by(children):
    done = list(Quarantine(children, SHARD, BATCH))
    assert [number for number, _ in done] == [0, 1, 2, 3]
    return {row: why for _, found in done for row, why in found.items()}


@settings(max_examples=30)
@given(st.sets(st.integers(0, ROWS - 1), max_size=6))
def test_exactly_the_rows_that_kill_are_condemned_each_seen_alone_twice(bad):
    children = Children(lambda shown, ask: shown & bad)
    found = condemned_by(children)
    assert found == dict.fromkeys(bad, ("killed_engine", "its process was killed by SIGKILL"))
    for row in bad:
        assert children.asks.count({row}) == 2
    if not bad:
        assert len(children.asks) == 4


@pytest.mark.parametrize("lost", [1, 3])
def test_a_child_that_is_lost_once_condemns_nothing(lost):
    assert condemned_by(Children(lambda shown, ask: ask == lost)) == {}


def test_every_loss_of_a_row_alone_is_followed_by_a_survived_batch_without_it():
    children = Children(lambda shown, ask: 20 in shown)
    condemned_by(children)
    assert children.asks.count({20}) == 2
    assert all(children.asks[at + 1] == set() for at, rows in enumerate(children.asks) if rows == {20})


def test_a_machine_that_kills_every_child_ends_in_an_error_at_once():
    children = Children(lambda shown, ask: True)
    with pytest.raises(ResourceError, match="every row of it hidden: its process was killed") as caught:
        condemned_by(children)
    assert len(children.asks) == 3
    assert "shard-0000003" in caught.value.where


def test_a_machine_that_recovers_and_fails_again_condemns_nothing():
    """Short of memory whenever something is shown, and once when nothing is."""
    with pytest.raises(ResourceError):
        condemned_by(Children(lambda shown, ask: shown or ask == 8))


def test_rows_that_kill_only_together_end_in_an_error():
    with pytest.raises(ResourceError, match="no row of it alone"):
        condemned_by(Children(lambda shown, ask: {3, 9} <= shown))


def test_a_model_that_always_raises_is_a_partial_run():
    with pytest.raises(PartialError, match="every row of it hidden"):
        condemned_by(Children(lambda shown, ask: True, reason="model_error"))


def test_the_number_of_lost_children_is_bounded(monkeypatch):
    monkeypatch.setattr(quarantine, "MOST_LOSSES", 20)
    children = Children(lambda shown, ask: shown)
    with pytest.raises(ResourceError, match="20 engines were lost on one shard"):
        condemned_by(children)
    assert sum(1 for shown in children.asks if shown) == 20
