"""What the commits of a run say: which shards are done, and what finalise has made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from surveyproc.errors import InputError
from surveyproc.runs.accounts import NOTHING, Count
from surveyproc.runs.ledger import STORE_THREADS, Commit, Ledger
from surveyproc.runs.manifest import assemble, book_checks
from surveyproc.runs.plan import Shard
from surveyproc.threads import map_ahead


@dataclass
class Committed:
    """The commits of a run, held against its plan; of the shards only what they add up to.

    Attributes
    ----------
    planned_rows, shards, done : int
        Rows of the input, shards of the plan, shards with a commit.
    came_in : Count
        Rows and ids of the committed shards.
    missing : list of str
        Planned shards without a commit.
    problems : dict of str to str
        What is wrong with the commit of a unit: damaged, not planned, other rows than planned.
    merged, indexed : list of Commit
        Of the files of the tables, and of the index.
    """

    planned_rows: int
    shards: int = 0
    done: int = 0
    came_in: Count = NOTHING
    missing: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    merged: list[Commit] = field(default_factory=list)
    indexed: list[Commit] = field(default_factory=list)

    @property
    def final(self) -> list[Commit]:
        """Commits of all files that stay in a finished run."""
        return [*self.merged, *self.indexed]

    def assembled(self, record: dict[str, Any]) -> dict[str, Any]:
        """Say what the finished run holds; see `surveyproc.runs.manifest.assemble`."""
        return assemble(record, self.came_in, self.merged, self.indexed)

    def unfinished(self, record: dict[str, Any]) -> str:
        """Say what is missing before a manifest can be made of the commits; empty when nothing is."""
        if self.missing or self.problems or not self.shards:
            return f"{self.done} of {self.shards} shards are committed"
        wrong = [c for c in book_checks(self.assembled(record), record, self.planned_rows) if not c.passed]
        return f"all {self.shards} shards are committed, but not all files of its tables" if wrong else ""


def read_commits(ledger: Ledger, record: dict[str, Any], plan: Sequence[Shard]) -> Committed:
    """Read every commit once, many at a time."""
    found = Committed(record["fingerprint"]["input"]["rows"], len(plan))
    others = ledger.committed("")
    for shard, commit in zip(plan, readable(ledger, (shard.unit for shard in plan))):
        others.discard(shard.unit)
        if commit is None:
            found.missing.append(shard.unit)
        elif isinstance(commit, str):
            found.problems[shard.unit] = commit
        else:
            found.done += 1
            found.came_in = found.came_in.plus(*commit.came_in)
            if commit.came_in.rows != shard.rows:
                says = f"{shard.unit} counts {commit.came_in.rows} rows, {shard.rows} were planned"
                found.problems[shard.unit] = says
    found.problems |= {unit: f"{unit} is not planned" for unit in others if unit.startswith("shard-")}
    for prefix, kept in (("merge-", found.merged), ("index-", found.indexed)):
        units = sorted(unit for unit in others if unit.startswith(prefix))
        for unit, commit in zip(units, readable(ledger, units)):
            if isinstance(commit, str):
                found.problems[unit] = commit
            elif commit is not None:
                kept.append(commit)
    return found


def readable(ledger: Ledger, units: Iterable[str]) -> Iterator[Commit | str | None]:
    """Read commits; instead of one that is damaged comes what is wrong with it."""
    return map_ahead(partial(_read, ledger), units, STORE_THREADS)


def _read(ledger: Ledger, unit: str) -> Commit | str | None:
    try:
        commit = ledger.commit_of(unit)
    except InputError as error:
        return f"{unit}: {error.what}"
    return commit if commit is None or commit.unit == unit else f"{unit} is the commit of {commit.unit}"
