"""Read a Parquet file of a store by the byte ranges that are wanted, pinned to one version of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow.parquet as pq

from surveyproc.catalog.storage import version_of
from surveyproc.errors import InputError
from surveyproc.stores import explain_store_errors

TAIL = 64 * 2**10
JOIN_GAP = 2**20
SPLIT = 8 * 2**20
THREADS = 4

Range = tuple[int, int]


class StoreObject:
    """One version of an object in a store.

    On S3 every read says ``If-Match`` with the ETag, so that a byte of another version is never returned.

    Parameters
    ----------
    filesystem : fsspec.AbstractFileSystem
    path : str
    expect : (int, str), optional
        Size and version it must have.

    Raises
    ------
    InputError
        When it is gone or has another version.
    """

    def __init__(self, filesystem: Any, path: str, expect: tuple[int, str] | None = None) -> None:
        self.path = path
        self._filesystem = filesystem
        with explain_store_errors(path):
            try:
                self._handle = filesystem.open(path, "rb", cache_type="none")
                info = filesystem.info(path) if not hasattr(self._handle, "details") else self._handle.details
            except FileNotFoundError as error:
                raise gone(path) from error
        self.size, self.version = int(info["size"]), version_of(info)
        if expect is not None and (self.size, self.version) != tuple(expect):
            raise changed(path, expect, self.size)

    def fetch(self, start: int, stop: int) -> bytes:
        """Read bytes ``[start, stop)``; may be called from several threads."""
        with explain_store_errors(self.path):
            try:
                if hasattr(self._handle, "_fetch_range"):
                    data = self._handle._fetch_range(start, stop)
                else:
                    data = self._filesystem.cat_file(self.path, start=start, end=stop)
            except Exception as error:
                if type(error).__name__ == "FileExpired":
                    raise changed(self.path, (self.size, self.version), None) from error
                if isinstance(error, FileNotFoundError):
                    raise gone(self.path) from error
                raise
        if len(data) != stop - start:
            raise OSError(f"{len(data)} bytes came where {stop - start} were asked for")
        return data


class RangeFile(io.RawIOBase):
    """A file that is fetched group by group, the next one while the last one is being read.

    Parameters
    ----------
    fetch : callable
        ``fetch(start, stop)`` returns these bytes; called from threads.
    size : int
        Bytes of the file.
    groups : sequence of sequences of (int, int)
        Byte ranges in the order in which they will be read; two groups are held at once.
        What is read outside of them is fetched alone.
    """

    def __init__(
        self, fetch: Callable[[int, int], bytes], size: int, groups: Sequence[Sequence[Range]]
    ) -> None:
        self._fetch, self._size, self._position = fetch, size, 0
        self._groups = [list(joined(group)) for group in groups]
        self._pool = ThreadPoolExecutor(THREADS)
        self._held: dict[int, list[tuple[Range, list[Future[bytes]]]]] = {}

    def read(self, size: int | None = -1) -> bytes:
        """Read from the current position."""
        stop = self._size if size is None or size < 0 else min(self._size, self._position + size)
        start, self._position = self._position, max(self._position, stop)
        return self._bytes(start, stop) if stop > start else b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Position."""
        return self._position

    def readable(self) -> bool:
        """Readable."""
        return True

    def seekable(self) -> bool:
        """Seekable."""
        return True

    def close(self) -> None:
        """Forget what was fetched, and what is under way."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._held.clear()
        super().close()

    def _bytes(self, start: int, stop: int) -> bytes:
        for number, group in enumerate(self._groups):
            for position, (low, high) in enumerate(group):
                if low <= start and stop <= high:
                    self._turn_to(number)
                    _, pieces = self._held[number][position]
                    return self._cut(pieces, low, start, stop)
        return self._fetch(start, stop)

    def _turn_to(self, number: int) -> None:
        for other in [n for n in self._held if n < number]:
            del self._held[other]
        for wanted in (number, number + 1):
            if wanted not in self._held and wanted < len(self._groups):
                self._held[wanted] = [
                    ((low, high), [self._pool.submit(self._fetch, *piece) for piece in split(low, high)])
                    for low, high in self._groups[wanted]
                ]

    @staticmethod
    def _cut(pieces: list[Future[bytes]], low: int, start: int, stop: int) -> bytes:
        found = []
        for position, piece in enumerate(pieces):
            first = low + position * SPLIT
            if first < stop and start < first + SPLIT:
                found.append(memoryview(piece.result())[max(0, start - first) : stop - first])
        return b"".join(found)


def read_footer(source: StoreObject) -> pq.FileMetaData:
    """Read a Parquet footer with one request, or two when it is longer than 64 KiB."""
    tail = [(max(0, source.size - TAIL), source.size)]
    with RangeFile(source.fetch, source.size, [tail]) as file:
        return pq.read_metadata(file)


def column_ranges(metadata: pq.FileMetaData, group: int, columns: Iterable[str]) -> list[Range]:
    """Byte ranges of some columns in a row group; parts of a struct have names such as ``image.flux``."""
    wanted, found = tuple(columns), []
    row_group = metadata.row_group(group)
    for number in range(row_group.num_columns):
        chunk = row_group.column(number)
        if any(
            chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}.") for name in wanted
        ):
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            start = min(start, chunk.data_page_offset)
            found.append((start, start + chunk.total_compressed_size))
    return found


def joined(ranges: Iterable[Range]) -> Iterator[Range]:
    """Join ranges that are at most 1 MiB apart: a request costs more than the bytes between."""
    current: Range | None = None
    for start, stop in sorted(ranges):
        if current is not None and start - current[1] <= JOIN_GAP:
            current = (current[0], max(current[1], stop))
            continue
        if current is not None:
            yield current
        current = (start, stop)
    if current is not None:
        yield current


def split(start: int, stop: int) -> Iterator[Range]:
    """Cut a range into pieces of 8 MiB, which are fetched side by side."""
    for low in range(start, stop, SPLIT):
        yield low, min(stop, low + SPLIT)


def gone(path: str) -> InputError:
    """An input file that was there when the run was planned is not any more."""
    return InputError(
        "an input file is gone", where=path, fix="put it back, or start a new run on the catalog as it is"
    )


def changed(path: str, expect: tuple[int, str], size: int | None) -> InputError:
    """An input file is not the one that was planned."""
    now = f", {size} bytes now" if size is not None and size != expect[0] else " (written again)"
    return InputError(
        f"an input file changed since the run was planned: {expect[0]} bytes then{now}",
        where=path,
        fix="put the old file back, or start a new run on the changed catalog",
    )
