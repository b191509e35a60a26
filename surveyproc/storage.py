"""One folder on any file system: plain reads and writes, and the create-only write that commits rest on."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from surveyproc.errors import InputError, ResourceError
from surveyproc.hashing import HashingFile
from surveyproc.steps import step
from surveyproc.stores import (
    READ_BLOCK,
    UPLOAD_BLOCK,
    explain_store_errors,
    filesystem,
    is_local,
    is_store_error,
)

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}")
PROBE = "_probe"
CREATE_TRIES = 4


class Storage:
    """A folder addressed by path or fsspec URL; every name below is relative to it.

    Listings bypass fsspec's caches, so that what another process wrote is seen.

    Parameters
    ----------
    uri : str
        Local path or URL (``s3://bucket/folder``).

    Attributes
    ----------
    create_only : bool
        Whether `create` rests on the store's own conditional write. Set to False for a store that
        `creates_only_once` found to lack it; then one process at a time may create, and who calls sees to that.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self.uri = os.fspath(uri).rstrip("/")
        self.fs, self.root = filesystem(self.uri)
        self.is_local = is_local(self.fs)
        self.create_only = True

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    def path(self, name: str = "") -> str:
        """Full path of ``name`` on the file system."""
        return f"{self.root}/{name}" if name else self.root

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder ``name``."""
        with self._reading(name):
            return bool(self.fs.exists(self.path(name)))

    def size(self, name: str) -> int | None:
        """Bytes of the file ``name``, or None when there is none."""
        try:
            with self._reading(name):
                return int(self.fs.size(self.path(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def modified(self, name: str) -> float | None:
        """When ``name`` was written, in seconds by the clock of the store; None when there is none."""
        try:
            with self._reading(name):
                return self.fs.modified(self.path(name)).timestamp()
        except FileNotFoundError:
            return None

    def names(self, folder: str = "", prefix: str = "") -> list[str]:
        """Sorted names of the files and folders directly in ``folder``; empty when it is absent.

        With ``prefix`` only those that start with it; a store then lists no others.
        """
        path = self.path(folder)
        try:
            with self._reading(folder):
                if prefix and not self.is_local:
                    below = self.fs.find(path, prefix=prefix)
                    found = {file[len(path) + 1 :].split("/", 1)[0] for file in below}
                else:
                    found = {p.rstrip("/").rsplit("/", 1)[-1] for p in self.fs.ls(path, detail=False)}
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in found if name.startswith(prefix))

    def walk(self, folder: str = "") -> list[str]:
        """Sorted names, relative to this storage, of all files at any depth below ``folder``."""
        with self._reading(folder):
            found = self.fs.find(self.path(folder))
        prefix = len(self.root) + 1
        return sorted(p[prefix:] for p in found)

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        with self._reading(name):
            return bytes(self.fs.cat_file(self.path(name)))

    def open(self, name: str) -> IO[bytes]:
        """Open a file for random reads; from a store little more is fetched than is asked for."""
        if self.is_local:
            return self.fs.open(self.path(name), "rb")
        with self._reading(name):
            raw = self.fs.open(self.path(name), "rb", block_size=READ_BLOCK)
        return StoreFile(raw, f"{self.uri}/{name}")  # type: ignore[return-value]

    @contextmanager
    def writing(self, name: str) -> Iterator[HashingFile]:
        """Write a file that counts and digests what passes; durable when it closes.

        Leaving it by an exception leaves no whole file in a store, and no unfinished upload.
        """
        with self._writing(name):
            if self.is_local:
                Path(self.path(name)).parent.mkdir(parents=True, exist_ok=True)
                with (
                    self.fs.open(self.path(name), "wb") as raw,
                    HashingFile(raw, raw.fileno()) as file,
                ):
                    yield file
                    raw.flush()
                    os.fsync(raw.fileno())
                return
            raw = self.fs.open(self.path(name), "wb", block_size=UPLOAD_BLOCK)
            try:
                with HashingFile(raw) as file:
                    yield file
                raw.close()
            except BaseException:
                _discard(raw)
                raise

    def replace(self, name: str, data: bytes) -> None:
        """Write a small file whole: a reader sees the old bytes or the new ones."""
        with self._writing(name):
            if not self.is_local:
                self.fs.pipe_file(self.path(name), data)
                return
            _through_temporary(Path(self.path(name)), data, os.replace)

    def create(self, name: str, data: bytes) -> bool:
        """Create a file only if it is not there yet.

        Returns
        -------
        bool
            Whether ours is the write that counts; False when the name was taken before: read it back to
            see by whom.

        Raises
        ------
        ResourceError
            When a store answers nothing that could be understood, and nothing is there after all tries.

        Notes
        -----
        On a local disk: temporary file, fsync, hard link (which fails when the name exists), fsync of
        the folder. Elsewhere a conditional put (``If-None-Match: *``); whatever it answers but success
        (412, 409, a timeout, a lost answer that was retried) is settled by reading the name back.
        """
        with self._writing(name):
            return self._link(name, data) if self.is_local else self._put_new(name, data)

    def _link(self, name: str, data: bytes) -> bool:
        def link(temporary: Path, target: Path) -> None:
            step("create.temporary", name)
            os.link(temporary, target)
            step("create.linked", name)
            sync_folder(target.parent)

        try:
            _through_temporary(Path(self.path(name)), data, link)
        except FileExistsError:
            return False
        return True

    def _put_new(self, name: str, data: bytes) -> bool:
        step("create.temporary", name)
        for tried in range(CREATE_TRIES):
            try:
                if self.create_only:
                    self.fs.pipe_file(self.path(name), data, mode="create")
                elif self.size(name) is None:
                    self.fs.pipe_file(self.path(name), data)
                else:
                    raise FileExistsError(name)
                step("create.linked", name)
                return True
            except Exception as error:
                if not is_store_error(error):
                    raise
                with suppress(FileNotFoundError):
                    return self.read(name) == data
                if tried + 1 == CREATE_TRIES:
                    raise
                time.sleep(0.2 * 2**tried)
        raise AssertionError("unreachable")

    def creates_only_once(self) -> bool:
        """Try whether the store refuses to create the same name twice; leaves nothing behind."""
        name = f"{PROBE}/{secrets.token_hex(8)}"
        try:
            return self.create(name, b"first") and not self.create(name, b"second")
        finally:
            self.delete([name])

    def publish(self, source: str, target: str) -> None:
        """Give the committed file ``source`` the name ``target`` as well; repeating it changes nothing."""
        with self._writing(target):
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
        with self._writing(names[0] if names else ""):
            if names and hasattr(self.fs, "bulk_delete"):
                self.fs.rm([self.path(name) for name in names])
                return
            for name in names:
                with suppress(FileNotFoundError):
                    self.fs.rm_file(self.path(name))

    def delete_temporaries(self) -> None:
        """Delete what killed writers left unfinished; only where nobody writes any more.

        On a disk their temporary files, on S3 their multipart uploads, which are invisible and cost money.
        """
        if self.is_local:
            self.delete([name for name in self.walk() if TEMPORARY.fullmatch(name.rsplit("/", 1)[-1])])
        elif hasattr(self.fs, "list_multipart_uploads"):
            bucket, _, prefix = self.root.partition("/")
            with self._writing(""), suppress(FileNotFoundError):  # rclone's answer where there is none
                found = self.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/")
                for upload in found.get("Uploads", []):
                    self.fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])

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

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        if self.is_local:
            yield
            return
        self.fs.invalidate_cache()
        with explain_store_errors(f"{self.uri}/{name}"):
            yield

    def _writing(self, name: str) -> AbstractContextManager[None]:
        if self.is_local:
            return explain_write_errors(self.path(name))
        return explain_store_errors(f"{self.uri}/{name}")


class StoreFile(io.RawIOBase):
    """A file of a store opened for reading; what the store answers after all retries is explained.

    Parameters
    ----------
    raw : file object
    path : str
        For the message.
    """

    def __init__(self, raw: IO[bytes], path: str) -> None:
        self._raw, self._path = raw, path

    def read(self, size: int | None = -1) -> bytes:
        """Read up to ``size`` bytes."""
        with explain_store_errors(self._path):
            return self._raw.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """Position."""
        return self._raw.tell()

    def readable(self) -> bool:
        """Readable."""
        return True

    def seekable(self) -> bool:
        """Seekable."""
        return True

    def close(self) -> None:
        """Close the file below."""
        self._raw.close()
        super().close()


def _discard(raw: Any) -> None:
    """Drop an upload: `close` would complete it."""
    with suppress(Exception):
        raw.discard()
    raw.closed = True


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
                fix="free some space and give the same command again; what a run committed is kept",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT):
            raise InputError(
                f"the output cannot be written ({error.strerror})",
                where=path,
                fix="choose an --output that you may write to",
            ) from error
        raise


def _through_temporary(target: Path, data: bytes, give_name: Callable[[Path, Path], None]) -> None:
    """Write a temporary file and give it its name; again when somebody who finished the run tidied it away."""
    for tries_left in (2, 1, 0):
        try:
            with _temporary(target, data) as temporary:
                give_name(temporary, target)
            return
        except FileNotFoundError:
            if not tries_left:
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
