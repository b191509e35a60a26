"""The bytes of a file wherever it is, as ranges, with a count of what was moved."""

from __future__ import annotations

import os
from typing import Any, Protocol

from surveyproc.catalog.ranges import SPLIT, THREADS, StoreObject
from surveyproc.errors import InputError
from surveyproc.stores import filesystem, is_local


class Source(Protocol):
    """A file that is read by ranges.

    Attributes
    ----------
    uri : str
    size : int
        Bytes of the file.
    version : str
        Modification time or ETag.
    moved : int
        Bytes read so far.
    """

    uri: str
    size: int
    version: str
    moved: int

    def fetch(self, start: int, stop: int) -> bytes:
        """Read bytes ``[start, stop)``; fewer at the end of the file."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class LocalSource:
    """A file on a disk."""

    def __init__(self, path: str) -> None:
        self.uri, self.moved = path, 0
        self._descriptor = os.open(path, os.O_RDONLY)
        found = os.fstat(self._descriptor)
        self.size, self.version = found.st_size, str(found.st_mtime_ns)

    def fetch(self, start: int, stop: int) -> bytes:
        """Read bytes ``[start, stop)``; fewer at the end of the file."""
        pieces = []
        while start < stop and (piece := os.pread(self._descriptor, stop - start, start)):
            pieces.append(piece)
            start += len(piece)
        data = b"".join(pieces)
        self.moved += len(data)
        return data

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)


class StoreSource:
    """An object of a store, pinned to the version it had when it was opened."""

    def __init__(self, uri: str, found: Any, path: str) -> None:
        self.uri, self.moved = uri, 0
        self._object = StoreObject(found, path)
        self.size, self.version = self._object.size, self._object.version

    def fetch(self, start: int, stop: int) -> bytes:
        """Read bytes ``[start, stop)``, long ranges in pieces side by side; fewer at the end of the file."""
        stop = min(stop, self.size)
        if stop <= start:
            return b""
        self.moved += stop - start
        if stop - start <= SPLIT:
            return self._object.fetch(start, stop)
        from concurrent.futures import ThreadPoolExecutor

        starts = range(start, stop, SPLIT)
        with ThreadPoolExecutor(THREADS) as pool:
            return b"".join(pool.map(lambda at: self._object.fetch(at, min(stop, at + SPLIT)), starts))

    def close(self) -> None:
        """Nothing is held."""


def open_source(uri: str, expect: tuple[int, str] | None = None) -> Source:
    """Open a file by path or URL.

    Parameters
    ----------
    uri : str
    expect : (int, str), optional
        Size and version it must have.

    Raises
    ------
    FileNotFoundError
    InputError
        When it is not the version expected.
    """
    found, path = filesystem(uri)
    if is_local(found):
        source: Source = LocalSource(path)
    else:
        if not found.exists(path):
            raise FileNotFoundError(uri)
        source = StoreSource(uri, found, path)
    if expect is not None and (source.size, source.version) != tuple(expect):
        source.close()
        raise InputError(
            f"a tile changed since it was surveyed: {expect[0]} bytes then, {source.size} now",
            where=uri,
            fix="put the old file back, or start a new output",
        )
    return source
