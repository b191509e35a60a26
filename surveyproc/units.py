"""Flux units of pixels, and AB zero points."""

from __future__ import annotations

import math

NANOMAGGY_ZEROPOINT = 22.5  # AB magnitude of one nanomaggy
# AB magnitude of one unit, with the decimals that are in use.
ZEROPOINTS = {
    "nJy": 31.4,
    "nanomaggy": NANOMAGGY_ZEROPOINT,
    "uJy": 23.9,
    "mJy": 16.4,
    "Jy": 8.9,
    "maggy": 0.0,
}
NANOMAGGY_JANSKY = 3631e-9  # AB: one maggy is 3631 Jy
_JANSKY = {"jy": 1.0, "mjy": 1e-3, "ujy": 1e-6, "microjy": 1e-6, "njy": 1e-9}
_MAGGY = {"maggy": 1e9, "maggies": 1e9, "nanomaggy": 1.0, "nanomaggies": 1.0, "nmgy": 1.0, "nmaggy": 1.0}
KNOWN = "nanomaggy, nJy, uJy, mJy, Jy"
_TOLERANCE = 1e-3  # magnitudes: AB zero points are given as 31.4 or 8.9, exact ones have more digits


def nanomaggies_per_unit(unit: str | None, zeropoint: float | None = None) -> float | None:
    """How many nanomaggies one unit of flux is.

    One nanomaggy is 3631 nJy and has AB magnitude 22.5: ``10^(0.4 (22.5 - zeropoint))`` for other units.

    Parameters
    ----------
    unit : str, optional
        ``nanomaggy``, ``nJy``, ``uJy``, ``mJy``, ``Jy`` and their usual spellings, in any case, with or without
        "per pixel"; any other word, such as ``count``, needs a zero point.
    zeropoint : float, optional
        AB magnitude of one unit.

    Returns
    -------
    float or None
        None when neither says it, or when the two contradict each other by more than 0.001 magnitudes.
    """
    word = (unit or "").lower().replace("µ", "u").replace("μ", "u").replace(" ", "")
    word = word.removesuffix("/pixel").removesuffix("/pix").removesuffix("perpixel")
    known = _MAGGY.get(word) or (_JANSKY[word] / NANOMAGGY_JANSKY if word in _JANSKY else None)
    if zeropoint is None or not math.isfinite(zeropoint):
        return known
    stated = 10 ** (0.4 * (NANOMAGGY_ZEROPOINT - zeropoint))
    if known is None:
        return stated
    return known if abs(2.5 * math.log10(known / stated)) <= _TOLERANCE else None
