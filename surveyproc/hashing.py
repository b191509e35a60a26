"""A writable file that digests what passes."""

from __future__ import annotations

import hashlib
from types import TracebackType
from typing import IO, Any


class HashingFile:
    """A writable file that keeps the SHA-256 and the length of what was written."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._digest, self.nbytes, self.closed = raw, hashlib.sha256(), 0, False

    def write(self, data: Any) -> int:
        """Write bytes through."""
        self._digest.update(data)
        self.nbytes += len(data)
        return self._raw.write(data)

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

    @property
    def sha256(self) -> str:
        """Hex digest of all that was written."""
        return self._digest.hexdigest()

    def __enter__(self) -> HashingFile:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
