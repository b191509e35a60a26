"""Small charts as inline SVG and HTML, coloured by the page's style sheet."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable

import numpy as np

from surveyproc.report.pictures import png_uri
from surveyproc.report.summary import Histogram

WIDTH, HEIGHT = 176, 84
MAP_COLOUR = (92, 108, 232)
PATCH_SHARE, PATCH_WIDEST = 0.9, 60  # a patch map is drawn when so much of the survey is so narrow


def histogram_svg(histogram: Histogram, title: str) -> str:
    """Draw a histogram over [0, 1] with its mean and count."""
    counts = histogram.counts
    tallest = max(int(counts.max()), 1)
    step = WIDTH / len(counts)
    bars = "".join(
        f'<rect x="{k * step:.2f}" y="{HEIGHT - HEIGHT * c / tallest:.2f}" width="{step - 1:.2f}" '
        f'height="{HEIGHT * c / tallest:.2f}"/>'
        for k, c in enumerate(counts.tolist())
        if c
    )
    ticks = "".join(
        f'<text x="{x * WIDTH:.0f}" y="{HEIGHT + 13}" text-anchor="{anchor}">{x:g}</text>'
        for x, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    mean = (
        f'<line class="mean" x1="{histogram.mean * WIDTH:.1f}" x2="{histogram.mean * WIDTH:.1f}" y1="0" y2="{HEIGHT}"/>'
        if histogram.rows
        else ""
    )
    missing = f", {histogram.missing:,} null" if histogram.missing else ""
    facts = f"mean {histogram.mean:.2f}, {histogram.rows:,} rows{missing}" if histogram.rows else "no values"
    safe = html.escape(title)
    return (
        f'<figure class="chart"><figcaption>{safe}</figcaption>'
        f'<svg viewBox="-2 -2 {WIDTH + 4} {HEIGHT + 18}" role="img" aria-label="histogram of {safe}: {facts}">'
        f'<g class="bars">{bars}</g>{mean}<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
        f"{ticks}</svg><small>{facts}</small></figure>"
    )


def meter(label: str, value: float, largest: float, text: str) -> str:
    """Draw one line of a bar chart."""
    share = 100 * value / largest if largest > 0 else 0
    return (
        f'<div class="meter"><span>{html.escape(label)}</span>'
        f'<i><b style="width:{share:.1f}%"></b></i><span>{html.escape(text)}</span></div>'
    )


def sky_map(cells: np.ndarray, width: int = 760) -> str:
    """Draw counts per cell on a Mollweide map, RA 180 in the middle and growing to the left.

    Parameters
    ----------
    cells : numpy.ndarray
        ``(rows, columns)`` counts from Dec -90 and RA 0.
    width : int
        Pixels.

    Returns
    -------
    str
        HTML of a figure.
    """
    height = width // 2
    y, x = np.mgrid[:height, :width]
    u, v = (x + 0.5) / width * 2 - 1, 1 - (y + 0.5) / height * 2
    theta = np.arcsin(np.clip(v, -1, 1))
    inside = u**2 + v**2 < 1
    dec = np.degrees(np.arcsin(np.clip((2 * theta + np.sin(2 * theta)) / math.pi, -1, 1)))
    ra = 180 - 180 * u / np.maximum(np.cos(theta), 1e-9)
    row = np.clip(((dec + 90) / 180 * cells.shape[0]).astype(int), 0, cells.shape[0] - 1)
    column = np.where(inside, (ra / 360 * cells.shape[1]), 0).astype(int) % cells.shape[1]
    counts = np.where(inside, cells[row, column], 0)
    depth = np.sqrt(counts / max(int(cells.max()), 1))
    rgba = np.zeros((height, width, 4), dtype=np.uint8)
    rgba[..., :3] = MAP_COLOUR
    rgba[..., 3] = np.where(counts > 0, 90 + 165 * depth, 0)
    lines = "".join(_meridian(r, width, height) for r in range(30, 360, 30)) + "".join(
        _parallel(d, width, height) for d in range(-60, 90, 30)
    )
    labels = "".join(
        f'<text x="{_project(r, 0, width, height)[0]:.0f}" y="{height / 2 + 13:.0f}" text-anchor="middle">'
        f"{r}°</text>"
        for r in range(60, 360, 60)
    )
    return (
        f'<figure class="sky"><svg viewBox="-2 -2 {width + 4} {height + 4}" role="img" aria-label="sky density">'
        f'<ellipse class="axis" cx="{width / 2}" cy="{height / 2}" rx="{width / 2}" ry="{height / 2}"/>{lines}'
        f'<image href="{png_uri(rgba)}" width="{width}" height="{height}"/>{labels}</svg>'
        f"<small>Mollweide projection, RA of the meridians in degrees, growing to the left. Densest square degree "
        f"cell in RA and Dec: {int(cells.max()):,} objects; colour goes with the square root.</small></figure>"
    )


def patch_map(cells: np.ndarray, width: int = 760) -> str:
    """Draw the part of the sky that holds most of a small survey; empty for a wide one.

    Parameters
    ----------
    cells : numpy.ndarray
        ``(180, 360)`` counts from Dec -90 and RA 0.
    width : int
        Pixels.

    Returns
    -------
    str
        HTML of a figure.
    """
    start, span = _densest_arc(cells.sum(0))
    if span > PATCH_WIDEST:
        return ""
    patch = np.roll(cells, -start, axis=1)[:, :span]
    rows = np.flatnonzero(patch.sum(1))
    low, high = int(rows[0]), int(rows[-1]) + 1
    patch = patch[low:high]
    size = min(width / span, 400 / (high - low))
    most = int(patch.max())
    rects = "".join(
        f'<rect x="{(span - 1 - c) * size:.1f}" y="{(high - low - 1 - r) * size:.1f}" width="{size:.1f}" '
        f'height="{size:.1f}" fill-opacity="{0.15 + 0.85 * math.sqrt(patch[r, c] / most):.2f}"/>'
        for r, c in np.argwhere(patch).tolist()
    )
    tall, across = (high - low) * size, span * size
    labels = (
        f'<text x="0" y="{tall + 14:.0f}">RA {(start + span) % 360}°</text>'
        f'<text x="{across:.0f}" y="{tall + 14:.0f}" text-anchor="end">RA {start % 360}°</text>'
        f'<text x="{across + 6:.0f}" y="{tall:.0f}">Dec {low - 90}°</text>'
        f'<text x="{across + 6:.0f}" y="10">Dec {high - 90}°</text>'
    )
    return (
        f'<figure class="sky"><svg viewBox="-2 -2 {across + 70:.0f} {tall + 22:.0f}" role="img" '
        f'aria-label="the densest patch"><g class="cells">{rects}</g>{labels}</svg>'
        f"<small>The patch with {PATCH_SHARE:.0%} of the objects, in cells of one degree of RA and Dec.</small></figure>"
    )


def _densest_arc(counts: np.ndarray) -> tuple[int, int]:
    """Find the shortest arc of RA that holds `PATCH_SHARE` of the objects: first cell and number of cells."""
    twice = np.concatenate([[0], np.cumsum(np.concatenate([counts, counts]))])
    needed = PATCH_SHARE * counts.sum()
    stops = np.searchsorted(twice, twice[: len(counts)] + needed)
    spans = stops - np.arange(len(counts))
    start = int(np.argmin(spans))
    return start, min(int(spans[start]), len(counts))


def _project(ra: float, dec: float, width: int, height: int) -> tuple[float, float]:
    theta = math.radians(dec)
    for _ in range(20):
        slope = 2 + 2 * math.cos(2 * theta)
        if slope < 1e-9:
            break
        theta -= (2 * theta + math.sin(2 * theta) - math.pi * math.sin(math.radians(dec))) / slope
    return width / 2 * (1 - (ra - 180) / 180 * math.cos(theta)), height / 2 * (1 - math.sin(theta))


def _meridian(ra: float, width: int, height: int) -> str:
    points = (_project(ra, dec, width, height) for dec in range(-88, 89, 4))
    return _path(points)


def _parallel(dec: float, width: int, height: int) -> str:
    return _path(_project(ra, dec, width, height) for ra in (0, 360))


def _path(points: Iterable[tuple[float, float]]) -> str:
    return f'<polyline class="grid" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
