"""Walk the header-data units of a FITS file without reading any data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from surveyproc.ingest.tiles.source import Source

Fetch = Callable[[int, int], bytes]
BLOCK = 2880
FIRST_READ = 8 * BLOCK


class BadFile(Exception):
    """A file that cannot be used.

    Parameters
    ----------
    reason : str
        ``unreadable``, ``truncated``, ``no_image`` or ``no_wcs``.
    detail : str
        What is wrong with it.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Unit:
    """One header-data unit.

    Attributes
    ----------
    number : int
        0 for the primary one.
    header : astropy.io.fits.Header
        As it is in the file: of a tile-compressed image the header of the table.
    start, offset : int
        First byte of the header and of the data.
    bytes : int
        Bytes of the data without padding.
    """

    number: int
    header: Any
    start: int
    offset: int
    bytes: int

    @property
    def name(self) -> str:
        """EXTNAME in upper case."""
        return str(self.header.get("EXTNAME", "")).strip().upper()

    @property
    def compressed(self) -> bool:
        """Whether it is a tile-compressed image."""
        return bool(self.header.get("ZIMAGE", False))

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows and columns of the blocks of a tile-compressed image: rows of the image when nothing is said."""
        wide = int(self.header.get("ZTILE1", self.header.get("ZNAXIS1", 1)))
        return int(self.header.get("ZTILE2", 1)), wide

    @property
    def axes(self) -> tuple[int, ...]:
        """Lengths of the image's axes, the fastest last; empty when it is no image."""
        z = "Z" if self.compressed else ""
        if not self.compressed and str(self.header.get("XTENSION", "IMAGE")).strip() != "IMAGE":
            return ()
        count = int(self.header.get(f"{z}NAXIS", 0))
        return tuple(int(self.header.get(f"{z}NAXIS{n}", 0)) for n in range(count, 0, -1))


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

    try:
        header = Header.fromstring(text)
        axes = [int(header[f"NAXIS{n}"]) for n in range(1, int(header["NAXIS"]) + 1)]
        elements = math.prod(axes) if axes else 0
        groups, extra = int(header.get("GCOUNT", 1)), int(header.get("PCOUNT", 0))
        size = abs(int(header["BITPIX"])) // 8 * groups * (extra + elements)
    except (KeyError, ValueError, TypeError) as error:
        raise BadFile("unreadable", f"the header of HDU {number} is damaged: {error}") from error
    if min(axes, default=1) < 0 or size < 0:
        raise BadFile("unreadable", f"the header of HDU {number} has impossible sizes")
    return Unit(number, header, start, start + length, size)
