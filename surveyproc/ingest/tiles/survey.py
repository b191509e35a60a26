"""Survey the tiles of a layout by their headers only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from surveyproc.errors import InputError
from surveyproc.ingest.tiles.headers import BadFile, Unit, walk
from surveyproc.ingest.tiles.layout import Layout, match_files
from surveyproc.ingest.tiles.source import Source, open_source
from surveyproc.ingest.tiles.tile import Band, Plane, Tile
from surveyproc.ingest.tiles.units import AGREEMENT_MAG, find_zeropoints
from surveyproc.ingest.tiles.wcs import border, celestial, pixel_scale, pixel_to_sky, separation_deg

GRID_TOLERANCE_PX = 0.05
_WCS_KEYS = (
    "WCSAXES",
    "CTYPE",
    "CRVAL",
    "CRPIX",
    "CDELT",
    "CUNIT",
    "CROTA",
    "CD",
    "PC",
    "PV",
    "A_",
    "B_",
    "AP_",
    "BP_",
)
_WCS_KEYS += ("RADESYS", "RADECSYS", "EQUINOX", "EPOCH", "LONPOLE", "LATPOLE", "MJD-OBS", "DATE-OBS")


def find_tiles(layout: Layout) -> list[Tile]:
    """Read the headers of all tiles of a layout.

    Returns
    -------
    list of Tile
        Sorted by name. One whose `Tile.problem` is set cannot give cutouts: its sources are rejects.

    Raises
    ------
    InputError
        When there is no tile, no tile can be used, a band is in none of them, or a zero point is unknown.
    """
    files = match_files(layout)
    for band in layout.bands:
        if not any(band in found for found in files.values()):
            raise InputError(
                f"no tile has band {band}",
                where=layout.pattern,
                fix="check --bands and how the file names spell them",
            )
    tiles = [read_tile(layout, name, found) for name, found in files.items()]
    if all(tile.problem[0] for tile in tiles):
        raise InputError(
            f"none of {len(tiles)} tiles can be used: {tiles[0].problem[1]}",
            where=f"tile {tiles[0].name}",
            fix="see what the first of them is",
        )
    return tiles


def read_tile(layout: Layout, name: str, files: dict[str, str]) -> Tile:
    """Read the headers of one tile.

    Parameters
    ----------
    layout : Layout
    name : str
    files : dict of str to str
        Band to path or URL; an absent band is missing.

    Returns
    -------
    Tile

    Raises
    ------
    InputError
        When the zero point of a band is unknown or contradictory.
    """
    bands: list[Band] = []
    problem = ("", "")
    grids: list[tuple[str, tuple[int, int]]] = []
    for band in layout.bands:
        if band not in files:
            bands.append(Band(band, None))
            continue
        try:
            image, cards, facts = _read_band(layout, band, files[band])
            bands.append(Band(band, image, **facts))
            grids.append((cards, image.shape))
            if cards:
                celestial(cards)
        except BadFile as error:
            problem = problem if problem[0] else (error.reason, f"{files[band]}: {error.detail}")
            bands.append(Band(band, None))
    tile = Tile(name, tuple(bands), problem=problem)
    usable = [(cards, shape) for cards, shape in grids if _is_celestial(cards)]
    if not usable:
        return tile
    tile = _with_position(tile, *usable[0])
    if not problem[0] and any(not _same_grid(usable[0], other) for other in usable[1:]):
        tile = replace(tile, problem=("different_grids", "the bands are not on one pixel grid (--resample)"))
    return tile


def _is_celestial(cards: str) -> bool:
    try:
        celestial(cards)
    except BadFile:
        return False
    return True


def _with_position(tile: Tile, cards: str, shape: tuple[int, int]) -> Tile:
    height, width = shape
    middle = np.array([(width - 1) / 2]), np.array([(height - 1) / 2])
    ra0, dec0 = (float(v[0]) for v in pixel_to_sky(cards, *middle))
    ra, dec = border(cards, shape)
    radius = float(np.max(separation_deg(ra0, dec0, ra, dec)))
    sides = slice(None, None, len(ra) // 4)
    return replace(
        tile,
        shape=shape,
        wcs=cards,
        pixel_scale_arcsec=float(pixel_scale(cards, *middle)[0]),
        corners=tuple((float(a), float(b)) for a, b in zip(ra[sides], dec[sides])),
        centre=(ra0, dec0),
        radius_deg=radius,
    )


def _same_grid(one: tuple[str, tuple[int, int]], other: tuple[str, tuple[int, int]]) -> bool:
    """Whether the corners and the centre of two images are at the same pixels of both."""
    from surveyproc.ingest.tiles.wcs import sky_to_pixel

    if one[1] != other[1]:
        return False
    if one[0] == other[0]:
        return True
    height, width = one[1]
    x = np.array([0, width - 1, 0, width - 1, (width - 1) / 2])
    y = np.array([0, 0, height - 1, height - 1, (height - 1) / 2])
    moved = sky_to_pixel(other[0], *pixel_to_sky(one[0], x, y))
    return bool(np.max(np.hypot(moved[0] - x, moved[1] - y)) < GRID_TOLERANCE_PX)


def _read_band(layout: Layout, band: str, uri: str) -> tuple[Plane, str, dict[str, Any]]:
    source = open_source(uri)
    try:
        units = []
        for unit in walk(source):
            units.append(unit)
            if len(unit.axes) >= 2:
                break
        else:
            raise BadFile("no_image", "there is no image in it")
        plane = _plane(source, units[-1], 0)
        headers = [units[-1].header, units[0].header]
        zeropoint = _zeropoint(layout, band, uri, headers)
        return plane, wcs_cards(units[-1].header), {"zeropoint": zeropoint}
    finally:
        source.close()


def _plane(source: Source, unit: Unit, index: int) -> Plane:
    header = unit.header
    shape = (unit.axes[-2], unit.axes[-1])
    bitpix = int(header["BITPIX"])
    size = math.prod(shape) * abs(bitpix) // 8
    offset = unit.offset + index * size
    if offset + size > source.size:
        raise BadFile("truncated", f"the file has {source.size} bytes where {offset + size} are needed")
    return Plane(
        uri=source.uri,
        hdu=unit.number,
        slice=index,
        shape=shape,
        bitpix=bitpix,
        offset=offset,
        packing="plain",
        bscale=float(header.get("BSCALE", 1.0)),
        bzero=float(header.get("BZERO", 0.0)),
        blank=header.get("BLANK"),
        bytes=size,
        version=(source.size, source.version),
    )


def _zeropoint(layout: Layout, band: str, uri: str, headers: Sequence[Any]) -> float:
    if band in layout.zeropoints:
        return layout.zeropoints[band]
    found = find_zeropoints(headers, layout.zeropoint_keys)
    if not found:
        raise InputError(
            f"the zero point of band {band} is unknown: no flux unit in BUNIT and none of {', '.join(layout.zeropoint_keys)}",
            where=uri,
            fix=f"give the AB magnitude of one unit of the image: --zeropoint {band}=22.5",
        )
    values = list(found.values())
    if max(values) - min(values) > AGREEMENT_MAG:
        said = ", ".join(f"{key} {value:g}" for key, value in found.items())
        raise InputError(
            f"the header contradicts itself on the zero point of band {band}: {said}",
            where=uri,
            fix=f"say which is right: --zeropoint {band}=...",
        )
    return values[0]


def wcs_cards(header: Any) -> str:
    """Keep the cards of a header that its WCS needs."""
    return "".join(card.image for card in header.cards if card.keyword.startswith(_WCS_KEYS))
