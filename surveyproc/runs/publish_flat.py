"""One table to one file: FITS, VOTable or Parquet, written as it streams."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.hats.parquet import ROW_GROUP_ROWS, parquet_settings
from surveyproc.columns import attributes
from surveyproc.hashing import HashingFile
from surveyproc.runs.fixed_rows import FixedColumn, TextWidth, fixed_columns, is_text, pack, text_widths
from surveyproc.runs.merge import DESCRIPTIONS
from surveyproc.runs.publish_names import Names
from surveyproc.runs.publish_source import SourceTable
from surveyproc.voparquet import votable_header, with_votable

SUFFIXES = {"fits": ".fits", "votable": ".vot", "parquet": ".parquet"}
FITS_BLOCK = 2880


def write_flat(sink: HashingFile, table: SourceTable, names: Names, form: str) -> int:
    """Write a table to a file; one batch of rows is in memory at once.

    Parameters
    ----------
    sink : HashingFile
        Written from its beginning to its end, without seeking.
    table : SourceTable
    names : Names
    form : str
        Key of `SUFFIXES`.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    InputError
        When the format cannot hold a column or a value.
    """
    if form == "parquet":
        return _write_parquet(sink, table, names)
    columns = fixed_columns(names.schema(table.schema), _widths(table, names), table.name)
    if form == "fits":
        return _write_fits(sink, table, names, columns)
    return _write_votable(sink, table, names, columns)


def _renamed(table: SourceTable, names: Names) -> Iterator[pa.Table]:
    return (names.apply(piece) for piece in table.read_all())


def _write_parquet(sink: HashingFile, table: SourceTable, names: Names) -> int:
    schema = with_votable(names.schema(table.schema), table.name, DESCRIPTIONS.get(table.name, ""))
    writer = pq.ParquetWriter(pa.PythonFile(sink, "w"), schema, **parquet_settings(schema))
    rows, held = 0, list[pa.Table]()
    try:
        for piece in _renamed(table, names):
            held.append(piece.cast(schema))
            rows += piece.num_rows
            if sum(p.num_rows for p in held) >= ROW_GROUP_ROWS:
                writer.write_table(pa.concat_tables(held), row_group_size=ROW_GROUP_ROWS)
                held = []
        if held:
            writer.write_table(pa.concat_tables(held), row_group_size=ROW_GROUP_ROWS)
    except BaseException:
        with suppress(Exception):
            writer.close()
        raise
    writer.close()
    return rows


def _widths(table: SourceTable, names: Names) -> dict[str, TextWidth]:
    """The width of the text of each column, which a first pass over these columns tells."""
    sources = {c.source: c.field.name for c in names.columns(table.schema) if is_text(c.field.type)}
    if not sources:
        return {}
    found = text_widths(
        piece.cast(pa.schema([(name, pa.string()) for name in sources]))
        for piece in table.read_all(list(sources))
    )
    return {sources[name]: found.get(name, TextWidth()) for name in sources}


def _write_fits(sink: HashingFile, table: SourceTable, names: Names, columns: list[FixedColumn]) -> int:
    sink.write(_fits_header(table.name, columns, table.rows))
    start = sink.nbytes
    rows = 0
    for piece in _renamed(table, names):
        sink.write(pack(piece, columns, masked=False, where=table.name).tobytes())
        rows += piece.num_rows
    sink.write(b"\0" * (-(sink.nbytes - start) % FITS_BLOCK))
    return rows


def _fits_header(name: str, columns: list[FixedColumn], rows: int) -> bytes:
    from astropy.io import fits

    made = []
    for column in columns:
        count = column.count if column.count > 1 or column.fits == "A" else ""
        unit = attributes(column.field).get("unit")
        null = column.null if column.field.name != "object_id" else None
        made.append(fits.Column(column.field.name, f"{count}{column.fits}", unit=unit, null=null))
    table = fits.BinTableHDU.from_columns(made, nrows=0, name=name)
    table.header["NAXIS2"] = rows
    for number, column in enumerate(columns, 1):
        said = attributes(column.field)
        for key, word in (("description", "TCOMM"), ("ucd", "TUCD")):
            if key in said:
                table.header[f"{word}{number}"] = said[key]
    primary = fits.PrimaryHDU().header
    return (primary.tostring() + table.header.tostring()).encode("ascii")


def _write_votable(sink: HashingFile, table: SourceTable, names: Names, columns: list[FixedColumn]) -> int:
    kinds = {c.field.name: (c.votable, str(c.count) if c.count > 1 or c.fits == "A" else "") for c in columns}
    schema = pa.schema([column.field for column in columns])
    header = votable_header(schema, table.name, DESCRIPTIONS.get(table.name, ""), kinds)
    before, after = header.split(b"</TABLE>")
    sink.write(before + b'<DATA><BINARY2><STREAM encoding="base64">\n')
    rows, left = 0, b""
    for piece in _renamed(table, names):
        data = left + pack(piece, columns, masked=True, where=table.name).tobytes()
        whole = len(data) // 3 * 3
        sink.write(base64.b64encode(data[:whole]) + b"\n")
        left = data[whole:]
        rows += piece.num_rows
    sink.write(base64.b64encode(left) + b"\n</STREAM></BINARY2></DATA></TABLE>" + after)
    return rows
