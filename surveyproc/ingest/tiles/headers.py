"""Walk the header-data units of a FITS file without reading any data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from surveyproc.ingest.tiles.quiet import quiet
from surveyproc.ingest.tiles.source import Source

Fetch = Callable[[int, int], bytes]
BLOCK = 2880
FIRST_READ = 4 * BLOCK
BITPIX = (8, 16, 32, 64, -32, -64)


class BadFile(Exception):
    """A file that cannot be used.

    Parameters
    ----------
    reason : str
        ``unreadable``, ``truncated``, ``no_image`` or ``no_wcs``.
    detail : str
        What is wrong with it.

    Attributes
    ----------
    grid : (str, (int, int)) or None
        WCS cards and shape of its image, where the header still says them.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
        self.grid: tuple[str, tuple[int, int]] | None = None


@dataclass(frozen=True)
class Unit:
    """One header-data unit.

    Attributes
    ----------
    number : int
        0 for the primary one.
    header : astropy.io.fits.Header
        As it is in the file: of a tile-compressed image the header of the table. A damaged card raises when
        it is read.
    values : dict
        Values of the cards that can be read.
    damaged : frozenset of str
        Keywords of the others.
    start, offset : int
        First byte of the header and of the data.
    bytes : int
        Bytes of the data without padding.
    """

    number: int
    header: Any
    values: dict[str, Any]
    damaged: frozenset[str]
    start: int
    offset: int
    bytes: int

    @property
    def name(self) -> str:
        """EXTNAME in upper case."""
        return str(self.values.get("EXTNAME", "")).strip().upper()

    @property
    def compressed(self) -> bool:
        """Whether it is a tile-compressed image."""
        return self.values.get("ZIMAGE") is True

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows and columns of the blocks of a tile-compressed image: rows of the image when nothing is said."""
        wide = self.number_of("ZTILE1", self.number_of("ZNAXIS1", 1))
        return int(self.number_of("ZTILE2", 1)), int(wide)

    @property
    def axes(self) -> tuple[int, ...]:
        """Lengths of the image's axes, the fastest last; empty when it is no image."""
        z = "Z" if self.compressed else ""
        if not self.compressed and str(self.values.get("XTENSION", "IMAGE")).strip() != "IMAGE":
            return ()
        count = int(self.number_of(f"{z}NAXIS", 0))
        return tuple(int(self.number_of(f"{z}NAXIS{n}", 0)) for n in range(count, 0, -1))

    def number_of(self, key: str, default: float) -> float:
        """Value of a card that has to be a number when it is there.

        Raises
        ------
        BadFile
        """
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or key in self.damaged:
            raise BadFile("unreadable", f"{key} in the header of HDU {self.number} is no number")
        return value


def walk(source: Source) -> Iterator[Unit]:
    """Read the headers of a file one after the other.

    Yields
    ------
    Unit
        As long as headers follow; nothing between them is read.

    Raises
    ------
    BadFile
        When it is no FITS file, or a header has no end.
    """
    position, number = 0, 0
    while True:
        text, length = _header_text(source.fetch, position, number)
        if not text:
            return
        unit = _unit(text, number, position, length)
        yield unit
        position = unit.offset + math.ceil(unit.bytes / BLOCK) * BLOCK
        number += 1


def read_unit(fetch: Fetch, position: int, number: int) -> Unit:
    """Read one header at a known place.

    Raises
    ------
    BadFile
    """
    text, length = _header_text(fetch, position, number)
    if not text:
        raise BadFile("unreadable", f"the header of HDU {number} is not where it was")
    return _unit(text, number, position, length)


def _header_text(fetch: Fetch, position: int, number: int) -> tuple[str, int]:
    """Text of the header at a position and its length in bytes; empty after the last one."""
    data = fetch(position, position + FIRST_READ)
    if number == 0 and not data.startswith(b"SIMPLE  ="):
        raise BadFile("unreadable", _what_it_is(data))
    if not data.startswith((b"SIMPLE  =", b"XTENSION=")):
        return "", 0  # padding or other bytes after the last unit are allowed
    checked = 0
    while True:
        for at in range(checked, len(data), 80):
            if data[at : at + 80].rstrip() == b"END":
                return data[:at].decode("ascii", "replace"), math.ceil((at + 80) / BLOCK) * BLOCK
        checked = len(data) // 80 * 80
        more = fetch(position + len(data), position + len(data) + FIRST_READ)
        if not more:
            raise BadFile("truncated", f"the file ends inside the header of HDU {number}")
        data += more


def _what_it_is(data: bytes) -> str:
    if not data:
        return "the file is empty"
    start = data[:200].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "it is a web page (an error message saved under this name?), not FITS"
    return "it is not FITS: SIMPLE is not the first card"


def _unit(text: str, number: int, start: int, length: int) -> Unit:
    from astropy.io.fits import Header

    with quiet():
        header = Header.fromstring(text)
        values, damaged = _readable(header)
    unit = Unit(number, header, values, frozenset(damaged), start, start + length, 0)
    axes = [unit.number_of(f"NAXIS{n}", math.nan) for n in range(1, int(unit.number_of("NAXIS", -1)) + 1)]
    groups, extra = unit.number_of("GCOUNT", 1), unit.number_of("PCOUNT", 0)
    bitpix = unit.number_of("BITPIX", math.nan)
    size = abs(bitpix) / 8 * groups * (extra + (math.prod(axes) if axes else 0))
    if bitpix not in BITPIX or "NAXIS" not in values or not 0 <= size < 2**62 or min(axes, default=0) < 0:
        raise BadFile("unreadable", f"the header of HDU {number} has impossible sizes")
    return replace(unit, bytes=int(size))


def _readable(header: Any) -> tuple[dict[str, Any], list[str]]:
    """Values of a header, and the keywords whose values cannot be read."""
    values: dict[str, Any] = {}
    damaged = []
    for card in header.cards:
        try:
            values.setdefault(card.keyword, card.value)
        except Exception:  # astropy and Python raise several kinds for damaged cards
            damaged.append(card.keyword)
    return values, damaged
