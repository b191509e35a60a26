"""Read the table of objects that goes with a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from surveyproc.errors import InputError, UsageError, did_you_mean

RESERVED = ("object_id", "image", "ra", "dec", "_healpix_29")
_INTEGER = r"^-?(0|[1-9][0-9]*)$"
_BYTES = (
    r"^b(['\"]).*['\"]$",
    "ids are printed bytes",
    "decode them when writing the table: id.decode()",
)
_FLOATS = (
    r"^-?[0-9]+(\.0+|\.?[0-9]*[eE]\+?[0-9]+)$",
    "ids were written as floating point numbers",
    "write the column as integers: digits beyond 2^53 are lost",
)
_SUFFIXES = ".csv, .tsv, .parquet or .fits"


@dataclass(frozen=True)
class ObjectTable:
    """Objects in the order of the user's table.

    Attributes
    ----------
    columns : pyarrow.Table
        ``object_id`` (int64 or string, null where missing), ``ra`` and ``dec`` (float64, null where
        unknown) when asked for, then the carried columns.
    malformed : list of (int, str)
        Data rows of a CSV file whose number of fields is wrong: row number and text. Not in ``columns``.
    """

    columns: pa.Table
    malformed: list[tuple[int, str]]


def read_objects(
    path: Path, id_column: str, ra_column: str | None, dec_column: str | None, carry: Sequence[str] = ()
) -> ObjectTable:
    """Read ids, positions and carried columns of a CSV, Parquet or FITS table.

    Ids are exact: integers of up to 64 bits become int64, anything else stays text (``007`` too).

    Raises
    ------
    UsageError
        One of ra and dec without the other, or a carried column with a reserved name.
    InputError
        The table or a column is missing, empty or of the wrong kind.
    """
    if (ra_column is None) != (dec_column is None):
        raise UsageError("--ra and --dec go together", fix="give both columns, or neither")
    for name in carry:
        if name in RESERVED:
            raise UsageError(
                f"column {name!r} cannot be carried: the catalog has its own", fix="rename it in the table"
            )
    positions = [c for c in (ra_column, dec_column) if c is not None]
    wanted = list(dict.fromkeys([id_column, *positions, *carry]))
    if not path.is_file():
        raise InputError("the table is not there", where=str(path), fix="check --table")
    name = path.name.lower()
    malformed: list[tuple[int, str]] = []
    try:
        if name.endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz")):
            table = _read_csv(path, id_column, wanted, malformed)
        elif name.endswith((".parquet", ".pq", ".parq")):
            require_columns(pq.read_schema(path).names, wanted, path)
            table = pq.read_table(path, columns=wanted, partitioning=None)
        elif name.endswith((".fits", ".fit", ".fits.gz")):
            table = _read_fits(path, wanted)
        else:
            raise InputError(
                f"what kind of table is this? {_SUFFIXES} is read", where=str(path), fix="convert it"
            )
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"the table cannot be read: {str(error).splitlines()[0]}",
            where=str(path),
            fix=f"a table is {_SUFFIXES}",
        ) from error
    if table.num_rows == 0:
        raise InputError("the table has no rows", where=str(path), fix="check --table")
    columns = {"object_id": _ids(table[id_column].combine_chunks(), f"{path}, column {id_column!r}")}
    for name, source in zip(("ra", "dec"), positions):
        columns[name] = degrees(table[source].combine_chunks(), f"{path}, column {source!r}")
    columns |= {name: table[name] for name in carry}
    return ObjectTable(pa.table(columns), malformed)


def _read_csv(path: Path, id_column: str, wanted: list[str], malformed: list[tuple[int, str]]) -> pa.Table:
    def keep_malformed(row: pacsv.InvalidRow) -> str:
        malformed.append((row.number - 1, row.text))
        return "skip"

    delimiter = "\t" if ".tsv" in path.name.lower() else ","
    read = pacsv.ReadOptions(use_threads=False)
    parse = pacsv.ParseOptions(
        delimiter=delimiter, newlines_in_values=False, invalid_row_handler=keep_malformed
    )
    with pacsv.open_csv(path, read, parse) as reader:
        names = reader.schema.names
    require_columns(names, wanted, path)
    malformed.clear()
    convert = pacsv.ConvertOptions(include_columns=wanted, column_types={id_column: pa.string()})
    return pacsv.read_csv(path, read, parse, convert)


def _read_fits(path: Path, wanted: list[str]) -> pa.Table:
    table = open_fits_table(path)
    require_columns(table.colnames, wanted, path)
    return fits_columns(table, wanted, path)


def open_fits_table(path: Path) -> Any:
    """Open the first table of a FITS file as an astropy Table; rows stay on the disk until they are used.

    Raises
    ------
    InputError
        When there is none.
    """
    from astropy.table import Table

    try:
        return Table.read(path, format="fits", unit_parse_strict="silent", memmap=True)
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(
            f"the table cannot be read: {error}", where=str(path), fix="a FITS table has a table extension"
        ) from error


def open_votable(path: Path) -> Any:
    """Read the first table of a VOTable as an astropy Table; columns have the names that users see.

    Raises
    ------
    InputError
        When there is none.
    """
    import warnings

    from astropy.io.votable import parse

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return parse(str(path), verify="ignore").get_first_table().to_table(use_names_over_ids=True)
    except Exception as error:  # the XML parser raises kinds of its own
        what = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"the table cannot be read: {what}",
            where=str(path),
            fix="a VOTable has a TABLE element with rows",
        ) from error


def fits_columns(table: Any, wanted: list[str], path: Path) -> pa.Table:
    """Take columns of an astropy Table, or of a slice of one, as Arrow; masked values are null.

    Raises
    ------
    InputError
        For a column of arrays.
    """
    columns = {}
    for name in wanted:
        values = np.ma.asarray(table[name])
        if values.ndim != 1:
            raise InputError(
                f"column {name!r} has several values per row",
                where=str(path),
                fix="choose a column of plain values",
            )
        mask = np.ma.getmaskarray(values)
        data = values.data
        if data.dtype.kind == "S":
            data = np.char.decode(data, "utf-8")
        if data.dtype.kind == "U":
            columns[name] = pa.array([v.rstrip() for v in data.tolist()], pa.string(), mask=mask)
        else:
            columns[name] = pa.array(data.astype(data.dtype.newbyteorder("=")), mask=mask)
    return pa.table(columns)


def require_columns(present: list[str], wanted: list[str], path: Path) -> None:
    """Refuse a table that lacks a column, or has it twice.

    Raises
    ------
    InputError
    """
    for name in wanted:
        count = present.count(name)
        if count != 1:
            other_case = [p for p in present if p.lower() == name.lower()]
            hint = f" Did you mean {other_case[0]!r}?" if other_case else did_you_mean(name, present)
            what = f"no column {name!r} in the table.{hint}"
            raise InputError(
                what if count == 0 else f"column {name!r} is there {count} times",
                where=f"{path}; columns: {', '.join(present[:20])}",
                fix="name a column of the table with --id, --ra, --dec or --carry",
            )


def _ids(column: pa.Array, where: str) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _ids(column.dictionary_decode(), where)
    if pa.types.is_integer(kind):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise InputError(
                f"an id does not fit 64 bits with sign: {error}", where=where, fix="write the ids as text"
            ) from error
    if pa.types.is_floating(kind):
        raise InputError(
            "ids are floating point numbers, which lose digits beyond 2^53",
            where=where,
            fix="write the column as integers or text",
        )
    if not (_is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise InputError(f"ids of type {kind} are not supported", where=where, fix="write integers or text")
    text = trimmed(column)
    _refuse_spoilt(text, where)
    if all_integers(text):
        try:
            return text.cast(pa.int64())
        except pa.ArrowInvalid:
            return text
    return text


def trimmed(column: pa.Array) -> pa.Array:
    """Ids as text without white space around them; empty ones are null."""
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def all_integers(text: pa.Array) -> bool:
    """Whether every id is an integer as it would be printed (``007`` is not)."""
    return bool(pc.all(pc.match_substring_regex(text, _INTEGER)).as_py() is not False)


def refuse_floats(text: pa.Array, where: str) -> None:
    """Refuse ids that an earlier tool has written as floating point numbers.

    Raises
    ------
    InputError
    """
    _refuse(text, where, *_FLOATS)


def _refuse_spoilt(text: pa.Array, where: str) -> None:
    """Refuse ids that an earlier tool has turned into something else."""
    _refuse(text, where, *_BYTES)
    _refuse(text, where, *_FLOATS)


def _refuse(text: pa.Array, where: str, pattern: str, what: str, fix: str) -> None:
    hits = text.filter(pc.fill_null(pc.match_substring_regex(text, pattern), False))
    if len(hits):
        raise InputError(f"{what}, such as {hits[0].as_py()}", where=where, fix=fix)


def degrees(column: pa.Array, where: str) -> pa.Array:
    """Cast a column to float64 degrees; what is not finite becomes null.

    Raises
    ------
    InputError
        When it holds no numbers.
    """
    kind = column.type
    if not (pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        example = next((str(v) for v in column.to_pylist() if v is not None and v != ""), "")
        raise InputError(
            f"positions are {kind}, such as {example!r}; degrees are needed",
            where=where,
            fix="convert them to decimal degrees (ICRS)",
        )
    degrees = column.cast(pa.float64(), safe=False)
    return pc.if_else(pc.is_finite(degrees), degrees, pa.scalar(None, pa.float64()))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
