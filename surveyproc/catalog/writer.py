"""Write cutout catalogs in bounded memory; a reader sees a whole one or none."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from surveyproc.catalog.pixels import image_field, pixels_to_array
from surveyproc.catalog.storage import UNFINISHED
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError, SurveyprocError
from surveyproc.hashing import HashingFile
from surveyproc.storage import Storage, explain_write_errors, sync_folder
from surveyproc.voparquet import with_votable

ROW_GROUP_BYTES = 16 << 20
ENCODED_ROW_GROUP_BYTES = 8 << 20
DECODED_GROUP_BYTES = 128 << 20
FILE_BYTES = 512 << 20
PAGE_BYTES = 2 << 20
SAMPLE_ROWS, SAMPLE_BYTES, WORTH = 32, 1 << 20, 0.85
_ENCODINGS = {"ra": "BYTE_STREAM_SPLIT", "dec": "BYTE_STREAM_SPLIT", "_healpix_29": "DELTA_BINARY_PACKED"}


class CatalogWriter:
    """Stream rows into a new cutout catalog ``<output>/dataset/part-*.parquet``.

    On a disk rows go to a hidden sibling folder that is renamed to ``output`` by `close`. In a store, which
    cannot rename, they go to ``output`` itself beside a marker, ``_unfinished``, that `close` removes last;
    readers refuse a catalog that has it. Leaving the ``with`` block by an exception removes what was written.

    Parameters
    ----------
    output : str or Path
        Folder or URL to create; it may exist when it is empty.
    spec : ImageSpec
        What the pixels are.
    columns : pyarrow.Schema
        The other columns, ``object_id`` among them (int64 or string).
    row_group_bytes : int, optional
        Bytes of pixels per row group, which is what a run is cut into: 16 MiB when raw; 8 MiB when
        encoded, and not more than 128 MiB once decoded.
    file_bytes : int
        A new file begins when one has this many bytes.

    Raises
    ------
    InputError
        When ``output`` holds something or cannot be written.

    Examples
    --------
    >>> with CatalogWriter("a.cat", spec, pa.schema([("object_id", pa.int64())])) as writer:  # doctest: +SKIP
    ...     writer.write_pixels(pixels, {"object_id": ids})
    """

    def __init__(
        self,
        output: str | Path,
        spec: ImageSpec,
        columns: pa.Schema,
        *,
        row_group_bytes: int | None = None,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        if "object_id" not in columns.names or "image" in columns.names:
            raise ValueError("columns are those beside image, with object_id among them")
        self.spec = spec
        self.schema = with_votable(
            pa.schema([*columns, image_field(spec)]), "cutouts", "one cutout of each object"
        )
        self.rows = 0
        self.bytes = 0
        raw = spec.encoding == "raw"
        row_group_bytes = row_group_bytes or (ROW_GROUP_BYTES if raw else ENCODED_ROW_GROUP_BYTES)
        self._group_bytes = row_group_bytes
        self._group_rows = max(1, (row_group_bytes if raw else DECODED_GROUP_BYTES) // spec.nbytes)
        self._file_bytes = file_bytes
        self._pending: list[pa.Table] = []
        self._pending_rows = self._pending_bytes = 0
        self._files = 0
        self._open: tuple[ExitStack, HashingFile, pq.ParquetWriter] | None = None
        self.output = require_writable_output(output)
        if self.output.is_local:
            path = Path(self.output.root)
            hidden = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
            with explain_write_errors(str(path)):
                (hidden / "dataset").mkdir(parents=True)
            self.folder = Storage(hidden)
        else:
            self.folder = self.output
            if not self.output.create(UNFINISHED, secrets.token_bytes(8)):
                raise _occupied(self.output)

    def write(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Append rows with all columns, ``image`` included.

        Raises
        ------
        ResourceError
            When the disk is full.
        """
        if isinstance(rows, pa.RecordBatch):
            rows = pa.Table.from_batches([rows])
        rows = rows.select(self.schema.names).cast(self.schema)
        while rows.num_rows:
            take, encoded_bytes = self._fitting(rows["image"])
            self._pending.append(rows.slice(0, take))
            self._pending_rows += take
            self._pending_bytes += encoded_bytes
            rows = rows.slice(take)
            if self._pending_rows >= self._group_rows or self._pending_bytes >= self._group_bytes:
                self._flush()

    def write_pixels(self, pixels: np.ndarray, columns: dict[str, pa.Array | np.ndarray]) -> None:
        """Append raw cutouts ``(N, H, W, C)`` with their other columns."""
        arrays = {
            name: pa.array(columns[name], self.schema.field(name).type)
            for name in self.schema.names
            if name != "image"
        }
        self.write(pa.table(arrays | {"image": pixels_to_array(pixels, self.spec)}))

    def close(self) -> None:
        """Finish the files and give the catalog its name.

        Raises
        ------
        InputError
            When ``output`` appeared meanwhile.
        """
        self._flush()
        self._end_file()
        if not self.output.is_local:
            self.output.delete([UNFINISHED])
            return
        with explain_write_errors(self.folder.root):
            for name in ("dataset", ""):
                sync_folder(Path(self.folder.path(name)))
        require_writable_output(self.output.uri)
        with explain_write_errors(self.output.root):
            os.rename(self.folder.root, self.output.root)
            sync_folder(Path(self.output.root).parent)

    def abort(self) -> None:
        """Remove what was written; the output is as before."""
        if self._open is not None:
            stack, _, parquet = self._open
            with suppress(Exception):
                parquet.close()
            with suppress(_Aborted, Exception):
                stack.__exit__(_Aborted, _Aborted(), None)
        with suppress(SurveyprocError):
            self.folder.delete_folder("")

    def __enter__(self) -> CatalogWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise

    def _fitting(self, images: pa.ChunkedArray) -> tuple[int, int]:
        """Rows from the front that complete the row group at most, and the bytes of encoded ones."""
        rows = min(len(images), self._group_rows - self._pending_rows)
        if self.spec.encoding == "raw":
            return rows, 0
        ends = np.cumsum(pc.fill_null(pc.binary_length(images.slice(0, rows)), 0).to_numpy())
        rows = min(rows, int(np.searchsorted(ends, self._group_bytes - self._pending_bytes)) + 1)
        return rows, int(ends[rows - 1])

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.concat_tables(self._pending).combine_chunks()
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        if self._open is None:
            self._open = self._begin_file(table)
        _, sink, parquet = self._open
        with explain_write_errors(self.folder.root):
            parquet.write_table(table, row_group_size=table.num_rows)
        self.rows += table.num_rows
        if sink.tell() >= self._file_bytes:
            self._end_file()

    def _begin_file(self, first: pa.Table) -> tuple[ExitStack, HashingFile, pq.ParquetWriter]:
        stack = ExitStack()
        sink = stack.enter_context(self.folder.writing(f"dataset/part-{self._files:05d}.parquet"))
        settings = cutout_parquet(self.schema, first.num_rows, first["image"])
        parquet = pq.ParquetWriter(pa.PythonFile(sink, "w"), self.schema, **settings)
        self._files += 1
        return stack, sink, parquet

    def _end_file(self) -> None:
        if self._open is None:
            return
        stack, sink, parquet = self._open
        with explain_write_errors(self.folder.root):
            parquet.close()
        self._open = None
        self.bytes += sink.tell()
        stack.close()


