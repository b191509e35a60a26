"""``checksums.sha256``: the digests of all files of a catalog, as ``sha256sum --check`` of coreutils reads them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import partial

from surveyproc.errors import InputError
from surveyproc.runs.accounts import Check, some
from surveyproc.runs.files import READERS, digest_of
from surveyproc.storage import Storage
from surveyproc.threads import map_ahead

CHECKSUMS = "checksums.sha256"
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


def sha256(data: bytes) -> str:
    """Digest of a small file."""
    return hashlib.sha256(data).hexdigest()


def format_checksums(digests: Mapping[str, str]) -> bytes:
    """Make the file: equal digests give equal bytes."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


def read_checksums(storage: Storage) -> dict[str, str] | None:
    """Read the digests that a folder states, by the names of its files; None where it states none.

    Raises
    ------
    InputError
        When a line is none of ``sha256sum``.
    """
    try:
        lines = storage.read(CHECKSUMS).decode(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    found = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if not match:
            raise InputError(
                f"line {number} is no digest and name of a file: {line[:80]!r}",
                where=storage.path(CHECKSUMS),
                fix="put that file back from a copy; what it says of the others cannot be trusted",
            )
        found[match[2].removeprefix("./")] = match[1].lower()
    return found


def checksum_checks(storage: Storage) -> Iterator[Check]:
    """Compare the files of a folder with its digests; every file is read.

    Yields
    ------
    Check
        That the files are those that are stated, and that each has its digest; none where the folder states
        none. Names that begin with a dot are nobody's business.
    """
    stated = read_checksums(storage)
    if stated is None:
        return
    there = {name for name in storage.walk() if not _hidden(name)} - {CHECKSUMS}
    odd = [f"{name} is missing" for name in sorted(stated.keys() - there)]
    odd += [f"{name} is extra: {CHECKSUMS} does not list it" for name in sorted(there - stated.keys())]
    yield Check("files", not odd, some(odd) or f"{len(stated)} files are there, and no other")
    names = sorted(stated.keys() & there)
    digests = map_ahead(partial(digest_of, storage), names, READERS)
    changed = [f"{name} was changed" for name, found in zip(names, digests) if found != stated[name]]
    yield Check(
        "digests", not changed, some(changed) or f"{len(names)} files have the bytes that were written"
    )


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
