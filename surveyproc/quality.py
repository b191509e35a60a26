"""The bits of the ``quality`` column: flaws an object can live with. No usable pixel is a reject instead."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np

from surveyproc.errors import InputError


class Quality(enum.IntFlag):
    """Named bits; 0 means nothing is known to be wrong.

    Attributes
    ----------
    EDGE
        The cutout reaches beyond its tile.
    NAN_PIXELS
        Some pixels are not finite; they were set to 0.
    MISSING_BAND
        At least one band has no signal where the object is.
    SATURATED
        Pixels are saturated.
    BAD_WCS
        The position in the stamp is not to be trusted.
    DUPLICATE_TILE
        Another tile holds the object too.
    """

    EDGE = 1
    NAN_PIXELS = 2
    MISSING_BAND = 4
    SATURATED = 8
    BAD_WCS = 16
    DUPLICATE_TILE = 32


def describe_bits() -> str:
    """What the column holds, with every bit: its description in Parquet files."""
    return "bit mask of known flaws: " + ", ".join(f"{bit.value} {bit.name}" for bit in Quality)


def flaw_names(value: int | None) -> tuple[str, ...]:
    """Names of the bits of one value of the column; bits without a name are there as a number."""
    known = tuple(str(bit.name) for bit in Quality if (value or 0) & bit)
    rest = (value or 0) & ~sum(Quality)
    return (*known, f"bits {rest}") if rest else known


def quality_bits(column: Any) -> np.ndarray:
    """Read values of the column.

    Parameters
    ----------
    column : pyarrow.Array or pyarrow.ChunkedArray
        Of any type of integers; null is 0.

    Returns
    -------
    numpy.ndarray
        ``(N,)`` int32.

    Raises
    ------
    InputError
        For values that are no bit mask of 31 bits.
    """
    values = column.fill_null(0).to_numpy(zero_copy_only=False)
    if values.min(initial=0) < 0 or values.max(initial=0) > np.iinfo(np.int32).max:
        wrong = values[(values < 0) | (values > np.iinfo(np.int32).max)][0]
        raise InputError(
            f"quality {wrong} is no bit mask: the bits are those of docs/quality.md, and 0 is no flaw",
            where="the catalog's column quality",
            fix="give the column another name where the catalog is written, or write the bits anew",
        )
    return values.astype(np.int32)
