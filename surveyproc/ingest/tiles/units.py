"""Flux units and AB zero points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from surveyproc.errors import UsageError, did_you_mean
from surveyproc.units import NANOMAGGY_ZEROPOINT, ZEROPOINTS, nanomaggies_per_unit

MAGNITUDE_KEYS = ("MAGZERO", "ZEROPOINT", "PHOTZP", "MAGZP", "MZP_AB")
FLUX_KEYS = ("FLUXMAG0",)
AGREEMENT_MAG = 0.005
EVERY_BAND = "*"
CONVENTION = (
    3  # decimals: a nanojansky is 31.4 mag by convention, with 3631 Jy at magnitude 0 it would be 31.40007
)


def output_zeropoint(unit: str) -> float:
    """AB magnitude of one unit of the output.

    Raises
    ------
    UsageError
        For an unknown unit.
    """
    if unit not in ZEROPOINTS:
        raise UsageError(
            f"unknown flux unit {unit!r}.{did_you_mean(unit, ZEROPOINTS)}",
            where="--unit",
            fix=f"one of {', '.join(ZEROPOINTS)}",
        )
    return ZEROPOINTS[unit]


def scale_factor(zeropoint: float, unit: str) -> float:
    """Factor from image units with this AB zero point to a flux unit: ``10**((zp_out - zp) / 2.5)``."""
    return 10 ** ((output_zeropoint(unit) - zeropoint) / 2.5)


def by_band(zeropoints: Mapping[str, float], bands: Iterable[str]) -> dict[str, float]:
    """Give the zero point named ``*`` to every band that has none of its own."""
    found = {band: value for band, value in zeropoints.items() if band != EVERY_BAND}
    if EVERY_BAND in zeropoints:
        found = dict.fromkeys(bands, zeropoints[EVERY_BAND]) | found
    return found


def find_zeropoints(
    headers: Iterable[Mapping[str, Any]], keys: Iterable[str] = MAGNITUDE_KEYS + FLUX_KEYS
) -> dict[str, float]:
    """Collect what headers say of the AB zero point, by keyword.

    The first header that says anything counts: the one of the HDU stands before the primary one.

    Returns
    -------
    dict of str to float
        AB magnitude of one unit of the image; empty when nothing is said.
    """
    for header in headers:
        found = {key: value for key in keys if (value := _magnitude(key, header.get(key))) is not None}
        unit = nanomaggies_per_unit(str(header.get("BUNIT", "")))
        if unit is not None:
            found[f"BUNIT {header['BUNIT']}"] = round(
                NANOMAGGY_ZEROPOINT - 2.5 * math.log10(unit), CONVENTION
            )
        if found:
            return found
    return {}


def disagreement(found: Mapping[str, float]) -> str:
    """What headers say of a zero point when they say different ones; empty when they agree."""
    if max(found.values()) - min(found.values()) <= AGREEMENT_MAG:
        return ""
    return ", ".join(f"{key} {value:g}" for key, value in found.items())


def _magnitude(key: str, value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    if key not in FLUX_KEYS:
        return float(value)
    return 2.5 * math.log10(value) if value > 0 else None
