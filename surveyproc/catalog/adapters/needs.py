"""What a file does not say and nobody guesses: gathered, and refused with the command that says it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable

from surveyproc.catalog.adapters.given import Given
from surveyproc.errors import InputError, did_you_mean

_IDS = (
    "objectid",
    "objid",
    "id",
    "sourceid",
    "targetid",
    "galaxyid",
    "iauname",
    "dr7objid",
    "dr8id",
    "idstr",
)
# In Legacy Survey tables objid counts within a brick.
_BRICKS = ("brickid", "brickname")
_BRICK_IDS = ("objectid", "inds", "sourceid", "targetid")
_RA = ("ra", "radeg", "alphaj2000", "raj2000", "rightascension", "ramean", "ragal", "coordra")
_DEC = ("dec", "decdeg", "deltaj2000", "decj2000", "declination", "decmean", "dej2000", "coorddec")

_said: set[str] = set()


class Needs:
    """Gathers what is missing, each with the flag that says it.

    Parameters
    ----------
    uri : str
        The catalog, for the command.
    given : Given or None
        Flags of ``repack``; None when the catalog is opened to be used as it is.
    """

    def __init__(self, uri: str, given: Given | None) -> None:
        self.uri, self.given = uri, given
        self._missing: list[tuple[str, str]] = []
        self._also: list[str] = []

    def add(self, why: str, flag: str) -> None:
        """Note what is missing, and the flag that gives it."""
        self._missing.append((why, flag))

    def also(self, flag: str) -> None:
        """Note a flag that the command needs although nothing is wrong."""
        self._also.append(flag)

    def require(self, where: str) -> None:
        """Refuse when anything is missing.

        Raises
        ------
        InputError
            With everything that is missing, and the command with its flags filled in as far as the file tells.
        """
        if not self._missing:
            return
        flags = [flag for _, flag in self._missing if flag]
        fix = (
            f"add {' '.join(flags)}" if flags else "name what is in the files; see `surveyproc repack --help`"
        )
        if self.given is None:
            fix = f"make a catalog of it: {repack_command(self.uri, [*flags, *self._also])}"
        raise InputError("; ".join(why for why, _ in self._missing), where=where, fix=fix)


def repack_command(uri: str, flags: Iterable[str] = ()) -> str:
    """The command that turns a catalog into the fast layout."""
    name = uri.rstrip("/").rsplit("/", 1)[-1].split(".")[0] or "new"
    return " ".join(["surveyproc repack", shlex.quote(uri), *flags, "--output", shlex.quote(f"{name}.cat")])


def need_ids(needs: Needs, names: list[str]) -> None:
    """Note where ids and positions have other names."""
    given = needs.given or Given()
    for flag, name in (("--id", given.id), ("--ra", given.ra), ("--dec", given.dec)):
        if name is not None and name not in names:
            needs.add(f"{flag}: no column {name!r}.{did_you_mean(name, names)}".rstrip("."), "")
    if "object_id" not in names and given.id is None and not given.number_rows:
        found = guess(names, _BRICK_IDS if guess(names, _BRICKS) else _IDS)
        flag = f"--id {shlex.quote(found)}" if found else "--number-rows"
        hint = f" Did you mean {found!r}?" if found else " (--id COLUMN names it, --number-rows counts)"
        needs.add(f"no column 'object_id' (ids).{hint}".rstrip("."), flag)
    flags = guess_positions(names)
    if flags and given.ra is None and not {"ra", "dec"} <= set(names):
        needs.also(flags)


def guess_positions(names: Iterable[str]) -> str:
    """Flags for the columns that look like positions; empty when none do."""
    ra, dec = guess(names := list(names), _RA), guess(names, _DEC)
    return f"--ra {shlex.quote(ra)} --dec {shlex.quote(dec)}" if ra and dec else ""


def guess(names: Iterable[str], known: tuple[str, ...]) -> str | None:
    """Name the column that looks like one of the known; for advice only."""
    plain = {"".join(c for c in name.lower() if c.isalnum()): name for name in names}
    return next((plain[name] for name in known if name in plain), None)


def say_once(uri: str, text: str) -> None:
    """Say something of a catalog on stderr, once in a process."""
    if (key := f"{uri}\n{text}") not in _said:
        _said.add(key)
        print(text, file=sys.stderr)
