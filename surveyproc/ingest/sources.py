"""Read the table of sources that tiles are cut at: chunk by chunk, every row accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from surveyproc.catalog.catalog import id_type_of
from surveyproc.catalog.sky import healpix29, usable_positions
from surveyproc.errors import InputError, UsageError
from surveyproc.ingest.table import (
    RESERVED,
    all_integers,
    degrees,
    fits_columns,
    open_fits_table,
    open_votable,
    refuse_floats,
    require_columns,
    trimmed,
)
from surveyproc.stores import local_copy

CHUNK_ROWS = 2**20
CSV_BLOCK = 32 * 2**20
OURS = {*RESERVED, "quality", "x0", "y0", "cd11", "cd12", "cd21", "cd22", "pixel_scale_arcsec"}
OURS |= {"psf_fwhm_arcsec", "weight", "mask", "tile"}
PRINTED = (r"^b'(.*)'$", r'^b"(.*)"$')
VOTABLE = (".vot", ".votable", ".xml", ".vot.gz")
_SUFFIXES = ".csv, .tsv, .parquet, .fits or .vot"


@dataclass(frozen=True)
class SourceColumns:
    """Names of the user's columns; ``extra`` are read along."""

    object_id: str = "object_id"
    ra: str = "ra"
    dec: str = "dec"
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.extra:
            if name in OURS:
                raise UsageError(
                    f"column {name!r} cannot be carried: the catalog has its own",
                    fix="rename it in the table",
                )

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([self.object_id, self.ra, self.dec, *self.extra]))


@dataclass
class Chunk:
    """Consecutive rows of the table, in its order.

    Attributes
    ----------
    number : int
    rows : pyarrow.Table
        ``object_id`` (null where there is none), ``ra``, ``dec`` (null where not finite), then the extra columns.
    printed : int
        Ids that were printed bytes (``b'...'``), which they are no more.
    malformed : list of str
        Rows of a CSV file with a wrong number of fields; they come with the last chunk.
    """

    number: int
    rows: pa.Table
    printed: int = 0
    malformed: list[str] = field(default_factory=list)


