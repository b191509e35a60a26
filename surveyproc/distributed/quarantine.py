"""A shard whose attempts vanish with their process is done in a child, and what kills the child is found.

This process lives on and is the witness: a row is condemned only when the child was lost twice with this row
alone, and each time a new child then survived the same batch with every row hidden. When this process dies
too (a lost node), nothing is condemned. A child that hangs is not noticed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from surveyproc.distributed.parent import KILLED
from surveyproc.distributed.task import Prediction
from surveyproc.errors import PartialError, ResourceError, SurveyprocError
from surveyproc.inference.bisect import MODEL_ERROR, OUT_OF_MEMORY, EngineBroken, Why, isolate
from surveyproc.runs.plan import Shard

MOST_LOSSES = 100
_FIXES = {
    MODEL_ERROR: "mend the bundle",
    OUT_OF_MEMORY: "use a machine with more memory, or fewer engines (cluster.actors)",
    KILLED: "find what ends the process on this machine (too little memory, a broken library)",
}


class ReplaceableEngine(Protocol):
    """What is asked of `surveyproc.distributed.parent.ChildEngine`."""

    def ask(self, number: int, hidden: frozenset[int], condemned: dict[int, Why]) -> Prediction | None:
        """Process one batch; None after the last; EngineBroken when the child was lost."""


class Quarantine:
    """Works through a shard in child processes.

    Parameters
    ----------
    engine : ReplaceableEngine
    shard : Shard
    batch_size : int
        Rows of every batch but the last.
    """

    def __init__(self, engine: ReplaceableEngine, shard: Shard, batch_size: int) -> None:
        self._engine, self._shard, self._batch_size = engine, shard, batch_size
        self._losses = 0

    def __iter__(self) -> Iterator[Prediction]:
        """Process the shard batch by batch.

        Raises
        ------
        PartialError, ResourceError
            When the engine fails and no row can be shown to be the reason.
        """
        number = 0
        while (prediction := self._batch(number)) is not None:
            yield prediction
            number += 1

    def _batch(self, number: int) -> Prediction | None:
        """Process one batch; the rows that cost the child are rejected."""
        for _ in range(2):
            prediction, loss = self._ask(number)
            if loss is None:
                return prediction
        rows = range(min(self._batch_size, self._shard.rows - number * self._batch_size))
        self._require_health(number, rows)
        losses: dict[int, Why] = {}

        def costs_the_child(shown: Sequence[int]) -> bool:
            _, loss = self._ask(number, frozenset(rows) - frozenset(shown))
            if loss is not None and len(shown) == 1:
                losses[shown[0]] = (loss.reason, loss.detail)
                self._require_health(number, rows)
            return loss is not None

        condemned = {row: losses[row] for row in isolate(rows, costs_the_child)}
        prediction, loss = self._ask(number, condemned=condemned)
        if loss is not None:
            raise self._explain(loss, f"the engine fails on batch {number}, though on no row of it alone")
        return prediction

    def _ask(
        self, number: int, hidden: frozenset[int] = frozenset(), condemned: dict[int, Why] | None = None
    ) -> tuple[Prediction | None, EngineBroken | None]:
        try:
            return self._engine.ask(number, hidden, condemned or {}), None
        except EngineBroken as loss:
            self._losses += 1
            if self._losses >= MOST_LOSSES:
                raise self._explain(loss, f"{MOST_LOSSES} engines were lost on one shard") from loss
            return None, loss

    def _require_health(self, number: int, rows: range) -> None:
        """Raise when the child does not even survive the batch with every row hidden."""
        _, loss = self._ask(number, frozenset(rows))
        if loss is not None:
            raise self._explain(loss, f"the engine fails on batch {number} with every row of it hidden")

    def _explain(self, loss: EngineBroken, what: str) -> SurveyprocError:
        kind = PartialError if loss.reason == MODEL_ERROR else ResourceError
        return kind(
            f"{what}: {loss.detail}",
            where=f"{self._shard.unit} of {self._shard.file}",
            fix=f"{_FIXES[loss.reason]}, then give the same command again: "
            "no row was rejected for this, and what was committed is kept",
        )
