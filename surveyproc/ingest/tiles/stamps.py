"""Copy stamps out of an image: fast for squares of one size, area-weighted for fields of any size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from surveyproc.ingest.tiles.places import Places
from surveyproc.ingest.tiles.reading import Held

_CHUNK_BYTES = 1 << 20


def copy_stamps(out: np.ndarray, held: Held, places: Places) -> None:
    """Fill stamps with the physical values of an image; beyond its edges they stay as they are.

    Parameters
    ----------
    out : ndarray, shape (N, size, size), float32
    held : Held
    places : Places
        N of them.
    """
    if places.span is not None:
        for n in range(len(out)):
            out[n] = area_resampled(cut_box(held, places, n), places, n, out.shape[-1])
        return
    for part in chunks(len(out), out.shape[-1]):
        swapped = held.numbers.dtype == np.dtype(">f4")
        _copy_squares(out[part].view(">f4") if swapped else out[part], held.numbers, places[part])
        if swapped:
            out[part].byteswap(inplace=True)
        to_values(out[part], held)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Cut stamps into pieces that stay in a core's cache while several passes are made over them."""
    step = max(1, _CHUNK_BYTES // (4 * size**2))
    return (slice(start, start + step) for start in range(0, count, step))


def _copy_squares(out: np.ndarray, image: np.ndarray, places: Places) -> None:
    size, (height, width) = out.shape[-1], image.shape
    for n, (x, y) in enumerate(zip(places.left.tolist(), places.bottom.tolist())):
        if x >= 0 and y >= 0 and x + size <= width and y + size <= height:
            out[n] = image[y : y + size, x : x + size]
        else:
            x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + size, width), min(y + size, height)
            out[n, y1 - y : y2 - y, x1 - x : x2 - x] = image[y1:y2, x1:x2]


def to_values(values: np.ndarray, held: Held) -> None:
    """Apply BLANK, BSCALE and BZERO in place."""
    kind = values.dtype.type
    if held.blank is not None and values.dtype.kind == "f":
        values[values == kind(held.blank)] = np.nan
    if held.bscale != 1.0:
        values *= kind(held.bscale)
    if held.bzero != 0.0:
        values += kind(held.bzero)


def cut_box(
    held: Held, places: Places, n: int, kind: type[np.number] = np.float32, outside: float = 0
) -> np.ndarray:
    """Copy the box of one source as physical values of a type, filled up beyond the edges."""
    box = places[n : n + 1].boxes((held.numbers.shape[0], held.numbers.shape[1]))
    x1, x2, y1, y2 = (int(v[0]) for v in (box.left, box.right, box.bottom, box.top))
    side, left, bottom = int(places.side[n]), int(places.left[n]), int(places.bottom[n])
    values = held.numbers[y1:y2, x1:x2].astype(kind)
    to_values(values, held)
    if values.shape == (side, side):
        return values
    stamp = np.full((side, side), outside, kind)
    stamp[y1 - bottom : y2 - bottom, x1 - left : x2 - left] = values
    return stamp


def area_resampled(stamp: np.ndarray, places: Places, n: int, size: int) -> np.ndarray:
    """Resample the box of a source to ``size`` pixels: each takes from every input pixel the share of its area.

    The sum of flux over any region of whole output pixels is the flux of the image there; values are
    flux per (new) pixel.

    Parameters
    ----------
    stamp : ndarray, shape (side, side)
    places : Places
        With ``span``.
    n : int
        Which source.
    size : int
    """
    across, along = overlaps(places, n, size)
    return along @ stamp @ across.T


def overlaps(places: Places, n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths, in input pixels, that output columns and rows share with input columns and rows.

    Returns
    -------
    across, along : ndarray, shape (size, side)
        Output pixel k covers ``[start + k step, start + (k + 1) step]`` with step = span / size, around the
        source; input pixel i covers ``[i - 1/2, i + 1/2]``.
    """
    if places.span is None:
        raise ValueError("the stamps have one size")
    span, side = float(places.span[n]), int(places.side[n])
    pixels = np.arange(side) - 0.5
    found = []
    for centre, first in ((places.x[n], places.left[n]), (places.y[n], places.bottom[n])):
        edges = float(centre - first) - span / 2 + span / size * np.arange(size + 1)
        low = np.maximum(edges[:-1, None], pixels)
        high = np.minimum(edges[1:, None], pixels + 1)
        found.append(np.maximum(high - low, 0))
    return found[0], found[1]
