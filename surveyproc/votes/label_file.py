"""The columns of a label file: which belong to a VoteSchema, and what is wrong with the file itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from surveyproc.errors import InputError, UsageError, did_you_mean
from surveyproc.votes.files import load_schema, shipped_schemas
from surveyproc.votes.tree import VoteSchema

ID_COLUMNS = ("object_id", "GalaxyID", "id_str")
EXAMPLES = 3


@dataclass(frozen=True)
class LabelColumns:
    """What a label file says, unchecked.

    Attributes
    ----------
    ids : list of str
        One for each row; empty where there is none.
    names : list of str
        Columns of the file, in the order of the schema's answers.
    values : numpy.ndarray
        ``(N, K)`` float64; NaN where a cell is empty.
    unused : list of str
        Columns of the file that the schema does not read.
    problems : list of str
        Missing columns, cells that are no numbers, ids that are missing or repeated. With any, ``values`` is not
        to be used.
    fix : str
        What to do about them.
    """

    ids: list[str]
    names: list[str]
    values: np.ndarray
    unused: list[str]
    problems: list[str]
    fix: str


def read_columns(path: str, schema: VoteSchema, id_column: str | None = None) -> LabelColumns:
    """Read the ids and the answers' columns of a CSV or Parquet file.

    Raises
    ------
    UsageError
        When no id column is found.
    InputError
        When the file cannot be read, has no rows, or none of the schema's columns.
    """
    present = _column_names(path)
    key = _id_column(present, id_column, path)
    names = [_choose(c, schema, present) for c in schema.columns]
    found = [n for n in names if n in present]
    unused = [n for n in present if n not in (*names, key)]
    if not found:
        raise InputError(
            f"the labels have none of the {len(names)} columns of {schema.name!r} ({names[0]}, ...)",
            where=path,
            fix=_other_schema(present) or f"pass another --schema; the columns are {few(present, 8)}",
        )
    if twice := sorted(n for n in {key, *found} if present.count(n) > 1):
        raise InputError(f"columns that appear twice: {few(twice, 8)}", where=path, fix="keep one of each")
    table = _table(path, [key, *found])
    if not len(table):
        raise InputError("the labels have no rows", where=path, fix="check that the file is whole")
    problems = _missing(names, present, unused)
    fix = _other_schema(present) if problems else ""
    ids = _ids(table[key], key, problems)
    columns = [_numbers(table[n], n, problems) for n in found]
    return LabelColumns(ids, names, np.stack(columns, axis=1), unused, problems, fix or "correct the file")


def few(names: list[str], most: int = EXAMPLES) -> str:
    """The first names, and dots when there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _choose(column: str, schema: VoteSchema, present: list[str]) -> str:
    """The field's name of an answer, or our own where only that is there."""
    label = schema.labels.get(column, column)
    return column if label not in present and column in present else label


def _missing(names: list[str], present: list[str], unused: list[str]) -> list[str]:
    lacking = [n for n in names if n not in present]
    if not lacking:
        return []
    hints = [f"{n}.{did_you_mean(n, unused)}" if did_you_mean(n, unused) else n for n in lacking]
    return [f"columns that are missing: {len(lacking)} of {len(names)}: {', '.join(hints)}"]


def _other_schema(present: list[str]) -> str:
    """A shipped tree whose columns the file does have."""
    fits = [
        name
        for name in shipped_schemas()
        if (schema := load_schema(name)) and set(schema.labels.values()) <= set(present)
    ]
    return f"the file has the columns of: {', '.join(fits)}; pass one as --schema" if fits else ""


def _id_column(present: list[str], id_column: str | None, path: str) -> str:
    key = id_column or next((c for c in ID_COLUMNS if c in present), None)
    if key is None or key not in present:
        raise UsageError(
            f"there is no id column {key!r} in the labels.{did_you_mean(key, present)}"
            if key
            else f"the labels have none of the id columns {', '.join(ID_COLUMNS)}",
            where=path,
            fix=f"pass --id COLUMN; the columns are {few(present, 8)}",
        )
    return key


def _is_parquet(path: str) -> bool:
    return Path(path).suffix.lower() in (".parquet", ".pq")


def _column_names(path: str) -> list[str]:
    try:
        if _is_parquet(path):
            return pq.read_schema(path).names
        with pa_csv.open_csv(path) as reader:
            return reader.schema.names
    except FileNotFoundError as error:
        raise InputError("there is no label file", where=path, fix="check the path of --labels") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(error, path) from error


def _table(path: str, columns: list[str]) -> pa.Table:
    try:
        if _is_parquet(path):
            return pq.read_table(path, columns=columns)
        # text first: a type guessed from the first rows would fail on the cell that matters
        as_text = pa_csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.string()),
            strings_can_be_null=True,
        )
        return pa_csv.read_csv(path, convert_options=as_text)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(error, path) from error


def _unreadable(error: Exception, path: str) -> InputError:
    reason = str(error).splitlines()[0]
    return InputError(
        f"the label file cannot be read: {reason}", where=path, fix="give a CSV or Parquet file"
    )


def _ids(column: pa.ChunkedArray, name: str, problems: list[str]) -> list[str]:
    try:
        if pa.types.is_floating(column.type):
            raise pa.ArrowInvalid("floating point")
        ids = [i or "" for i in column.cast(pa.string()).to_pylist()]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        problems.append(f"the id column {name} holds {column.type}; ids are whole numbers or text")
        return [""] * len(column)
    if rows := [str(i) for i, value in enumerate(ids) if not value]:
        problems.append(f"rows without an id in {name}: {len(rows)} (row {few(rows)}; the first is 0)")
    if twice := [i for i, count in Counter(filter(None, ids)).items() if count > 1]:
        problems.append(f"ids that appear more than once: {len(twice)} ({few(twice)})")
    return ids


def _numbers(column: pa.ChunkedArray, name: str, problems: list[str]) -> np.ndarray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_trim_whitespace(column)
    try:
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        cells = [str(cell) for cell in column.to_pylist() if not _is_number(cell)]
        problems.append(
            f"cells of {name} that are not numbers: {len(cells)} ({few([repr(c) for c in cells])})"
        )
        return np.full(len(column), np.nan)


def _is_number(cell: object) -> bool:
    try:
        return cell is None or isinstance(float(cell), float)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
