"""Diagrams of how good predictions are, as inline SVG coloured by the page's style sheet."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SIDE = 176
LINE, LABELS, SPAN = 22, 190, 340


@dataclass(frozen=True)
class Mark:
    """One line of `dot_lines`: a value, its interval, and the value of doing nothing."""

    name: str
    value: float
    interval: Sequence[float] | None
    constant: float | None


def reliability_svg(title: str, bins: list[dict[str, Any]]) -> str:
    """Draw observed against predicted fractions.

    Parameters
    ----------
    title : str
        Plain text.
    bins : list of dict
        ``predicted``, ``observed``, ``low``, ``high``, ``n``: from `votes.metrics.reliability`.
    """
    most = max((b["n"] for b in bins), default=1)
    bars = "".join(
        f'<rect x="{b["low"] * SIDE:.1f}" y="{SIDE - _height(b["n"], most):.1f}" '
        f'width="{(b["high"] - b["low"]) * SIDE - 1:.1f}" height="{_height(b["n"], most):.1f}"/>'
        for b in bins
    )
    points = [(b["predicted"] * SIDE, SIDE - b["observed"] * SIDE) for b in bins]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
    ticks = "".join(
        f'<text x="{v * SIDE:.0f}" y="{SIDE + 13}" text-anchor="{anchor}">{v:g}</text>'
        for v, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    ) + "".join(
        f'<text x="-4" y="{SIDE - v * SIDE + 4:.0f}" text-anchor="end">{v:g}</text>' for v in (0.5, 1)
    )
    number = sum(b["n"] for b in bins)
    facts = f"{number:,} answers" if bins else "no galaxy was asked"
    safe = html.escape(title)
    return (
        f'<figure class="chart"><figcaption>{safe}</figcaption>'
        f'<svg viewBox="-18 -4 {SIDE + 24} {SIDE + 22}" role="img" aria-label="reliability of {safe}: {facts}">'
        f'<rect class="axis" x="0" y="0" width="{SIDE}" height="{SIDE}"/><g class="pale">{bars}</g>'
        f'<line class="mean" x1="0" y1="{SIDE}" x2="{SIDE}" y2="0"/>'
        f'<polyline class="line" points="{path}"/><g class="bars">{dots}</g>{ticks}</svg>'
        f"<small>predicted across, observed up; {facts}</small></figure>"
    )


def dot_lines(title: str, marks: Sequence[Mark], low: float, high: float, line: float | None = None) -> str:
    """Draw values with their intervals, one below the other.

    Parameters
    ----------
    title : str
        Plain text.
    low, high : float
        Ends of the scale.
    line : float, optional
        A value that all should have.
    """

    def place(value: float) -> float:
        return LABELS + SPAN * (min(max(value, low), high) - low) / (high - low)

    parts = []
    tall = LINE * len(marks)
    for number, mark in enumerate(marks):
        y = LINE * number + LINE / 2
        name = html.escape(mark.name)
        parts.append(f'<text x="{LABELS - 8}" y="{y + 3:.1f}" text-anchor="end">{name}</text>')
        parts.append(f'<line class="grid" x1="{LABELS}" x2="{LABELS + SPAN}" y1="{y}" y2="{y}"/>')
        if mark.interval:
            x1, x2 = (place(v) for v in mark.interval)
            parts.append(f'<line class="whisker" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y}" y2="{y}"/>')
        if mark.constant is not None:
            x = place(mark.constant)
            parts.append(f'<line class="dash" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 6}" y2="{y + 6}"/>')
        parts.append(f'<circle class="dot" cx="{place(mark.value):.1f}" cy="{y}" r="4"/>')
        parts.append(f'<text x="{LABELS + SPAN + 8}" y="{y + 3:.1f}">{mark.value:.3f}</text>')
    if line is not None:
        x = place(line)
        parts.append(f'<line class="mean" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{tall}"/>')
    ticks = "".join(
        f'<text x="{place(v):.0f}" y="{tall + 14}" text-anchor="middle">{v:.2g}</text>'
        for v in (low, (low + high) / 2, high)
    )
    safe = html.escape(title)
    return (
        f'<figure class="chart wide"><figcaption>{safe}</figcaption>'
        f'<svg viewBox="0 -2 {LABELS + SPAN + 46} {tall + 20}" role="img" aria-label="{safe}">{"".join(parts)}'
        f'<line class="axis" x1="{LABELS}" x2="{LABELS + SPAN}" y1="{tall}" y2="{tall}"/>{ticks}</svg></figure>'
    )


def curve_svg(title: str, series: dict[str, list[tuple[float, float]]], across: str, up: str) -> str:
    """Draw up to three curves over [0, 1] x [lowest value, 1].

    Parameters
    ----------
    title, across, up : str
        Plain text: the title and what the axes are.
    series : dict
        Name to points ``(x, y)``; the first is drawn solid, the others as dots.
    """
    values = [y for points in series.values() for _, y in points]
    floor = math.floor(10 * min(values, default=0.0)) / 10
    floor = min(floor, 0.9)

    def place(x: float, y: float) -> tuple[float, float]:
        return x * SPAN, SIDE - SIDE * (y - floor) / (1 - floor)

    drawn = []
    for number, points in enumerate(series.values()):
        spots = [place(x, y) for x, y in points]
        if number == 0:
            drawn.append(
                f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in spots)}"/>'
            )
        else:
            drawn.append(
                "".join(f'<circle class="measured" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in spots)
            )
    ticks = "".join(
        f'<text x="{v * SPAN:.0f}" y="{SIDE + 13}" text-anchor="middle">{v:g}</text>'
        for v in (0, 0.25, 0.5, 0.75, 1)
    )
    ticks += "".join(
        f'<text x="-4" y="{place(0, v)[1] + 4:.0f}" text-anchor="end">{v:.2g}</text>'
        for v in (floor, (floor + 1) / 2, 1)
    )
    safe = html.escape(title)
    legend = "; ".join(
        f"{'line' if number == 0 else 'dots'}: {html.escape(name)}" for number, name in enumerate(series)
    )
    return (
        f'<figure class="chart wide"><figcaption>{safe}</figcaption>'
        f'<svg viewBox="-34 -6 {SPAN + 60} {SIDE + 24}" role="img" aria-label="{safe}">'
        f'<rect class="axis" x="0" y="0" width="{SPAN}" height="{SIDE}"/>{"".join(drawn)}{ticks}</svg>'
        f"<small>{html.escape(across)} across, {html.escape(up)} up; {legend}</small></figure>"
    )


def _height(number: int, most: int) -> float:
    return 0.3 * SIDE * math.sqrt(number / most)
