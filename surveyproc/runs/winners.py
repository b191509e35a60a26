"""The winning attempts of all shards as columns: what finalise needs of their commits, and no more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surveyproc.errors import InputError, PartialError
from surveyproc.runs.ledger import Commit, Ledger, part_path
from surveyproc.runs.plan import Plan, unit_name

ATTEMPT_DIGITS = 16


@dataclass(frozen=True)
class Winners:
    """The winning attempt of every shard of a plan and the sizes of its parts, 16 bytes for each part.

    Attributes
    ----------
    rows, bytes : dict of str to numpy.ndarray
        Of the part of each shard, by table.
    attempts : numpy.ndarray
        Identifier of each shard's attempt, ``(shards,)`` bytes.
    rows_in : int
        Rows that came in: those of the per-object tables and the rejects.
    id_sum : int
        Sum of the id hashes of all rows that came in, modulo 2**64.
    """

    rows: dict[str, np.ndarray]
    bytes: dict[str, np.ndarray]
    attempts: np.ndarray
    rows_in: int
    id_sum: int

    def __len__(self) -> int:
        return len(self.attempts)

    @property
    def tables(self) -> list[str]:
        """Names of the tables that have parts."""
        return list(self.rows)

    def path(self, shard: int, table: str) -> str:
        """Name of a part in the run folder."""
        return part_path(unit_name(shard), self.attempts[shard].decode(), table)


def read_winners(ledger: Ledger, plan: Plan) -> Winners:
    """Read the commits of all shards, in plan order.

    Raises
    ------
    PartialError
        When a planned shard is not committed.
    InputError
        When a commit is not like the others, or names a file that is not its own.
    """
    rows: dict[str, np.ndarray] = {}
    sizes: dict[str, np.ndarray] = {}
    attempts = np.zeros(len(plan), dtype=f"S{ATTEMPT_DIGITS}")
    rows_in = ids = missing = 0
    for shard, commit in enumerate(ledger.commits_of(s.unit for s in plan)):
        if commit is None:
            missing += 1
            continue
        if not rows:
            rows = {name: np.zeros(len(plan), dtype=np.int64) for name in commit.parts}
            sizes = {name: np.zeros(len(plan), dtype=np.int64) for name in commit.parts}
        _require_own_parts(ledger, commit, list(rows))
        for name, part in commit.parts.items():
            rows[name][shard], sizes[name][shard] = part.rows, part.bytes
        attempts[shard] = commit.attempt
        rows_in += commit.rows + commit.rejects
        ids = (ids + int(commit.facts["id_sum"])) % 2**64
    if missing:
        raise PartialError(
            f"{missing} of {len(plan)} shards are not committed yet",
            where=ledger.storage.uri,
            fix="give the same command again to finish them",
        )
    return Winners(rows, sizes, attempts, rows_in, ids)


def _require_own_parts(ledger: Ledger, commit: Commit, tables: list[str]) -> None:
    named = {name: part.path for name, part in commit.parts.items()}
    if len(commit.attempt) != ATTEMPT_DIGITS or named != {
        name: part_path(commit.unit, commit.attempt, name) for name in tables
    }:
        raise InputError(
            "a commit does not name the parts of its own attempt",
            where=f"{ledger.storage.uri}/_commits/{commit.unit}.json",
            fix="somebody changed it: begin a new run",
        )
