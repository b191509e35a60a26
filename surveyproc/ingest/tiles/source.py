"""The bytes of a file wherever it is, as ranges, with a count of what was moved."""

from __future__ import annotations

import bz2
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from surveyproc.catalog.ranges import SPLIT, THREADS, Range, StoreObject, split
from surveyproc.errors import InputError
from surveyproc.stores import explain_store_errors, filesystem, is_local

FIRST_PIECE, PIECE = 128 << 10, 8 << 20
HEAD = 8 * 2880


class Source(Protocol):
    """A file that is read by ranges.

    Attributes
    ----------
    uri : str
    version : str
        Modification time or ETag.
    """

    uri: str
    version: str

    @property
    def size(self) -> int:
        """Bytes of the file."""
        ...

    @property
    def moved(self) -> int:
        """Bytes read so far."""
        ...

    def fetch(self, start: int, stop: int) -> bytes:
        """Read bytes ``[start, stop)``; fewer at the end of the file."""
        ...

    def fetch_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read several ranges; from a store side by side."""
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

    def fetch_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read several ranges one after the other."""
        return [self.fetch(*each) for each in ranges]

    def will_need(self, start: int, size: int) -> None:
        """Tell the system to read these bytes ahead."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, start, size, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)


class StoreSource:
    """An object of a store, pinned to the version it had when it was opened."""

    def __init__(self, uri: str, found: Any, path: str) -> None:
        self.uri, self.moved = uri, 0
        self._object = StoreObject(found, path)
        self.size, self.version = self._object.size, self._object.version
        self._head = b""

    def fetch(self, start: int, stop: int) -> bytes:
        """Read bytes ``[start, stop)``, long ranges in pieces side by side; fewer at the end of the file.

        What is asked for at the start comes with more of the first headers, which are kept.
        """
        stop = min(stop, self.size)
        if stop <= start:
            return b""
        if stop <= HEAD and (start == 0 or self._head):
            self._head = self._head or self._moved(0, min(HEAD, self.size))
            return self._head[start:stop]
        return self._moved(start, stop)

    def _moved(self, start: int, stop: int) -> bytes:
        self.moved += stop - start
        if stop - start <= SPLIT:
            return self._object.fetch(start, stop)
        with ThreadPoolExecutor(THREADS) as pool:
            return b"".join(pool.map(lambda piece: self._object.fetch(*piece), split(start, stop)))

    def fetch_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read several ranges side by side."""
        kept = [(start, min(stop, self.size)) for start, stop in ranges]
        self.moved += sum(stop - start for start, stop in kept)
        with ThreadPoolExecutor(2 * THREADS) as pool:
            return list(pool.map(lambda each: self._fetched(*each), kept))

    def _fetched(self, start: int, stop: int) -> bytes:
        return b"".join(self._object.fetch(*piece) for piece in split(start, stop))

    def close(self) -> None:
        """Nothing is held."""


class InflatingSource:
    """A file that is packed as a whole with gzip or bzip2, inflated as far as it is read, into memory.

    Parameters
    ----------
    packed : Source
    """

    def __init__(self, packed: Source) -> None:
        self.uri, self.version, self._packed = packed.uri, packed.version, packed
        self.packing = packing_of(packed)
        self._position, self._data, self._whole = 0, bytearray(), False
        self._inflater: Any = _inflater(self.packing)

    @property
    def size(self) -> int:
        """Bytes of the packed file."""
        return self._packed.size

    @property
    def moved(self) -> int:
        """Packed bytes read so far."""
        return self._packed.moved

    def fetch(self, start: int, stop: int) -> bytes:
        """Read inflated bytes ``[start, stop)``; fewer at the end.

        Raises
        ------
        EOFError, OSError, zlib.error
            When the packed data ends early or is damaged.
        """
        self._inflate(stop)
        return bytes(self._data[start:stop])

    def fetch_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read several ranges of inflated bytes."""
        return [self.fetch(*each) for each in ranges]

    def inflated(self) -> memoryview:
        """All bytes."""
        self._inflate(None)
        return memoryview(self._data)

    def close(self) -> None:
        """Release the file."""
        self._packed.close()

    def _inflate(self, until: int | None) -> None:
        while not self._whole and (until is None or len(self._data) < until):
            length = PIECE if until is None else FIRST_PIECE
            piece = self._packed.fetch(self._position, self._position + length)
            self._position += len(piece)
            if not piece:
                if not self._inflater.eof:
                    raise EOFError("the packed file ends early")
                self._whole = True
                return
            while piece:
                if self._inflater.eof:  # both formats may hold several streams one after the other
                    if not piece.strip(b"\0"):
                        break
                    self._inflater = _inflater(self.packing)
                self._data += self._inflater.decompress(piece)
                piece = self._inflater.unused_data if self._inflater.eof else b""


def packing_of(source: Source) -> str:
    """Say by its first bytes how a file is packed as a whole: ``gzip``, ``bzip2`` or ``plain``."""
    start = source.fetch(0, 4)
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    return "bzip2" if start.startswith(b"BZh") else "plain"


def _inflater(packing: str) -> Any:
    return zlib.decompressobj(16 + zlib.MAX_WBITS) if packing == "gzip" else bz2.BZ2Decompressor()


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
        with explain_store_errors(uri):
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
