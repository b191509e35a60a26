"""Where bytes live: one place that opens file systems, and says what went wrong with a store."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from surveyproc.errors import InputError, ResourceError, UsageError, did_you_mean

S3_OPTIONS = ("anon", "endpoint_url", "key", "profile", "region_name", "secret", "token")
S3 = ("s3", "s3a")
# s3fs tries a request this often, and a read of a body this often again; each try is botocore's five with
# backoff. Together a store that answers 503 to everything is given up after about 40 s.
S3FS_RETRIES = 3
READ_BLOCK = 256 * 2**10
UPLOAD_BLOCK = 16 * 2**20

_options: dict[str, Any] = {}


def configure(options: Mapping[str, Any]) -> None:
    """Set the options with which this process opens every store; local folders take none.

    Parameters
    ----------
    options : mapping
        Credentials and endpoint, as ``--storage KEY=VALUE`` gave them. What is absent comes from the
        usual environment (``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, a role). They are kept in memory only.
    """
    _options.clear()
    _options.update(options)


def configured() -> dict[str, Any]:
    """Options of this process, to be sent to its workers."""
    return dict(_options)


@contextmanager
def configured_with(options: Mapping[str, Any]) -> Iterator[None]:
    """Open stores with these options for a while: a command leaves none of its credentials behind."""
    before = configured()
    configure(options)
    try:
        yield
    finally:
        configure(before)


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` words.

    Raises
    ------
    UsageError
        For a word of another form; its value is not repeated, it may be a secret.
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(
                "--storage takes KEY=VALUE", where="--storage", fix=f"keys: {', '.join(S3_OPTIONS)}"
            )
        options[key] = {"true": True, "false": False}.get(value.lower(), value)
    return options


def filesystem(uri: str | os.PathLike[str]) -> tuple[Any, str]:
    """Open the file system of a path or URL.

    Returns
    -------
    tuple
        The fsspec file system, and the path on it without a trailing slash.

    Raises
    ------
    UsageError
        For an unknown protocol or option.
    """
    text = os.fspath(uri)
    protocol = text.partition("://")[0] if "://" in text else "file"
    try:
        found, path = fsspec.core.url_to_fs(text, **_arguments(protocol))
    except (ValueError, ImportError) as error:
        raise UsageError(
            f"no store can be opened with {protocol}:// ({str(error).splitlines()[0]})",
            where=text,
            fix="use a local path, s3://, or install the fsspec package of that store (gcsfs, adlfs)",
        ) from error
    if protocol in S3:
        found.retries = S3FS_RETRIES
    return found, path.rstrip("/") or "/"


def read_file(uri: str) -> bytes:
    """Read a small file anywhere.

    Raises
    ------
    FileNotFoundError
    """
    found, path = filesystem(uri)
    with explain_store_errors(uri):
        return bytes(found.cat_file(path))


def exists(uri: str) -> bool:
    """Whether there is a file anywhere."""
    found, path = filesystem(uri)
    with explain_store_errors(uri):
        return bool(found.exists(path))


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """Give a file that may lie in a store a local path for a while; a local file is given as it is."""
    found, path = filesystem(uri)
    if is_local(found):
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="surveyproc-") as scratch:
        copy = Path(scratch, path.rsplit("/", 1)[-1])
        try:
            with explain_store_errors(uri):
                found.get_file(path, str(copy))
        except FileNotFoundError as error:
            raise InputError("the file is not there", where=uri, fix="check the URL") from error
        yield copy


def is_hub(uri: str) -> bool:
    """Whether an address is a repository of the Hugging Face hub (``hf_hub:ORG/NAME``), which is no file system."""
    return uri.startswith(("hf_hub:", "hf-hub:"))


def is_local(found: Any) -> bool:
    """Whether a file system is this machine's own."""
    return isinstance(found, LocalFileSystem)


@contextmanager
def explain_store_errors(path: str) -> Iterator[None]:
    """Turn what a store answers after all retries into errors that say what to do.

    `FileNotFoundError` and `FileExistsError` pass: their meaning is the caller's.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except PermissionError as error:
        raise InputError(
            f"the store refuses access ({_first_line(error)})",
            where=path,
            fix="check the credentials (AWS_PROFILE, a role, or --storage key=... secret=...) and their rights",
        ) from error
    except Exception as error:
        if not is_store_error(error):
            raise
        raise ResourceError(
            f"the store does not answer as it should ({_first_line(error)})",
            where=path,
            fix="give the same command again when it does: what was committed is kept",
        ) from error


def is_store_error(error: BaseException) -> bool:
    """Whether an exception comes from a store or the network on the way to it."""
    if isinstance(error, (OSError, TimeoutError)):
        return True
    return type(error).__module__.partition(".")[0] in (
        "botocore",
        "aiobotocore",
        "aiohttp",
        "fsspec",
        "s3fs",
    )


def _first_line(error: BaseException) -> str:
    words = error.args[-1] if isinstance(error, OSError) and error.args else error
    return (str(words).splitlines() or [type(error).__name__])[0]


def _arguments(protocol: str) -> dict[str, Any]:
    if protocol in ("file", "local", "memory"):
        return {}
    if protocol not in S3:
        return dict(_options)
    unknown = [key for key in _options if key not in S3_OPTIONS]
    if unknown:
        raise UsageError(
            f"unknown storage option {unknown[0]!r}.{did_you_mean(unknown[0], S3_OPTIONS)}",
            where="--storage",
            fix=f"options of s3://: {', '.join(S3_OPTIONS)}",
        )
    options = dict(_options)
    region = options.pop("region_name", None)
    retries: dict[str, Any] = {"mode": os.environ.get("AWS_RETRY_MODE", "standard")}
    retries["max_attempts"] = int(os.environ.get("AWS_MAX_ATTEMPTS", "5"))
    return options | {
        "client_kwargs": {"region_name": region} if region else {},
        "config_kwargs": {"retries": retries, "max_pool_connections": 64},
        "use_listings_cache": False,
        "default_block_size": READ_BLOCK,
        "default_fill_cache": False,
        "max_concurrency": 1,  # above 1 a read of a whole file asks for its size first
    }


def without_secrets(words: Sequence[str]) -> list[str]:
    """Words of a command line without the values of ``--storage``, fit for a record or a message."""
    shown, hide = [], False
    for word in words:
        flag, equals, option = word.partition("=")
        if flag == "--storage" and equals:
            shown.append(f"--storage={option.partition('=')[0]}=...")
        else:
            shown.append(f"{flag}=..." if hide else word)
        hide = word == "--storage"
    return shown
