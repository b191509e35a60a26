"""Which galaxies are in which batch: a pure function of the seed and the images seen.

The examples are cut into lanes: contiguous ranges of equal length (within one). Every batch takes the same
number of examples from every lane, each lane in its own endless sequence of seeded permutations. A process of a
distributed training owns some lanes and needs no other pixels, yet the global batches are the same for any
number of processes, and a resumed training needs nothing but the count of images seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from surveyproc.errors import InputError, UsageError

MOST_LANES = 64
LEAST_ROWS = 16


@dataclass(frozen=True)
class Lanes:
    """How examples are cut into lanes.

    Attributes
    ----------
    rows, batch : int
        Examples in all, and examples of one global batch.
    count : int
        Lanes: a divisor of ``batch``, the largest up to `MOST_LANES` that leaves at least `LEAST_ROWS`
        examples for each.
    """

    rows: int
    batch: int

    def __post_init__(self) -> None:
        if self.rows < self.batch:
            raise InputError(
                f"there are {self.rows} training examples, fewer than one batch of {self.batch}",
                where="train.batch",
                fix=f"use train.batch={max(1, self.rows)} or less, or more labelled cutouts",
            )

    @property
    def count(self) -> int:
        """Number of lanes."""
        most = max(1, min(MOST_LANES, self.rows // LEAST_ROWS))
        return max(n for n in range(1, most + 1) if self.batch % n == 0)

    @property
    def share(self) -> int:
        """Examples that each lane gives to each batch."""
        return self.batch // self.count

    def start(self, lane: int) -> int:
        """First row of a lane; ``start(count)`` is the number of rows."""
        return lane * self.rows // self.count

    def owned(self, rank: int, processes: int) -> range:
        """Lanes of one process.

        Raises
        ------
        UsageError
            When there are more processes than lanes.
        """
        if processes > self.count:
            raise UsageError(
                f"{self.rows} examples in batches of {self.batch} can be split over {self.count} processes at "
                f"most, not {processes}",
                where="train.num_workers, train.batch",
                fix="use fewer workers, or a train.batch that is a multiple of 64",
            )
        return range(rank * self.count // processes, (rank + 1) * self.count // processes)


class Sampler:
    """Row numbers of one process's part of every global batch.

    Parameters
    ----------
    seed : int
    lanes : Lanes
    owned : range
        Lanes of this process.
    sizes : sequence of int, optional
        Rows that are really there in each owned lane, when some could not be read. Row numbers count the rows
        that are there, from the first owned lane on.
    """

    def __init__(self, seed: int, lanes: Lanes, owned: range, sizes: Sequence[int] | None = None) -> None:
        self.lanes, self.owned = lanes, owned
        self._seed = seed
        self._sizes = list(sizes or [lanes.start(k + 1) - lanes.start(k) for k in owned])
        self._firsts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._permutation = lru_cache(maxsize=2 * len(owned))(self._permute)

    @property
    def places(self) -> slice:
        """Which places of the global batch this process fills."""
        return slice(self.owned.start * self.lanes.share, self.owned.stop * self.lanes.share)

    def rows(self, images_seen: int) -> np.ndarray:
        """Row numbers for the batch that begins after ``images_seen`` images."""
        begin = images_seen // self.lanes.batch * self.lanes.share
        found = []
        for index, lane in enumerate(self.owned):
            epochs, places = np.divmod(np.arange(begin, begin + self.lanes.share), self._sizes[index])
            found += [
                self._firsts[index] + self._permutation(lane, self._sizes[index], int(e))[p]
                for e, p in zip(epochs, places)
            ]
        return np.array(found, dtype=np.int64)

    def _permute(self, lane: int, size: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, lane, epoch]).permutation(size)


def key(seed: int, images_seen: int, purpose: int) -> int:
    """Seed of a random generator for one purpose at one place of a training."""
    return int(np.random.SeedSequence([seed, images_seen, purpose]).generate_state(1, np.uint64)[0] >> 1)
