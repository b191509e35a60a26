"""A writable file that digests what passes, beside the writing, and sends it on its way to the disk."""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO, Any

BESIDE = 64 << 10
MOST_WAITING = 8
WRITEBACK = 16 << 20
_SYNC_FILE_RANGE_WRITE = 2


class HashingFile:
    """A writable file that keeps the SHA-256 and the length of what was written.

    From the first large piece on a thread of its own digests, while the caller goes on: at most two
    large pieces wait for it.

    Parameters
    ----------
    raw : file object
        What is written to.
    descriptor : int, optional
        Of a file on a disk: the system begins to write every 16 MiB at once, so that a later fsync has
        little to wait for.
    """

    def __init__(self, raw: IO[bytes], descriptor: int | None = None) -> None:
        self._raw, self._digest, self.nbytes, self.closed = raw, hashlib.sha256(), 0, False
        self._descriptor, self._begun = descriptor, 0
        self._beside: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[None]] = deque()

    def write(self, data: Any) -> int:
        """Write bytes through."""
        large = len(data) >= BESIDE
        if self._beside is None and not large:
            self._digest.update(data)
        else:
            if self._beside is None:
                self._beside = ThreadPoolExecutor(1)
            kept = data if isinstance(data, bytes) else bytes(data)
            done = self._beside.submit(self._digest.update, kept)
            if large:
                self._waiting.append(done)
        self.nbytes += len(data)
        written = self._raw.write(data)
        if self._descriptor is not None and self.nbytes - self._begun >= WRITEBACK:
            begin_writeback(self._descriptor, self._begun, self.nbytes - self._begun)
            self._begun = self.nbytes
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popleft().result()
        return written

    def flush(self) -> None:
        """Flush the file below."""
        self._raw.flush()

    def tell(self) -> int:
        """Bytes written so far."""
        return self.nbytes

    def writable(self) -> bool:
        """Writable."""
        return True

    def readable(self) -> bool:
        """Not readable."""
        return False

    def seekable(self) -> bool:
        """Not seekable."""
        return False

    def close(self) -> None:
        """Mark closed; the owner of the file below closes that."""
        self.closed = True
        if self._beside is not None:
            self._beside.shutdown()

    @property
    def sha256(self) -> str:
        """Hex digest of all that was written; to be asked for when the file is closed."""
        return self._digest.hexdigest()

    def __enter__(self) -> HashingFile:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def begin_writeback(descriptor: int, start: int, size: int) -> None:
    """Ask the system to begin writing bytes of a file to its disk, without waiting; does nothing but on Linux."""
    call = _sync_file_range()
    if call is not None:
        call(descriptor, start, size, _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    try:
        call = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return call