class SourceTable:
    """A table of sources whose columns and kind of ids are known; see `open_sources`.

    Attributes
    ----------
    id_type : pyarrow.DataType
        int64 or string.
    schema : pyarrow.Schema
        Of the chunks.
    rows : int
        As far as they are known before they are read: those of the file.
    """

    def __init__(self, path: Path, columns: SourceColumns, label: str) -> None:
        self._path, self._columns, self._label = path, columns, label
        self._malformed: list[str] = []
        self.rows = 0
        with self._explained():
            self.id_type = self._find_id_type()
            first = next(iter(self._read(columns.names)), None)
            if first is None or first.num_rows == 0:
                raise InputError("the table has no rows", where=label, fix="check --sources")
        self.schema = self._columns_of(pa.table(first), 0).schema

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Read the table in chunks of exactly ``rows`` rows, the last one shorter."""
        self._malformed = []
        number = 0
        with self._explained():
            for table in rechunked(self._read(self._columns.names), rows):
                yield self._chunk(number, table)
                number += 1
        if self._malformed:
            yield Chunk(number, self.schema.empty_table(), 0, self._malformed)

    def _chunk(self, number: int, table: pa.Table) -> Chunk:
        printed = 0
        if not pa.types.is_integer(id_type_of(table[self._columns.object_id].type) or pa.string()):
            text = _as_text(table[self._columns.object_id])
            printed = sum(pc.sum(pc.match_substring_regex(text, p)).as_py() or 0 for p in PRINTED)
        return Chunk(number, self._columns_of(table, number), printed)

    def _columns_of(self, table: pa.Table, number: int) -> pa.Table:
        names = self._columns
        where = f"{self._label}, column"
        ids = table[names.object_id].combine_chunks()
        columns = {"object_id": _normalised(ids, self.id_type, f"{where} {names.object_id!r}")}
        for name, source in (("ra", names.ra), ("dec", names.dec)):
            columns[name] = degrees(table[source].combine_chunks(), f"{where} {source!r}")
        columns |= {name: table[name] for name in names.extra}
        made = pa.table(columns)
        return made if number == 0 else made.cast(self.schema)

    def _find_id_type(self) -> pa.DataType:
        name = self._columns.object_id
        where = f"{self._label}, column {name!r}"
        integers = True
        for table in self._read([name]):
            column = table[name] if isinstance(table, pa.Table) else pa.chunked_array([table[name]])
            self.rows += len(column)
            if pa.types.is_floating(column.type):
                raise InputError(
                    "ids are floating point numbers, which lose digits beyond 2^53",
                    where=where,
                    fix="write the column as integers or text",
                )
            if pa.types.is_integer(column.type):
                continue
            text = _unprinted(_as_text(column, where))
            refuse_floats(text, where)
            integers = integers and all_integers(text) and _fits(text)
        return pa.int64() if integers else pa.string()

    def _read(self, names: list[str]) -> Iterator[Any]:
        lower = self._path.name.lower()
        if lower.endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz")):
            return self._read_csv(names)
        if lower.endswith((".parquet", ".pq", ".parq")):
            return self._read_parquet(names)
        if lower.endswith((".fits", ".fit", ".fits.gz")):
            return self._read_fits(names)
        if lower.endswith(VOTABLE):
            return self._read_votable(names)
        raise InputError(
            f"what kind of table is this? {_SUFFIXES} is read", where=self._label, fix="convert it"
        )

    def _read_csv(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        self._malformed = []

        def keep(row: pacsv.InvalidRow) -> str:
            self._malformed.append(row.text)
            return "skip"

        delimiter = "\t" if ".tsv" in self._path.name.lower() else ","
        read = pacsv.ReadOptions(use_threads=False, block_size=CSV_BLOCK)
        parse = pacsv.ParseOptions(delimiter=delimiter, invalid_row_handler=keep)
        with pacsv.open_csv(self._path, read, parse) as reader:
            require_columns(reader.schema.names, names, self._path)
        self._malformed.clear()
        columns = self._columns
        kinds = {columns.object_id: pa.string(), columns.ra: pa.float64(), columns.dec: pa.float64()}
        convert = pacsv.ConvertOptions(
            include_columns=names,
            column_types=kinds,
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        )
        with pacsv.open_csv(self._path, read, parse, convert) as reader:
            yield from reader

    def _read_parquet(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self._path) as file:
            require_columns(file.schema_arrow.names, names, self._path)
            yield from file.iter_batches(65_536, columns=names, use_threads=False)

    def _read_fits(self, names: list[str]) -> Iterator[pa.Table]:
        table = open_fits_table(self._path)
        require_columns(table.colnames, names, self._path)
        for start in range(0, len(table), CHUNK_ROWS):
            yield fits_columns(table[names][start : start + CHUNK_ROWS], names, self._path)

    def _read_votable(self, names: list[str]) -> Iterator[pa.Table]:
        table = open_votable(self._path)
        require_columns(table.colnames, names, self._path)
        yield fits_columns(table, names, self._path)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"the table cannot be read: {str(error).splitlines()[0]}",
                where=self._label,
                fix=f"a table is {_SUFFIXES}; ra and dec are decimal degrees",
            ) from error


@contextmanager
def open_sources(uri: str, columns: SourceColumns) -> Iterator[SourceTable]:
    """Open a CSV, TSV, Parquet, FITS or VOTable table, on a disk or in a store.

    Ids are exact: integers of up to 64 bits become int64, anything else stays text. Ids that were printed as
    bytes (``b'0421p022'``) are taken for what was meant, and counted.

    Raises
    ------
    InputError
        The table or a column is missing, empty or of the wrong kind.
    """
    with local_copy(uri) as path:
        if not path.is_file():
            raise InputError("the table of sources is not there", where=uri, fix="check --sources")
        yield SourceTable(path, columns, uri)


def positioned(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Say which rows have a position on the sky, and their indices at HEALPix order 29 (0 elsewhere)."""
    ra, dec = (rows[name].to_numpy() for name in ("ra", "dec"))
    good = usable_positions(ra, dec)
    return good, np.ma.filled(healpix29(ra, dec), 0)


def rechunked(tables: Iterable[Any], rows: int) -> Iterator[pa.Table]:
    """Cut a stream of tables or batches into tables of exactly ``rows`` rows; the last may be shorter."""
    pending: list[pa.Table] = []
    held = 0
    for piece in tables:
        table = pa.Table.from_batches([piece]) if isinstance(piece, pa.RecordBatch) else piece
        while table.num_rows:
            part = table.slice(0, rows - held)
            pending.append(part)
            held += part.num_rows
            table = table.slice(part.num_rows)
            if held == rows:
                yield pa.concat_tables(pending)
                pending, held = [], 0
    if pending:
        yield pa.concat_tables(pending)


def _as_text(column: pa.ChunkedArray, where: str = "") -> pa.Array:
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or id_type_of(kind) == pa.string():
        return trimmed(array)
    raise InputError(f"ids of type {kind} are not supported", where=where, fix="write integers or text")


def _unprinted(text: pa.Array) -> pa.Array:
    for pattern in PRINTED:
        text = pc.replace_substring_regex(text, pattern, r"\1")
    return trimmed(text)


def _fits(text: pa.Array) -> bool:
    try:
        text.cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    return True


def _normalised(ids: pa.Array, kind: pa.DataType, where: str) -> pa.Array:
    if pa.types.is_integer(ids.type):
        try:
            return ids.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise InputError(
                f"an id does not fit 64 bits with sign: {error}", where=where, fix="write the ids as text"
            ) from error
    return _unprinted(_as_text(pa.chunked_array([ids]), where)).cast(kind)
