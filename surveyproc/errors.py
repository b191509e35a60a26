"""Errors a user can act on: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SurveyprocError(Exception):
    """A failure that is explained in three lines instead of a traceback.

    Parameters
    ----------
    what : str
        What is wrong.
    where : str, optional
        File, row, key or id where it was seen.
    fix : str, optional
        What the user can do about it.
    """

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.what, self.where, self.fix)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class UsageError(SurveyprocError):
    """The command or its settings are wrong."""

    exit_code = 2


class InputError(SurveyprocError):
    """The data given cannot be used."""

    exit_code = 3


class PartialError(SurveyprocError):
    """The work stopped before its end; what was committed is kept."""

    exit_code = 4


class ResourceError(SurveyprocError):
    """The machine or cluster lacks what the work needs."""

    exit_code = 5


def _rebuild(kind: type[SurveyprocError], what: str, where: str, fix: str) -> SurveyprocError:
    return kind(what, where=where, fix=fix)


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Name the candidate closest to a mistyped word.

    Returns
    -------
    str
        ``" Did you mean 'x'?"``, or an empty string when nothing is close.
    """
    close = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
