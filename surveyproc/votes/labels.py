"""Label files: one row per galaxy with the joint values of a VoteSchema's answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from surveyproc.errors import InputError, UsageError, did_you_mean
from surveyproc.votes.tree import VoteSchema

ID_COLUMNS = ("object_id", "GalaxyID", "id_str")


@dataclass(frozen=True)
class Labels:
    """Ids as text (an integer and its decimal string are the same id) and ``(N, K)`` joint values."""

    ids: list[str]
    joint: np.ndarray


@dataclass(frozen=True)
class Join:
    """Rows of two id lists that belong together, and how many do not.

    Attributes
    ----------
    left, right : numpy.ndarray
        Row numbers, pairwise the same id, in the left list's order.
    left_only, right_only : int
        Ids of one list that the other lacks.
    """

    left: np.ndarray
    right: np.ndarray
    left_only: int
    right_only: int

    def describe(self, left: str, right: str) -> str:
        """One line for people."""
        return (
            f"{len(self.left)} ids in both, {self.left_only} only in the {left}, "
            f"{self.right_only} only in the {right}"
        )


def read_labels(path: str, schema: VoteSchema, id_column: str | None = None) -> Labels:
    """Read a CSV or Parquet file of joint values.

    The columns are those of ``schema.labels`` (``Class1.1``), or the answers' own names.

    Raises
    ------
    UsageError
        When no id column is found.
    InputError
        When a column is missing, an id is missing or repeated, or a value is not a number in [0, 1].
    """
    table = _read(path, id_column)
    names = table.column_names
    key = id_column or next((c for c in ID_COLUMNS if c in names), None)
    if key is None or key not in names:
        raise UsageError(
            f"there is no id column {key!r} in the labels.{did_you_mean(key, names)}"
            if key
            else f"the labels have none of the id columns {', '.join(ID_COLUMNS)}",
            where=path,
            fix=f"pass --id COLUMN; the columns are {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}",
        )
    wanted = [schema.labels.get(c, c) if schema.labels.get(c) in names else c for c in schema.columns]
    missing = [schema.labels.get(c, c) for c in wanted if c not in names]
    if missing:
        raise InputError(
            f"the labels lack {len(missing)} of {len(wanted)} answers of {schema.name!r}: {', '.join(missing)}",
            where=path,
            fix="pass another --schema, or a file with the joint vote fractions",
        )
    ids = ["" if i is None else str(i) for i in table[key].to_pylist()]
    if "" in ids:
        raise InputError(f"row {ids.index('')} of the labels has no id", where=f"{path}, column {key}")
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise InputError(
            f"id {twice} appears more than once in the labels", where=path, fix="keep one row for each id"
        )
    joint = np.stack([_numbers(table[c], c, path) for c in wanted], axis=1)
    bad = np.argwhere(~((joint >= -1e-6) & (joint <= 1 + 1e-6)))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{wanted[column]} of id {ids[row]} is {joint[row, column]:g}, not a fraction in [0, 1]",
            where=path,
            fix="give joint vote fractions; drop galaxies without labels",
        )
    return Labels(ids, joint)


def join_ids(left: list[str], right: list[str]) -> Join:
    """Match two lists of unique ids."""
    index = {name: row for row, name in enumerate(right)}
    pairs = [(row, index[name]) for row, name in enumerate(left) if name in index]
    rows = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Join(rows[:, 0], rows[:, 1], len(left) - len(pairs), len(right) - len(pairs))


def _read(path: str, id_column: str | None) -> pa.Table:
    try:
        if Path(path).suffix.lower() in (".parquet", ".pq"):
            return pq.read_table(path)
        as_text = {name: pa.string() for name in (*ID_COLUMNS, id_column) if name}
        return pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(column_types=as_text))
    except FileNotFoundError as error:
        raise InputError("there is no label file", where=path, fix="check the path of --labels") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"the label file cannot be read: {error}", where=path) from error


def _numbers(column: pa.ChunkedArray, name: str, path: str) -> np.ndarray:
    try:
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"column {name} of the labels is not numeric", where=path) from error