def cutout_parquet(schema: pa.Schema, group_rows: int, images: pa.ChunkedArray) -> dict[str, Any]:
    """Writer settings of cutout catalogs: zstd-1, no dictionary, no statistics of pixels, ids that can be looked up.

    Parameters
    ----------
    schema : pyarrow.Schema
    group_rows : int
        Rows of a row group.
    images : pyarrow.ChunkedArray
        The first images that will be written, by which `pixel_codec` chooses.
    """
    codecs = dict.fromkeys(schema.names, "zstd") | {"image": pixel_codec(images)}
    return {
        "compression": codecs,
        "compression_level": {name: 1 for name, codec in codecs.items() if codec == "zstd"},
        "use_dictionary": False,
        "write_batch_size": max(1, PAGE_BYTES * len(images) // max(1, images.nbytes)),
        "column_encoding": {n: e for n, e in _ENCODINGS.items() if n in schema.names} or None,
        "write_statistics": [
            f.name for f in schema if not pa.types.is_fixed_size_binary(f.type) and f.name != "image"
        ],
        "bloom_filter_options": {"object_id": {"ndv": group_rows, "fpp": 0.01}},
    }


def pixel_codec(images: pa.ChunkedArray) -> str:
    """Choose how images are compressed: raw ones with ``zstd`` (level 1) where that saves 15 %, else ``none``.

    Flux in float32 shrinks by some ten percent; writing and reading it take four times as long then. The answer
    follows from the rows alone: a sample of them, spread evenly, is compressed.
    """
    if not pa.types.is_fixed_size_binary(images.type):
        return "none"
    rows = range(0, len(images), -(-max(1, len(images)) // SAMPLE_ROWS))
    sample = b"".join(images[n].as_buffer()[: SAMPLE_BYTES // len(rows)] for n in rows)
    return "zstd" if len(pa.Codec("zstd", 1).compress(sample)) <= WORTH * len(sample) else "none"


def require_writable_output(output: str | os.PathLike[str]) -> Storage:
    """Check that a new catalog can be made at a path or URL.

    Raises
    ------
    InputError
        When something is there, or the parent folder cannot be written.
    """
    storage = Storage(output)
    if not storage.is_local:
        if storage.names():
            raise _occupied(storage)
        return storage
    path = Path(storage.root)
    if path.is_dir() and any(path.iterdir()):
        raise _occupied(storage)
    if path.exists() and not path.is_dir():
        raise InputError("the output is a file", where=str(path), fix="give another --output")
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(
            "the output cannot be written",
            where=str(parent),
            fix="give another --output, or permission to write there",
        )
    return storage


def _occupied(storage: Storage) -> InputError:
    names = storage.names()
    if UNFINISHED in names:
        holds = "a catalog is being written there, or its writer was killed"
    elif "dataset" in names:
        holds = "a catalog is there already"
    else:
        holds = "the output folder holds something else"
    return InputError(holds, where=storage.uri, fix="give another --output, or remove that folder yourself")


class _Aborted(Exception):
    """Told to an open file, so that it is dropped instead of finished."""
