"""The header cards that make a WCS, and what contradicts itself in them."""

from __future__ import annotations

import math
import re
from typing import Any

from surveyproc.ingest.tiles.headers import BadFile

_WCS_CARD = re.compile(
    r"WCSAXES|(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)\d|(CD|PC)\d_\d|PC\d{6}|(PV|PS)\d_\d+|[AB]P?_(ORDER|DMAX|\d+_\d+)"
    r"|RADESYS|RADECSYS|EQUINOX|EPOCH|LONPOLE|LATPOLE"
)
DISAGREEMENT = 0.05


def wcs_cards(header: Any) -> str:
    """Keep the cards of a header that its WCS needs.

    Raises
    ------
    BadFile
        When one of them is damaged.
    """
    kept = []
    for card in header.cards:
        if _WCS_CARD.fullmatch(card.keyword):
            try:
                kept.append((card.image, card.value)[0])
            except Exception as error:  # astropy and Python raise several kinds for damaged cards
                raise BadFile("no_wcs", f"{card.keyword} of the WCS cannot be read") from error
    return "".join(kept)


def contradiction(cards: str) -> str:
    """Say what is contradictory in the linear part of a WCS; empty when nothing is.

    CDi_j holds the scale itself; PCi_j and CROTA want CDELT beside them. Headers with both were
    written by several tools one after the other, and wcslib takes them without an error.
    """
    from astropy.io.fits import Header

    header = {card.keyword: card.value for card in Header.fromstring(cards).cards}
    linear = [key for key in header if re.fullmatch(r"(CD|CDELT).*", key)]
    if unreadable := [key for key in linear if not isinstance(header[key], (int, float))]:
        return f"{unreadable[0]} is no number"
    cd = {key: float(header[key]) for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2") if key in header}
    if not cd:
        return ""
    if any(re.fullmatch(r"PC\d_\d|PC\d{6}", key) for key in header):
        return "the header mixes CDi_j and PCi_j"
    full = {key: cd.get(key, 0.0) for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2")}
    area = abs(full["CD1_1"] * full["CD2_2"] - full["CD1_2"] * full["CD2_1"])
    if area == 0:
        return "the CD matrix is incomplete"
    deltas = [abs(float(header.get(key, 1.0))) for key in ("CDELT1", "CDELT2")]
    if deltas != [1.0, 1.0] and abs(math.sqrt(deltas[0] * deltas[1] / area) - 1) > DISAGREEMENT:
        return "CDELT and the CD matrix say different pixel scales"
    return ""
