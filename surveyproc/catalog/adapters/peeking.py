"""The first rows of a catalog, to see what its columns hold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.adapters.hdf5 import is_hdf5, read_hdf5_batches
from surveyproc.catalog.storage import Location
from surveyproc.errors import InputError
from surveyproc.stores import explain_store_errors, is_local

ROWS = 32
_BUFFER = 256 << 10


def peek_at(location: Location, file: str) -> Callable[[tuple[str, ...]], pa.RecordBatch]:
    """Return a function that reads some columns of a file's first rows, by their Parquet paths.

    Pages are fetched as far as they are needed: a row group of cutouts may be hundreds of megabytes.
    """
    path = location.path(file)

    def peek(columns: tuple[str, ...]) -> pa.RecordBatch:
        try:
            if is_hdf5(file):
                found = next(read_hdf5_batches(location.filesystem, path, None, ROWS, columns), None)
            else:
                found = _first_batch(location, path, columns)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"a catalog file cannot be read: {str(error).splitlines()[0]}",
                where=path,
                fix="write the file again",
            ) from error
        if found is None:
            raise InputError(
                "the catalog has no rows", where=path, fix="check the step that wrote it; nothing to do here"
            )
        return found

    return peek


def _first_batch(location: Location, path: str, columns: tuple[str, ...]) -> pa.RecordBatch | None:
    local = is_local(location.filesystem)
    with (
        nullcontext() if local else explain_store_errors(path),
        location.filesystem.open(path, "rb") as raw,
        pq.ParquetFile(raw, pre_buffer=False, buffer_size=_BUFFER) as file,
    ):
        return next(file.iter_batches(ROWS, columns=list(columns), use_threads=False), None)
