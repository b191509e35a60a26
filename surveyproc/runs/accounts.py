"""The accounts of a run: every row and id that came in is in each table or in the rejects.

An attempt balances them before it commits, finalise before it publishes the manifest, `verify` from what it
reads back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from surveyproc.errors import SurveyprocError


@dataclass(frozen=True)
class Check:
    """One line of a verification."""

    name: str
    passed: bool
    detail: str


class Count(NamedTuple):
    """Rows, and the order-free sum of the hashes of their ids (modulo 2**64)."""

    rows: int
    id_sum: int

    def plus(self, rows: int, id_sum: int) -> Count:
        """Add rows and their id sum."""
        return Count(self.rows + rows, (self.id_sum + id_sum) % 2**64)


NOTHING = Count(0, 0)


def total(counts: Iterable[Count]) -> Count:
    """Add up."""
    found = NOTHING
    for count in counts:
        found = found.plus(*count)
    return found


def account_checks(tables: Mapping[str, Count], rejects: Count, came_in: Count) -> Iterator[Check]:
    """Check for each table with a row per object that rows in = rows out + rejects, and so for the ids.

    Parameters
    ----------
    tables : mapping of str to Count
        What is in each table.
    rejects, came_in : Count
        What was rejected, and what there was in all.
    """
    for name, count in tables.items():
        rows, ids = rejects.plus(*count)
        detail = f"{count.rows} rows + {rejects.rows} rejects of {came_in.rows} rows"
        if rows == came_in.rows and ids != came_in.id_sum:
            detail += ", but the ids are not those that came in"
        yield Check(f"{name}: accounts", (rows, ids) == came_in, detail)


def require_balance(checks: Iterable[Check], where: str) -> None:
    """Stop when accounts do not add up.

    Raises
    ------
    SurveyprocError
        Naming every table that fails.
    """
    wrong = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
    if wrong:
        raise SurveyprocError(
            "; ".join(wrong), where=where, fix="this is a bug: please report it with the run folder"
        )


def some(items: list[str], most: int = 3) -> str:
    """Name the first few of many."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
