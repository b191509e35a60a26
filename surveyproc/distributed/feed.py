"""How many shards an actor takes at a time: many while much is left, single ones at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

U = TypeVar("U")
GROUPS_PER_LANE = 4
MOST_SHARDS = 64


def groups(shards: Sequence[U], lanes: int) -> Iterator[Sequence[U]]:
    """Cut shards into groups that are handed out whole, in order.

    A group is what is left divided by four for each lane, so that the work ends everywhere at about the
    same time; a few thousand groups carry a hundred thousand shards.

    Parameters
    ----------
    shards : sequence
    lanes : int
        Shards that are worked on at once.

    Notes
    -----
    Guided self-scheduling, Polychronopoulos & Kuck 1987, IEEE Transactions on Computers C-36, 1425.
    """
    first = 0
    while first < len(shards):
        size = (len(shards) - first) // (GROUPS_PER_LANE * lanes)
        size = max(1, min(size, MOST_SHARDS))
        yield shards[first : first + size]
        first += size


def waves(shards: Sequence[U], most: int) -> Iterator[Sequence[U]]:
    """Cut shards into runs of at most ``most``."""
    return (shards[first : first + most] for first in range(0, len(shards), most))
