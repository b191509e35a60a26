"""One folder on any file system: plain reads and writes, and the create-only write that commits rest on."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import fsspec

from surveyproc.errors import InputError, ResourceError
from surveyproc.steps import step

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}")


class Storage:
    """A folder addressed by path or fsspec URL; every name below is relative to it.

    Listings bypass fsspec's caches, so that what another process wrote is seen.

    Parameters
    ----------
    uri : str
        Local path or URL (``s3://bucket/folder``).
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self.uri = os.fspath(uri).rstrip("/")
        self.fs, self.root = fsspec.core.url_to_fs(self.uri)
        self.root = self.root.rstrip("/")
        self.is_local = "file" in (
            (self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol
        )

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    def path(self, name: str = "") -> str:
        """Full path of ``name`` on the file system."""
        return f"{self.root}/{name}" if name else self.root

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder ``name``."""
        self.fs.invalidate_cache()
        return bool(self.fs.exists(self.path(name)))

    def size(self, name: str) -> int | None:
        """Bytes of the file ``name``, or None when there is none."""
        self.fs.invalidate_cache()
        try:
            return int(self.fs.size(self.path(name)))
        except FileNotFoundError:
            return None

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the files and folders directly in ``folder``; empty when it is absent."""
        self.fs.invalidate_cache()
        try:
            return sorted(
                p.rstrip("/").rsplit("/", 1)[-1] for p in self.fs.ls(self.path(folder), detail=False)
            )
        except (FileNotFoundError, NotADirectoryError):
            return []

    def walk(self, folder: str = "") -> list[str]:
        """Sorted names, relative to this storage, of all files at any depth below ``folder``."""
        self.fs.invalidate_cache()
        prefix = len(self.root) + 1
        return sorted(p[prefix:] for p in self.fs.find(self.path(folder)))

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        return bytes(self.fs.cat_file(self.path(name)))

    def open(self, name: str) -> IO[bytes]:
        """Open a file for random reads."""
        return self.fs.open(self.path(name), "rb")

    @contextmanager
    def writing(self, name: str) -> Iterator[HashingFile]:
        """Write a file that counts and digests what passes; durable on a local disk when it closes."""
        with explain_write_errors(self.path(name)):
            if self.is_local:
                Path(self.path(name)).parent.mkdir(parents=True, exist_ok=True)
            with self.fs.open(self.path(name), "wb") as raw, HashingFile(raw) as file:
                yield file
                if self.is_local:
                    raw.flush()
                    os.fsync(raw.fileno())

    def replace(self, name: str, data: bytes) -> None:
        """Write a small file whole: a reader sees the old bytes or the new ones."""
        if not self.is_local:
            with explain_write_errors(self.path(name)):
                self.fs.pipe_file(self.path(name), data)
            return
        with explain_write_errors(self.path(name)), _temporary(Path(self.path(name)), data) as temporary:
            os.replace(temporary, self.path(name))

    def create(self, name: str, data: bytes) -> bool:
        """Create a file only if it is not there yet.

        Returns
        -------
        bool
            False when somebody else had created it: read it back to see who won.

        Notes
        -----
        On a local disk: temporary file, fsync, hard link (which fails when the name exists), fsync of
        the folder. Elsewhere a conditional put (``If-None-Match: *``).
        """
        target = self.path(name)
        with explain_write_errors(target):
            if not self.is_local:
                try:
                    self.fs.pipe_file(target, data, mode="create")
                except FileExistsError:
                    return False
                return True
            with _temporary(Path(target), data) as temporary:
                step("create.temporary", name)
                try:
                    os.link(temporary, target)
                except FileExistsError:
                    return False
                step("create.linked", name)
                sync_folder(Path(target).parent)
            return True

    def publish(self, source: str, target: str) -> None:
        """Give the committed file ``source`` the name ``target`` as well; repeating it changes nothing."""
        with explain_write_errors(self.path(target)):
            if not self.is_local:
                self.fs.cp_file(self.path(source), self.path(target))
                return
            destination = Path(self.path(target))
            destination.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self.path(source), destination)
            except FileExistsError:
                if not os.path.samefile(self.path(source), destination):
                    aside = _temporary_name(destination)
                    os.link(self.path(source), aside)
                    os.replace(aside, destination)
            sync_folder(destination.parent)

    def delete(self, names: list[str]) -> None:
        """Delete files; those already gone are fine."""
        for name in names:
            try:
                self.fs.rm_file(self.path(name))
            except FileNotFoundError:
                continue

    def delete_temporaries(self) -> None:
        """Delete temporary files of writers that were killed; only where nobody writes any more."""
        if self.is_local:
            self.delete([name for name in self.walk() if TEMPORARY.fullmatch(name.rsplit("/", 1)[-1])])

    def delete_folder(self, folder: str) -> None:
        """Delete a folder and all below it; one already gone is fine."""
        self.delete(self.walk(folder))
        self.delete_empty_folders(folder)

    def delete_empty_folders(self, folder: str) -> None:
        """Delete a folder and those below it, as far as no file is in them."""
        if self.is_local:
            for root, _, _ in sorted(os.walk(self.path(folder)), reverse=True):
                try:
                    os.rmdir(root)
                except OSError:
                    continue


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


@contextmanager
def explain_write_errors(path: str) -> Iterator[None]:
    """Turn the operating system's write errors into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceError(
                f"no space left to write ({error.strerror})",
                where=path,
                fix="free some space and give the same command again: what was committed is kept",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT):
            raise InputError(
                f"the output cannot be written ({error.strerror})",
                where=path,
                fix="choose an --output that you may write to",
            ) from error
        raise


@contextmanager
def _temporary(target: Path, data: bytes) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(target)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}")


def sync_folder(folder: Path) -> None:
    """Make the names in a local folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
