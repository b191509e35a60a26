"""Printing rows in the formats that programs and people read."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from typing import Any

FORMATS = ("table", "csv", "json")


def print_rows(names: Sequence[str], rows: Sequence[Sequence[Any]], form: str) -> None:
    """Print rows to stdout.

    Parameters
    ----------
    names : sequence of str
        Column names.
    rows : sequence of sequences
    form : str
        ``table``, ``csv`` or ``json`` (a list of objects; 64-bit integers stay exact).
    """
    if form == "json":
        json.dump([dict(zip(names, row)) for row in rows], sys.stdout, indent=1, default=str)
        print()
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
    else:
        _print_table(names, rows)


def print_json(value: Any) -> None:
    """Print one JSON object to stdout."""
    json.dump(value, sys.stdout, indent=1, default=str)
    print()


def _print_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    cells = [[_text(value) for value in row] for row in rows]
    widths = [max([len(n), *(len(row[i]) for row in cells)]) for i, n in enumerate(names)]
    right = [all(isinstance(row[i], (int, float, type(None))) for row in rows) for i in range(len(names))]
    for row in [list(names), ["-" * w for w in widths], *cells]:
        aligned = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right))
        print("  ".join(aligned).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
