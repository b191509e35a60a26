"""Stream record batches out of one file of a catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.adapters.hdf5 import is_hdf5, read_hdf5_batches, read_hdf5_footer
from surveyproc.catalog.catalog import HEALPIX_COLUMN, id_type_of, open_catalog
from surveyproc.catalog.form import Form
from surveyproc.catalog.ranges import (
    RangeFile,
    StoreObject,
    changed,
    column_ranges,
    gone,
    read_footer,
)
from surveyproc.catalog.sky import healpix29
from surveyproc.catalog.storage import Location, locate_file, stat
from surveyproc.cutouts import METADATA_KEY
from surveyproc.errors import InputError, did_you_mean
from surveyproc.stores import explain_store_errors, is_local

_WHOLE_CHUNK_LIMIT = 64 << 20
_STREAM_BUFFER = 4 << 20


def read_batches(
    catalog_uri: str,
    file: str,
    row_groups: Iterable[int],
    batch_rows: int,
    columns: Sequence[str],
    *,
    expect: tuple[int, str] | None = None,
    form: Form | None = None,
) -> Iterator[pa.RecordBatch]:
    """Stream some row groups of one file, single-threaded and in bounded memory.

    Parameters
    ----------
    catalog_uri : str
        The URI given to `open_catalog`.
    file : str
        ``CatalogFile.path``.
    row_groups : iterable of int
        Which row groups, in which order.
    batch_rows : int
        Rows of every batch but the last, which may be shorter; batches run across row groups.
    columns : sequence of str
        Columns to read, in this order. When ``ra`` and ``dec`` are among them, ``_healpix_29`` (int64,
        null where the position is unusable) comes last, from the file or computed.
    expect : (int, str), optional
        ``size, version`` the file must still have, before and after.
    form : Form, optional
        ``Catalog.form``. Without it the catalog is opened again where its pixels have a foreign form.

    Yields
    ------
    pyarrow.RecordBatch
        ``object_id`` as int64 or string, ``ra`` and ``dec`` as float64, ``image`` in the standard form (bytes),
        the rest as stored.

    Raises
    ------
    InputError
        When the file changed, vanished or is damaged, or lacks a column.
    """
    filesystem, path = locate_file(catalog_uri, file)
    read = _read_hdf5 if is_hdf5(file) else _read_parquet
    choices: list[Choice] = []

    def paths(schema: pa.Schema) -> list[str]:
        found = form or _own_form(schema, columns, catalog_uri)
        choices.append(_choose(found.schema(schema).names, columns, path, found))
        return found.paths(choices[0].columns)

    try:
        if is_local(filesystem) or is_hdf5(file):  # elsewhere each request says which version it wants
            _require_unchanged(filesystem, path, expect)
        batches = read(filesystem, path, list(row_groups), batch_rows, paths, expect)
        for batch in rechunk(batches, batch_rows):
            yield _normalise(batch, choices[0], path)
        _require_unchanged(filesystem, path, expect)
    except (OSError, pa.ArrowException) as error:
        _require_unchanged(filesystem, path, expect)
        raise InputError(
            f"a catalog file cannot be read: {str(error).splitlines()[0]}",
            where=path,
            fix="write the file again; what was committed from other files is kept",
        ) from error


@dataclass(frozen=True)
class Choice:
    """Standard columns that are read, in order, and whether the index on the sky is computed beside them."""

    columns: list[str]
    computes_healpix: bool
    form: Form


Paths = Callable[[pa.Schema], list[str]]


def _own_form(schema: pa.Schema, columns: Sequence[str], catalog_uri: str) -> Form:
    """Form of a file by itself, where nobody said it."""
    foreign = "image" in columns and (
        "image" not in schema.names or METADATA_KEY not in (schema.field("image").metadata or {})
    )
    return open_catalog(catalog_uri).form if foreign else Form()


def _read_parquet(
    filesystem: Any,
    path: str,
    groups: list[int],
    batch_rows: int,
    paths: Paths,
    expect: tuple[int, str] | None,
) -> Iterator[pa.RecordBatch]:
    source = None if is_local(filesystem) else StoreObject(filesystem, path, expect)
    metadata = read_footer(source) if source else pq.read_metadata(path)
    wanted = paths(metadata.schema.to_arrow_schema())
    with _opened(source or path, metadata, groups, wanted) as parquet:
        yield from parquet.iter_batches(batch_rows, row_groups=groups, columns=wanted, use_threads=False)


@contextmanager
def _opened(
    source: StoreObject | str, metadata: pq.FileMetaData, groups: list[int], columns: list[str]
) -> Iterator[pq.ParquetFile]:
    if isinstance(source, str):
        size = _STREAM_BUFFER if _large_chunks(metadata, groups) else 0
        with pq.ParquetFile(source, metadata=metadata, pre_buffer=False, buffer_size=size) as parquet:
            yield parquet
        return
    ranges = [column_ranges(metadata, group, columns) for group in groups]
    with (
        RangeFile(source.fetch, source.size, ranges) as file,
        pq.ParquetFile(file, metadata=metadata, pre_buffer=False) as parquet,
    ):
        yield parquet


def _read_hdf5(
    filesystem: Any,
    path: str,
    groups: list[int],
    batch_rows: int,
    paths: Paths,
    expect: tuple[int, str] | None,
) -> Iterator[pa.RecordBatch]:
    folder, _, name = path.rpartition("/")
    wanted = paths(read_hdf5_footer(Location(filesystem, folder), name)[1])
    return read_hdf5_batches(filesystem, path, groups, batch_rows, wanted)


def rechunk(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Cut a stream of batches into batches of exactly ``rows`` rows; the last one may be shorter.

    Nothing is copied where a batch of the stream already has the wanted rows.
    """
    pending: list[pa.RecordBatch] = []
    missing = rows
    for batch in batches:
        while batch.num_rows:
            piece, batch = batch.slice(0, missing), batch.slice(missing)
            pending.append(piece)
            missing -= piece.num_rows
            if missing == 0:
                yield _joined(pending)
                pending, missing = [], rows
    if pending:
        yield _joined(pending)


