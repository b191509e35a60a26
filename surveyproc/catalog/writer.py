"""Write cutout catalogs in bounded memory; a reader sees a whole one or none."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from surveyproc.catalog.pixels import image_field, pixels_to_array
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError, ResourceError
from surveyproc.storage import sync_folder

ROW_GROUP_BYTES = 16 << 20
ENCODED_ROW_GROUP_BYTES = 8 << 20
DECODED_GROUP_BYTES = 128 << 20
FILE_BYTES = 512 << 20
_ENCODINGS = {"ra": "BYTE_STREAM_SPLIT", "dec": "BYTE_STREAM_SPLIT", "_healpix_29": "DELTA_BINARY_PACKED"}


class CatalogWriter:
    """Stream rows into a new cutout catalog ``<output>/dataset/part-*.parquet``.

    Rows go to a hidden sibling folder that is renamed to ``output`` by `close`. Leaving the ``with``
    block by an exception removes that folder, so an interrupted write leaves no catalog.

    Parameters
    ----------
    output : str or Path
        Folder to create; it may exist when it is empty. Local.
    spec : ImageSpec
        What the pixels are.
    columns : pyarrow.Schema
        The other columns, ``object_id`` among them (int64 or string).
    row_group_bytes : int, optional
        Bytes of pixels per row group, which is what a run is cut into: 16 MiB when raw; 8 MiB when
        encoded, and not more than 128 MiB once decoded.
    file_bytes : int
        A new file begins when one has this many bytes.
    compression : str
        Of raw pixels, ``zstd`` (level 1) or ``none``; encoded images are never compressed again.

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
        compression: str = "zstd",
    ) -> None:
        if "object_id" not in columns.names or "image" in columns.names:
            raise ValueError("columns are those beside image, with object_id among them")
        self.spec = spec
        self.schema = pa.schema([*columns, image_field(spec)])
        self.rows = 0
        self.bytes = 0
        raw = spec.encoding == "raw"
        row_group_bytes = row_group_bytes or (ROW_GROUP_BYTES if raw else ENCODED_ROW_GROUP_BYTES)
        self._group_bytes = row_group_bytes
        self._group_rows = max(1, (row_group_bytes if raw else DECODED_GROUP_BYTES) // spec.nbytes)
        self._file_bytes = file_bytes
        self._compression = dict.fromkeys(columns.names, "zstd") | {"image": compression if raw else "none"}
        self._pending: list[pa.Table] = []
        self._pending_rows = self._pending_bytes = 0
        self._files = 0
        self._open: tuple[BinaryIO, pq.ParquetWriter] | None = None
        self.output = require_writable_output(output)
        self.folder = self.output.with_name(f".{self.output.name}.partial-{secrets.token_hex(4)}")
        with explain_os_errors(self.folder):
            (self.folder / "dataset").mkdir(parents=True)

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
        with explain_os_errors(self.folder):
            self._flush()
            self._end_file()
            sync_folder(self.folder / "dataset")
            sync_folder(self.folder)
        require_writable_output(self.output)
        with explain_os_errors(self.output):
            os.rename(self.folder, self.output)
            sync_folder(self.output.parent)

    def abort(self) -> None:
        """Remove what was written; the output is as before."""
        if self._open is not None:
            sink, parquet = self._open
            with contextlib.suppress(OSError, pa.ArrowException):
                parquet.close()
            sink.close()
        shutil.rmtree(self.folder, ignore_errors=True)

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
        with explain_os_errors(self.folder):
            if self._open is None:
                self._open = self._begin_file(table.num_rows)
            sink, parquet = self._open
            parquet.write_table(table, row_group_size=table.num_rows)
            self.rows += table.num_rows
            if sink.tell() >= self._file_bytes:
                self._end_file()

    def _begin_file(self, group_rows: int) -> tuple[BinaryIO, pq.ParquetWriter]:
        path = self.folder / "dataset" / f"part-{self._files:05d}.parquet"
        sink = path.open("xb")
        others = [name for name in self.schema.names if name != "image"]
        parquet = pq.ParquetWriter(
            sink,
            self.schema,
            compression=self._compression,
            compression_level={n: 1 for n, codec in self._compression.items() if codec == "zstd"},
            use_dictionary=False,
            column_encoding={n: e for n, e in _ENCODINGS.items() if n in self.schema.names} or None,
            write_statistics=others,
            bloom_filter_options={"object_id": {"ndv": group_rows, "fpp": 0.01}},
        )
        self._files += 1
        return sink, parquet

    def _end_file(self) -> None:
        if self._open is None:
            return
        sink, parquet = self._open
        parquet.close()
        sink.flush()
        os.fsync(sink.fileno())
        self.bytes += sink.tell()
        sink.close()
        self._open = None


def require_writable_output(output: str | Path) -> Path:
    """Check that a new catalog can be made at a path.

    Returns
    -------
    Path
        The absolute path.

    Raises
    ------
    InputError
        When something is there, the parent cannot be written, or the path is not local.
    """
    filesystem, stripped = fsspec.core.url_to_fs(str(output))
    if not isinstance(filesystem, LocalFileSystem):
        raise InputError(
            "catalogs are written to local folders only",
            where=str(output),
            fix="write it locally, then copy the folder; runs read catalogs from any store",
        )
    path = Path(stripped)
    if path.is_dir() and any(path.iterdir()):
        holds = (
            "a catalog is there already"
            if (path / "dataset").is_dir()
            else "the output folder holds something else"
        )
        raise InputError(holds, where=str(path), fix="give another --output, or remove that folder yourself")
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
    return path


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into `ResourceError` and other operating system errors into `InputError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                "the disk is full",
                where=str(path),
                fix="free space or give an --output on another disk; start again",
            ) from error
        raise InputError(
            f"the output cannot be written: {error.strerror or error}",
            where=str(path),
            fix="give another --output, or permission to write there",
        ) from error
