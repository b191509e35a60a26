"""Unpack those blocks of a tile-compressed image that cutouts need.

The FITS Tiled Image Convention (FITS standard 4.0, section 10) keeps an image as a table: a row holds one block, as a
descriptor (length and place) of bytes in the heap that follows the table, with the scale of its numbers.
Rows and blocks are fetched by exact ranges into a small copy of the HDU without the others, which astropy unpacks.
"""

from __future__ import annotations

import io
import itertools
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from surveyproc.errors import SurveyprocError
from surveyproc.ingest.tiles.headers import BLOCK, BadFile, Unit, read_unit
from surveyproc.ingest.tiles.intervals import close_gaps, runs
from surveyproc.ingest.tiles.quiet import quiet
from surveyproc.ingest.tiles.source import Source
from surveyproc.ingest.tiles.tile import Plane

if TYPE_CHECKING:
    from surveyproc.ingest.tiles.intervals import Boxes

WHOLE_FROM = 0.7
JOIN_FRACTION = 0.1
_WIDTHS = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "P": 8, "Q": 16}
_DESCRIPTORS = {"P": ">i4", "Q": ">i8"}


def read_blocks(plane: Plane, blocks: tuple[int, int], boxes: Boxes, source: Source) -> np.ndarray:
    """Unpack the blocks of a plane that boxes touch, each once.

    Parameters
    ----------
    plane : Plane
        Its ``offset`` is that of the HDU's header.
    blocks : (int, int)
        Rows and columns of a block.
    boxes : Boxes
    source : Source
        The file.

    Returns
    -------
    ndarray, shape ``plane.shape``
        Physical values in native byte order; 0 in blocks that no box touches.

    Raises
    ------
    BadFile
        When a block cannot be unpacked.
    """
    from astropy.io import fits

    wanted = touched_blocks(plane.shape, blocks, boxes)
    unit = read_unit(source.fetch, plane.offset, plane.hdu)
    try:
        copy = io.BytesIO(_copy_of_rows(unit, np.flatnonzero(wanted), source))
        with quiet():
            hdus = fits.open(copy, memmap=False)
            hdu = hdus[1]
        with hdus:
            return _unpack(hdu, plane.shape, blocks, wanted)
    except (SurveyprocError, BadFile, MemoryError):
        raise
    except Exception as error:  # astropy and its codecs raise many kinds for damaged headers and blocks
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadFile("unreadable", f"{plane.uri}: a compressed block cannot be unpacked: {what}") from error