def _joined(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)


def _choose(present: list[str], columns: Sequence[str], path: str, form: Form) -> Choice:
    wanted = [c for c in columns if c != HEALPIX_COLUMN]
    for name in wanted:
        if name not in present:
            raise InputError(
                f"no column {name!r} in the catalog.{did_you_mean(name, present)}",
                where=f"{path}; columns: {', '.join(present[:20])}",
                fix="choose a column of the catalog",
            )
    positions = {"ra", "dec"} <= set(wanted)
    if HEALPIX_COLUMN in present and (positions or HEALPIX_COLUMN in columns):
        return Choice([*wanted, HEALPIX_COLUMN], False, form)
    return Choice(wanted, positions, form)


def _large_chunks(metadata: pq.FileMetaData, groups: list[int]) -> bool:
    """Whether a column chunk is too large to be held whole; then pyarrow streams it."""
    return any(
        metadata.row_group(g).column(c).total_compressed_size > _WHOLE_CHUNK_LIMIT
        for g in groups
        for c in range(metadata.num_columns)
    )


def _normalise(batch: pa.RecordBatch, choice: Choice, path: str) -> pa.RecordBatch:
    columns = {name: choice.form.column(name, batch) for name in choice.columns}
    try:
        if "object_id" in columns:
            wanted = id_type_of(columns["object_id"].type)
            if wanted is None:
                raise InputError(f"column 'object_id' is {columns['object_id'].type}", where=path)
            columns["object_id"] = columns["object_id"].cast(wanted)
        for name in ("ra", "dec"):
            if name in columns:
                columns[name] = columns[name].cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise InputError(
            f"a value does not fit: {error}",
            where=path,
            fix="ids are int64 or text, ra and dec are numbers in degrees",
        ) from error
    if choice.computes_healpix:
        ra, dec = (_float_with_nan(columns[name]) for name in ("ra", "dec"))
        pixels = healpix29(ra, dec)
        columns[HEALPIX_COLUMN] = pa.array(pixels.data, pa.int64(), mask=np.ma.getmaskarray(pixels))
    return pa.record_batch(columns)


def _float_with_nan(column: pa.Array) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)


def _require_unchanged(filesystem: Any, path: str, expect: tuple[int, str] | None) -> None:
    try:
        with explain_store_errors(path):
            found = stat(filesystem, path)
    except FileNotFoundError as error:
        raise gone(path) from error
    if expect is not None and found != tuple(expect):
        raise changed(path, expect, found[0])
