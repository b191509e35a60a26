"""Labels: what volunteers said of each galaxy, read from a file and checked against a VoteSchema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from surveyproc.errors import InputError, UsageError, did_you_mean
from surveyproc.votes.counts import joint_of_counts
from surveyproc.votes.label_checks import kinds_that_fit, value_problems
from surveyproc.votes.label_file import EXAMPLES, LabelColumns, few, read_columns
from surveyproc.votes.parse import VALUES
from surveyproc.votes.tree import VoteSchema

MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Labels:
    """Labels of N galaxies under a VoteSchema of K answers.

    Attributes
    ----------
    ids : list of str
        An integer and its decimal string are the same id.
    joint : numpy.ndarray
        ``(N, K)`` float64 joint values in [0, 1], never NaN; a question nobody answered is 0
        (`VoteSchema.known` tells which those are).
    counts : numpy.ndarray or None
        ``(N, K)`` float64 votes; None when the file has no votes but fractions.
    """

    ids: list[str]
    joint: np.ndarray
    counts: np.ndarray | None = None


@dataclass(frozen=True)
class Join:
    """Rows of two id lists that belong together, and how many do not.

    Attributes
    ----------
    left, right : numpy.ndarray
        Row numbers, pairwise the same id, in the left list's order.
    left_only, right_only : int
        Ids of one list that the other lacks.
    left_examples, right_examples : tuple of str
        Up to three of them.
    """

    left: np.ndarray
    right: np.ndarray
    left_only: int
    right_only: int
    left_examples: tuple[str, ...] = ()
    right_examples: tuple[str, ...] = ()

    def describe(self, left: str, right: str) -> str:
        """One line for people."""
        return (
            f"{len(self.left)} ids in both, "
            f"{_unmatched(self.left_only, left, self.left_examples)}, "
            f"{_unmatched(self.right_only, right, self.right_examples)}"
        )


def read_labels(
    path: str,
    schema: VoteSchema,
    id_column: str | None = None,
    values: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Labels:
    """Read a CSV or Parquet file of vote fractions or votes.

    Parameters
    ----------
    path : str
        The file. Its columns are those of ``schema.labels`` (``Class1.1``), or the answers' own names.
    schema : VoteSchema
        The tree that the volunteers followed.
    id_column : str, optional
        Default: the first of ``object_id``, ``GalaxyID``, ``id_str`` that is there.
    values : str, optional
        What the columns hold, ``joint``, ``fractions`` or ``counts``; default ``schema.values``.
    say : callable
        Told in one line each what was read, left out, and taken as no votes.

    Raises
    ------
    UsageError
        When no id column is found, or ``values`` is no kind.
    InputError
        Lists every problem of the file by name and count: missing columns, cells that are no numbers, ids that are
        missing or repeated, values outside their range, questions that do not sum, no galaxy with votes.
    """
    kind = values or schema.values
    if kind not in VALUES:
        raise UsageError(
            f"there is no kind of label values {kind!r}.{did_you_mean(kind, VALUES)}",
            where="--values",
            fix=f"pass one of {', '.join(VALUES)}",
        )
    columns = read_columns(path, schema, id_column)
    _refuse(columns.problems, path, columns.fix)
    columns, without = _with_votes(columns)
    if not columns.ids:
        raise InputError(
            f"none of the {without} galaxies of the labels has a vote",
            where=path,
            fix="check that these columns hold votes or vote fractions",
        )
    if problems := value_problems(columns, kind, schema):
        _refuse(problems, path, _fix(columns, kind, schema))
    say(f"labels: {len(columns.ids)} galaxies, {kind} of the {len(schema.columns)} answers of {schema.name}")
    if without:
        say(f"labels: {without} galaxies without any vote are left out")
    if columns.unused:
        say(f"labels: {len(columns.unused)} columns are not used: {few(columns.unused, 8)}")
    return _convert(columns, kind, schema, say)


def join_ids(left: list[str], right: list[str]) -> Join:
    """Match two lists of unique ids."""
    index = {name: row for row, name in enumerate(right)}
    pairs = [(row, index[name]) for row, name in enumerate(left) if name in index]
    rows = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    known = set(left)
    left_only = [name for name in left if name not in index]
    right_only = [name for name in right if name not in known]
    return Join(
        rows[:, 0],
        rows[:, 1],
        len(left_only),
        len(right_only),
        tuple(left_only[:EXAMPLES]),
        tuple(right_only[:EXAMPLES]),
    )


def _unmatched(number: int, where: str, examples: tuple[str, ...]) -> str:
    more = ", ..." if number > len(examples) else ""
    return f"{number} only in the {where}" + (f" ({', '.join(examples)}{more})" if examples else "")


def _with_votes(columns: LabelColumns) -> tuple[LabelColumns, int]:
    """Leave out galaxies all of whose values are 0 or empty; also their number."""
    voted = (np.nan_to_num(columns.values, nan=0.0) != 0).any(axis=1)
    kept = [name for name, is_kept in zip(columns.ids, voted) if is_kept]
    return replace(columns, ids=kept, values=columns.values[voted]), int((~voted).sum())


def _convert(columns: LabelColumns, kind: str, schema: VoteSchema, say: Callable[[str], None]) -> Labels:
    if kind != "counts":
        values = columns.values.clip(0, 1)
        joint = schema.joint(values) if kind == "fractions" else values
        return Labels(columns.ids, np.nan_to_num(joint, nan=0.0))
    counts = np.nan_to_num(columns.values, nan=0.0)
    empty = np.isnan(columns.values)
    unasked = {n: int(empty[:, s].all(axis=1).sum()) for n, s in schema.slices.items()}
    if found := [f"{name} ({number} galaxies)" for name, number in unasked.items() if number]:
        say(f"labels: empty cells are no votes: {', '.join(found)}")
    joint = joint_of_counts(counts, schema)
    orphans = (schema.totals(counts) > 0) & (schema.totals(joint) == 0)
    if found := [f"{q.name} ({n} galaxies)" for q, n in zip(schema.questions, orphans.sum(axis=0)) if n]:
        say(f"labels: votes on questions whose parents nobody gave have joint value 0: {', '.join(found)}")
    return Labels(columns.ids, joint, counts)


def _fix(columns: LabelColumns, kind: str, schema: VoteSchema) -> str:
    others = [k for k in kinds_that_fit(columns, schema) if k != kind]
    if others:
        return f"the values were read as {kind}; they look like {others[0]}: pass --values {others[0]}"
    return f"the values were read as {kind}: correct them, or pass another of --values {'|'.join(VALUES)}"


def _refuse(problems: list[str], path: str, fix: str) -> None:
    if not problems:
        return
    shown = problems[:MOST_PROBLEMS]
    if len(problems) > MOST_PROBLEMS:
        shown.append(f"and {len(problems) - MOST_PROBLEMS} more")
    head = "" if len(problems) == 1 else f"the labels have {len(problems)} problems:\n    "
    raise InputError(head + "\n    ".join(shown), where=path, fix=fix)
