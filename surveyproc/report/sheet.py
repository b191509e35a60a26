"""Panels side by side on one picture: titles, a scale bar, where north and east are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 384  # pixels of a panel, at least
PER_ROW = 4
GAP, TEXT, MARGIN = 8, 40, 12
PAPER, INK, PALE = (14, 17, 23), (225, 228, 235), (150, 156, 168)
BAR_SHARE = 0.35
ARROW = 26

Direction = tuple[float, float]


def make_sheet(
    panels: list[tuple[str, np.ndarray]],
    title: str,
    scale: float | None,
    north_east: tuple[Direction, Direction] | None,
) -> Image.Image:
    """Put panels side by side, `PER_ROW` in a row.

    Parameters
    ----------
    panels : list of (str, numpy.ndarray)
        Title and ``(H, W, 3)`` uint8 of each, of one shape; a title may have a second line after ": ".
    title : str
        Of the whole.
    scale : float, optional
        Arcsec to a pixel: there is a bar where it is known.
    north_east : pair of (float, float), optional
        From `directions`: there is a compass where they are known.

    Returns
    -------
    PIL.Image.Image
    """
    height, width = panels[0][1].shape[:2]
    zoom = max(1, -(-SIDE // max(height, width)))
    across = min(PER_ROW, len(panels))
    down = -(-len(panels) // across)
    wide, high = width * zoom, height * zoom
    size = (2 * MARGIN + across * (wide + GAP) - GAP, 2 * MARGIN + down * (high + TEXT) + TEXT)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)
    for k, (name, rgb) in enumerate(panels):
        left = MARGIN + (k % across) * (wide + GAP)
        top = MARGIN + (k // across) * (high + TEXT)
        panel = Image.fromarray(np.ascontiguousarray(rgb))
        sheet.paste(panel.resize((wide, high), Image.Resampling.NEAREST), (left, top))
        if scale is not None:
            _bar(draw, left, top + high, wide, scale / zoom)
        if north_east is not None:
            _compass(draw, left + wide - 2 * ARROW, top + 2 * ARROW, north_east)
        for line, text in enumerate(_fitting(draw, name, font, wide)):
            draw.text((left, top + high + 3 + 17 * line), text, fill=INK, font=font)
    draw.text((MARGIN, size[1] - TEXT + 8), title, fill=PALE, font=font)
    return sheet


def _fitting(draw: ImageDraw.ImageDraw, text: str, font: Any, width: int) -> Iterator[str]:
    """Cut a title into two lines at most, at its colon, where it is too long for one."""
    if draw.textlength(text, font=font) <= width or ": " not in text:
        yield text
        return
    yield from text.split(": ", 1)


def _bar(draw: ImageDraw.ImageDraw, left: int, bottom: int, width: int, arcsec: float) -> None:
    """Draw a bar of a round length on the lower left, with its length; ``arcsec`` to a pixel of the sheet."""
    length = round_length(BAR_SHARE * width * arcsec)
    pixels = length / arcsec
    x, y = left + 10, bottom - 12
    label = f"{length / 60:g}'" if length >= 60 else f'{length:g}"'
    font = ImageFont.load_default(size=15)
    for colour, grow in (((0, 0, 0), 1), ((255, 255, 255), 0)):
        draw.rectangle((x - grow, y - grow, x + pixels + grow, y + 2 + grow), fill=colour)
    draw.text((x, y - 21), label, fill=(255, 255, 255), font=font, stroke_width=1, stroke_fill=(0, 0, 0))


def directions(cd: np.ndarray, upwards: bool) -> tuple[Direction, Direction] | None:
    """Where north and east are on a picture.

    Parameters
    ----------
    cd : numpy.ndarray
        ``(2, 2)`` degrees to a pixel: rows are RA and Dec, columns x and y of the stamp's array.
    upwards : bool
        The picture shows y upwards.

    Returns
    -------
    pair of (float, float)
        Unit vectors (right, down) on the picture; None for a singular matrix.
    """
    if not np.isfinite(cd).all() or np.linalg.det(cd) == 0:
        return None
    right, down = np.linalg.inv(cd)
    if upwards:
        down = -down
    east, north = ((float(x / math.hypot(x, y)), float(y / math.hypot(x, y))) for x, y in zip(right, down))
    return north, east


def _compass(draw: ImageDraw.ImageDraw, x: float, y: float, north_east: tuple[Direction, Direction]) -> None:
    """Draw a line to north and one to east from a point, with their letters."""
    font = ImageFont.load_default(size=15)
    for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 2)):
        for right, down in north_east:
            draw.line((x, y, x + ARROW * right, y + ARROW * down), fill=colour, width=width)
    for letter, (right, down) in zip("NE", north_east):
        place = x + 1.45 * ARROW * right, y + 1.45 * ARROW * down
        draw.text(place, letter, (255, 255, 255), font, anchor="mm", stroke_width=1, stroke_fill=(0, 0, 0))


def round_length(longest: float) -> float:
    """The longest of 1, 2, 5, 10, ... times a power of ten that is not above ``longest`` arcsec; from a minute on, minutes."""
    if longest >= 60:
        return 60 * round_length(longest / 60) if longest < 3600 else 3600.0
    power = 10.0 ** math.floor(math.log10(longest))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= longest * (1 + 1e-9))
