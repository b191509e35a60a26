"""Get those pixels of a plane that cutouts need, with as few bytes as make sense."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from surveyproc.errors import InputError
from surveyproc.ingest.tiles.blocks import read_blocks
from surveyproc.ingest.tiles.headers import BadFile
from surveyproc.ingest.tiles.intervals import Boxes, close_gaps, covered, runs
from surveyproc.ingest.tiles.source import InflatingSource, LocalSource, Source, open_source
from surveyproc.ingest.tiles.tile import Plane

NUMBERS = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
WHOLE_FROM = 0.6
JOIN_ROWS_FRACTION = 0.1


@dataclass(frozen=True)
class Held:
    """Pixels of a plane in memory, or mapped into it.

    Attributes
    ----------
    numbers : ndarray, shape (H, W)
        As stored, of any type and byte order; 0 where no box needs them.
    bscale, bzero : float
        Value = bscale * number + bzero.
    blank : int or None
        Number that stands for no value.
    """

    numbers: np.ndarray
    bscale: float = 1.0
    bzero: float = 0.0
    blank: int | None = None


@dataclass
class Files:
    """The files of a tile while it is cut; a packed one is inflated once, for all its planes.

    Attributes
    ----------
    moved : int
        Bytes read so far; of a plane mapped into memory those of the boxes.
    """

    moved: int = 0
    _inflated: dict[str, InflatingSource] = field(default_factory=dict)

    def read(self, plane: Plane, boxes: Boxes) -> Held:
        """Get a plane in which at least the boxes are filled.

        Parameters
        ----------
        plane : Plane
        boxes : Boxes

        Returns
        -------
        Held

        Raises
        ------
        BadFile
            ``truncated`` or ``unreadable``.
        InputError
            When the file changed since the survey.
        """
        return Held(self._numbers(plane, boxes), plane.bscale, plane.bzero, plane.blank)

    def _numbers(self, plane: Plane, boxes: Boxes) -> np.ndarray:
        try:
            source = open_source(plane.uri, plane.version)
        except FileNotFoundError as error:
            raise InputError(
                "a tile is gone since it was surveyed", where=plane.uri, fix="put it back"
            ) from error
        try:
            if plane.packing != "plain":
                return self._from_memory(plane, boxes, source)
            if plane.blocks is not None:
                pixels = read_blocks(plane, plane.blocks, boxes, source)
                self.moved += source.moved
                return pixels
            if isinstance(source, LocalSource):
                return self._mapped(plane, boxes, source)
            pixels = _rows(plane, boxes, source)
            self.moved += source.moved
            return pixels
        except OSError as error:
            raise BadFile("unreadable", f"{plane.uri}: {error}") from error
        finally:
            source.close()

    def _from_memory(self, plane: Plane, boxes: Boxes, packed: Source) -> np.ndarray:
        if plane.uri not in self._inflated:
            source = InflatingSource(packed)
            try:
                source.inflated()
            except EOFError as error:
                raise BadFile("truncated", f"{plane.uri}: {error}") from error
            except (OSError, zlib.error) as error:
                raise BadFile("unreadable", f"{plane.uri}: {error}") from error
            self._inflated[plane.uri] = source
            self.moved += source.moved
        source = self._inflated[plane.uri]
        if plane.blocks is not None:
            return read_blocks(plane, plane.blocks, boxes, source)
        data = source.inflated()
        numbers = np.dtype(NUMBERS[plane.bitpix])
        stop = plane.offset + numbers.itemsize * plane.shape[0] * plane.shape[1]
        if stop > len(data):
            raise BadFile("truncated", f"{plane.uri}: {len(data)} bytes inflated where {stop} are needed")
        return np.frombuffer(data[plane.offset : stop], numbers).reshape(plane.shape)

    def _mapped(self, plane: Plane, boxes: Boxes, source: LocalSource) -> np.ndarray:
        numbers = np.dtype(NUMBERS[plane.bitpix])
        touched = int(np.sum((boxes.right - boxes.left) * (boxes.top - boxes.bottom))) * numbers.itemsize
        self.moved += min(touched, plane.bytes)
        if touched > plane.bytes // 4:
            source.will_need(plane.offset, plane.bytes)
        mapped = np.memmap(source.uri, numbers, "r", plane.offset, plane.shape)
        return np.asarray(mapped)  # slices of the subclass cost as much again as the copy


def _rows(plane: Plane, boxes: Boxes, source: Source) -> np.ndarray:
    """Fetch the rows that boxes need; the whole plane when that is most of it."""
    numbers = np.dtype(NUMBERS[plane.bitpix])
    height, width = plane.shape
    wanted = covered(height, boxes.bottom, boxes.top)
    if wanted.mean() > WHOLE_FROM:
        wanted[:] = True
    pixels = np.zeros(plane.shape, numbers)
    line = width * numbers.itemsize
    bands = runs(close_gaps(wanted, JOIN_ROWS_FRACTION))
    ranges = [(plane.offset + first * line, plane.offset + last * line) for first, last in bands]
    for (first, last), data in zip(bands, source.fetch_many(ranges)):
        pixels[first:last] = np.frombuffer(data, numbers).reshape(-1, width)
    return pixels