def touched_blocks(shape: tuple[int, int], blocks: tuple[int, int], boxes: Boxes) -> np.ndarray:
    """Which blocks of the grid, shape (rows, columns), have a pixel in a box; all when that is most of them."""
    (height, width), (tall, wide) = shape, blocks
    corners = np.zeros((-(-height // tall) + 1, -(-width // wide) + 1), np.int64)
    real = (boxes.right > boxes.left) & (boxes.top > boxes.bottom)
    first_row, last_row = boxes.bottom[real] // tall, (boxes.top[real] - 1) // tall + 1
    first_column, last_column = boxes.left[real] // wide, (boxes.right[real] - 1) // wide + 1
    for rows, columns, step in (
        (first_row, first_column, 1),
        (first_row, last_column, -1),
        (last_row, first_column, -1),
        (last_row, last_column, 1),
    ):
        np.add.at(corners, (rows, columns), step)
    wanted = corners.cumsum(0).cumsum(1)[:-1, :-1] > 0
    return np.ones_like(wanted) if wanted.mean() > WHOLE_FROM else wanted


def _unpack(hdu: Any, shape: tuple[int, int], blocks: tuple[int, int], wanted: np.ndarray) -> np.ndarray:
    if wanted.all():
        return np.asarray(hdu.data).reshape(shape)
    tall, wide = blocks
    pixels = None
    for row in np.flatnonzero(wanted.any(axis=1)):
        for first, last in runs(wanted[row]):
            box = np.s_[row * tall : (row + 1) * tall, first * wide : last * wide]
            values = hdu.section[box]
            if pixels is None:
                pixels = np.zeros(shape, values.dtype)
            pixels[box] = values
    return np.zeros(shape, np.float32) if pixels is None else pixels


def _copy_of_rows(unit: Unit, rows: np.ndarray, source: Source) -> bytes:
    """FITS file with this compressed image, in which only some rows of the table point to anything."""
    header = unit.header.copy()
    width, count = int(header["NAXIS1"]), int(header["NAXIS2"])
    heap = unit.offset + int(header.get("THEAP", width * count))
    table = np.zeros((count, width), np.uint8)
    wanted = np.zeros(count, bool)
    wanted[rows] = True
    parts = runs(close_gaps(wanted, JOIN_FRACTION))
    ranges = [(unit.offset + first * width, unit.offset + last * width) for first, last in parts]
    for (first, last), data in zip(parts, source.fetch_many(ranges)):
        table[first:last] = np.frombuffer(data, np.uint8).reshape(-1, width)
    table[~wanted] = 0
    pieces, length = [], 0
    entries = [entry for column in _variable_columns(header) for entry in _entries(table, rows, *column)]
    if any(start < 0 or start + size > unit.bytes for start, size, _ in entries):
        raise BadFile("unreadable", "a compressed block points outside of its file")
    blobs = _fetch_all([(heap + start, heap + start + size) for start, size, _ in entries], source)
    for (_, size, descriptor), blob in zip(entries, blobs):
        descriptor[1] = length
        pieces.append(blob)
        length += size
    header["PCOUNT"] = length
    header.remove("THEAP", ignore_missing=True)
    data = table.tobytes() + b"".join(pieces)
    primary = "".join(
        card.ljust(80)
        for card in (
            "SIMPLE  =                    T",
            "BITPIX  =                    8",
            "NAXIS   =                    0",
            "EXTEND  =                    T",
            "END",
        )
    )
    return (
        primary.ljust(BLOCK).encode() + header.tostring().encode("ascii") + data + bytes(-len(data) % BLOCK)
    )


def _variable_columns(header: Any) -> list[tuple[int, str, int]]:
    """Byte in the row, kind of descriptor and item size of each column of variable length."""
    found, position = [], 0
    for number in range(1, int(header["TFIELDS"]) + 1):
        form = re.match(r"(\d*)([A-Z])([A-Z]?)", str(header[f"TFORM{number}"]).strip())
        if form is None or form.group(2) not in _WIDTHS:
            raise BadFile("unreadable", f"column {number} of a compressed image is of no known kind")
        repeat, kind, item = int(form.group(1) or 1), form.group(2), form.group(3)
        if kind in _DESCRIPTORS and repeat:
            found.append((position, kind, _WIDTHS[item]))
        position += repeat * _WIDTHS[kind]
    return found


def _entries(
    table: np.ndarray, rows: np.ndarray, position: int, kind: str, item: int
) -> list[tuple[int, int, np.ndarray]]:
    """Place in the heap, bytes, and the descriptor itself of what some rows point to."""
    numbers = np.dtype(_DESCRIPTORS[kind])
    found = []
    for row in rows:
        descriptor = table[row, position : position + 2 * numbers.itemsize].view(numbers)
        if descriptor[0] > 0:
            found.append((int(descriptor[1]), int(descriptor[0]) * item, descriptor))
    return found


def _fetch_all(ranges: list[tuple[int, int]], source: Source) -> list[bytes]:
    """Fetch ranges, those that lie close together with one request."""
    order = sorted(range(len(ranges)), key=lambda n: ranges[n])
    gaps = sorted(
        (ranges[b][0] - ranges[a][1], n)
        for n, (a, b) in enumerate(itertools.pairwise(order))
        if ranges[b][0] >= ranges[a][1]
    )
    budget = JOIN_FRACTION * sum(stop - start for start, stop in ranges)
    joined = set()
    for gap, n in gaps:
        budget -= gap
        if budget < 0:
            break
        joined.add(n)
    groups: list[list[int]] = [[]]
    for n, index in enumerate(order):
        groups[-1].append(index)
        if n not in joined and n + 1 < len(order):
            groups.append([])
    spans = [(ranges[group[0]][0], max(ranges[k][1] for k in group)) for group in groups if group]
    found: list[bytes] = [b""] * len(ranges)
    for group, (first, _), data in zip(groups, spans, source.fetch_many(spans)):
        for k in group:
            found[k] = data[ranges[k][0] - first : ranges[k][1] - first]
    for (start, stop), data in zip(ranges, found):
        if len(data) != stop - start:
            raise BadFile("truncated", "the file ends inside a compressed block")
    return found
