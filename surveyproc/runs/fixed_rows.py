"""Rows of fixed width, as FITS binary tables and VOTables hold them: big-endian, one field after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from surveyproc.errors import InputError

# One byte of text is a letter and no text to STIL (TOPCAT), and arraysize="1" is deprecated in VOTable.
SHORTEST_TEXT = 2

# Arrow type: numpy type, FITS code, VOTable type. What FITS lacks goes into the next wider type.
_NUMBERS = {
    pa.uint8(): ("u1", "B", "unsignedByte"),
    pa.int8(): (">i2", "I", "short"),
    pa.int16(): (">i2", "I", "short"),
    pa.uint16(): (">i4", "J", "int"),
    pa.int32(): (">i4", "J", "int"),
    pa.uint32(): (">i8", "K", "long"),
    pa.int64(): (">i8", "K", "long"),
    pa.float16(): (">f4", "E", "float"),
    pa.float32(): (">f4", "E", "float"),
    pa.float64(): (">f8", "D", "double"),
}


@dataclass(frozen=True)
class FixedColumn:
    """One field of a row.

    Attributes
    ----------
    field : pyarrow.Field
    numpy, fits, votable : str
        Its type in each; ``count`` of them follow each other.
    count : int
        Elements, or bytes of text; of ``unicodeChar`` UTF-16 units, of which there are never more than bytes in UTF-8.
    null : int or None
        Value that stands for a missing one in FITS, for integers.
    """

    field: pa.Field
    numpy: str
    fits: str
    votable: str
    count: int
    null: int | None = None


@dataclass(frozen=True)
class TextWidth:
    """Bytes of the longest text of a column in UTF-8, and whether all of it is ASCII."""

    nbytes: int = 0
    is_ascii: bool = True


def fixed_columns(schema: pa.Schema, widths: dict[str, TextWidth], where: str) -> list[FixedColumn]:
    """Lay out rows of fixed width.

    Parameters
    ----------
    schema : pyarrow.Schema
    widths : dict of str to TextWidth
        Of each text column.
    where : str
        For the message.

    Raises
    ------
    InputError
        Naming all columns that cannot be laid out.
    """
    columns, odd = [], []
    for field in schema:
        kind, count = field.type, 1
        if pa.types.is_fixed_size_list(kind):
            kind, count = kind.value_type, kind.list_size
        if is_text(field.type):
            width = widths[field.name]
            letters = "char" if width.is_ascii else "unicodeChar"
            columns.append(FixedColumn(field, "S", "A", letters, max(SHORTEST_TEXT, width.nbytes)))
        elif pa.types.is_boolean(kind):
            columns.append(FixedColumn(field, "S1", "L", "boolean", count))
        elif kind in _NUMBERS:
            code = _NUMBERS[kind]
            null = int(np.iinfo(code[0]).min) if code[0].startswith(">i") and count == 1 else None
            columns.append(FixedColumn(field, *code, count, null))
        else:
            odd.append(f"{field.name} ({field.type})")
    if odd:
        raise InputError(
            f"FITS tables and VOTables of rows of fixed width cannot hold {', '.join(odd)}",
            where=where,
            fix="publish with --format hats or parquet, or leave the table out with --tables",
        )
    return columns


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def text_widths(tables: Iterable[pa.Table]) -> dict[str, TextWidth]:
    """Measure each column of text."""
    widths: dict[str, TextWidth] = {}
    for table in tables:
        for name in table.column_names:
            text, before = table[name].cast(pa.string()), widths.get(name, TextWidth())
            longest = pc.max(pc.binary_length(text)).as_py() or 0
            is_ascii = pc.all(pc.string_is_ascii(text)).as_py() is not False
            widths[name] = TextWidth(max(before.nbytes, longest), before.is_ascii and is_ascii)
    return widths


def pack(table: pa.Table, columns: list[FixedColumn], masked: bool, where: str) -> np.ndarray:
    """Make rows of fixed width.

    Parameters
    ----------
    table : pyarrow.Table
    columns : list of FixedColumn
    masked : bool
        Begin each row with one bit for each column that says whether it is missing (BINARY2 of VOTable);
        otherwise missing integers become their ``null``, missing numbers NaN, missing text is empty (FITS).
    where : str
        For the message.

    Returns
    -------
    numpy.ndarray, shape (N,)
        Structured; its bytes are the rows.

    Raises
    ------
    InputError
        FITS only: text that is not ASCII, or a value equal to the one that stands for a missing one.
    """
    fields: list[tuple] = [("mask", "u1", (-(-len(columns) // 8),))] if masked else []
    for number, column in enumerate(columns):
        letters = 2 if masked and column.votable == "unicodeChar" else 1
        kind = f"S{letters * column.count}" if column.fits == "A" else column.numpy
        shape = () if column.count == 1 or column.fits == "A" else (column.count,)
        fields.append((f"c{number}", kind, shape))
    rows = np.zeros(table.num_rows, np.dtype(fields))
    missing = np.zeros((table.num_rows, len(columns)), bool)
    for number, column in enumerate(columns):
        values = table[column.field.name].combine_chunks()
        if isinstance(values, pa.ChunkedArray):
            values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
        missing[:, number] = values.is_null().to_numpy(zero_copy_only=False)
        try:
            rows[f"c{number}"] = _values(values, column, missing[:, number], masked)
        except UnicodeEncodeError as error:
            raise InputError(
                f"column {column.field.name!r} has text that is not ASCII ({error.object!r}), which FITS cannot hold",
                where=where,
                fix="publish with --format votable, hats or parquet",
            ) from error
        except OverflowError as error:
            raise InputError(
                f"column {column.field.name!r} holds {column.null}, which in FITS stands for a missing value",
                where=where,
                fix="publish with --format votable, hats or parquet",
            ) from error
    if masked:
        rows["mask"] = np.packbits(missing, axis=1)
    return rows


def _values(values: pa.Array, column: FixedColumn, missing: np.ndarray, masked: bool) -> Any:
    if column.fits == "A":
        encoding = "utf-16-be" if masked and column.votable == "unicodeChar" else "ascii"
        return [(text or "").encode(encoding) for text in values.cast(pa.string()).to_pylist()]
    if column.count > 1 or pa.types.is_fixed_size_list(values.type):
        flat = pa.array(_flat(values))
        return _elements(flat, column, masked).reshape(len(values), column.count)
    found = _elements(values, column, masked)
    if column.null is not None and not masked:
        if (found[~missing] == column.null).any():
            raise OverflowError
        found[missing] = column.null
    return found


def _flat(values: pa.FixedSizeListArray) -> pa.Array:
    """All elements of lists of one length; those of a missing list are null."""
    size = values.type.list_size
    whole = values.fill_null([None] * size) if values.null_count else values
    return whole.flatten()


def _elements(values: pa.Array, column: FixedColumn, masked: bool) -> np.ndarray:
    if pa.types.is_boolean(values.type):
        letters = np.where(values.fill_null(False).to_numpy(zero_copy_only=False), b"T", b"F").astype("S1")
        letters[values.is_null().to_numpy(zero_copy_only=False)] = b""
        return letters
    if pa.types.is_floating(values.type):
        return np.array(values.to_numpy(zero_copy_only=False), column.numpy)  # missing is NaN
    return values.fill_null(0).to_numpy(zero_copy_only=False).astype(column.numpy)
