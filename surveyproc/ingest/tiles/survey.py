"""Survey the tiles of a layout by their headers only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from surveyproc.errors import InputError
from surveyproc.ingest.tiles.bands import NoZeropoint, read_band
from surveyproc.ingest.tiles.headers import BadFile
from surveyproc.ingest.tiles.layout import Layout
from surveyproc.ingest.tiles.matching import Files, match_files
from surveyproc.ingest.tiles.tile import Band, Tile
from surveyproc.ingest.tiles.wcs import (
    border,
    celestial,
    pixel_scale,
    pixel_to_sky,
    separation_deg,
    sky_to_pixel,
)
from surveyproc.ingest.tiles.wcscards import contradiction

GRID_TOLERANCE_PX = 0.05
SCALE_TOLERANCE = 0.05
FEWEST_TO_COMPARE, MOST_ODD = 3, 0.1
_THREADS = 8

Grid = tuple[str, tuple[int, int]]  # WCS cards and shape


def find_tiles(layout: Layout) -> list[Tile]:
    """Read the headers of all tiles of a layout.

    Returns
    -------
    list of Tile
        Sorted by name. One whose `Tile.problem` is set cannot give cutouts: its sources are rejects.

    Raises
    ------
    InputError
        When there is no tile, no tile can be used, a band is in none of them, no tile has the pixel scale
        expected, or a zero point is unknown.
    """
    files = match_files(layout)
    with ThreadPoolExecutor(_THREADS) as pool:
        tiles = list(pool.map(lambda name: read_tile(layout, name, files[name]), files))
    if not layout.pixel_scale_arcsec:
        tiles = _doubt_odd_scales(tiles)
    usable = [tile for tile in tiles if not tile.problem[0]]
    if not usable:
        raise InputError(
            f"none of {len(tiles)} tiles can be used: {tiles[0].problem[1]}"
            if len(tiles) > 1
            else f"the tile cannot be used: {tiles[0].problem[1]}",
            where="; ".join(f"tile {tile.name}: {tile.problem[0]}" for tile in tiles[:5]),
            fix=_ADVICE.get(tiles[0].problem[0], "see what the first of them is"),
        )
    for band in layout.bands:
        if all(b.image is None for tile in usable for b in tile.bands if b.name == band):
            raise InputError(
                f"no usable tile has band {band}",
                where=layout.pattern,
                fix="check --bands; a cube names its bands in the header (BANDS, BAND0 ...)",
            )
    _refuse_wrong_scale(layout, usable)
    return tiles


_ADVICE = {
    "different_grids": "give --resample to bring the bands to the grid of the first one",
    "truncated": "get the files again",
    "unreadable": "get the files again",
    "no_wcs": "write the tile's celestial WCS into the header (CTYPE, CRVAL, CRPIX, CD), or name another HDU: --hdu",
    "no_image": "name the HDU of the image: --hdu NUMBER_OR_NAME",
}


def read_tile(layout: Layout, name: str, files: Files) -> Tile:
    """Read the headers of one tile.

    Parameters
    ----------
    layout : Layout
    name : str
    files : dict
        ``(plane, band)`` to path or URL; an absent image is a missing band.

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
    unknown: list[NoZeropoint] = []
    lost: list[Grid] = []
    for name_of_band in layout.bands:
        try:
            bands.append(read_band(layout, name_of_band, files))
        except BadFile as error:
            where = files.get(("image", name_of_band), "")
            problem = problem if problem[0] else (error.reason, f"{where}: {error.detail}")
            bands.append(Band(name_of_band, None))
            lost += [error.grid] if error.grid else []
        except NoZeropoint as error:
            unknown.append(error)
    if unknown:
        raise _unknown_zeropoints(layout, unknown)
    tile = Tile(name, tuple(bands), problem=problem)
    present = [n for n, band in enumerate(bands) if band.image is not None]
    grids: dict[int, Grid] = {}
    for n in present:
        try:
            celestial(bands[n].wcs)
            grids[n] = (bands[n].wcs, _shape(bands[n]))
        except BadFile as error:
            if not tile.problem[0]:
                where = files["image", bands[n].name]
                tile = replace(tile, problem=(error.reason, f"{where}: {error.detail}"))
    if not present and not problem[0]:
        return replace(tile, problem=("no_image", "no file of it holds a band"))
    if not grids:
        return _placed_by(lost, tile)
    first = next(iter(grids))
    tile = _with_position(tile, *grids[first])
    return _with_grids(_with_doubts(tile, layout), layout, grids, first)


def _unknown_zeropoints(layout: Layout, unknown: list[NoZeropoint]) -> InputError:
    bands = [error.band for error in unknown]
    which = (
        f"zero point of band {bands[0]} is"
        if len(bands) == 1
        else f"zero points of bands {', '.join(bands)} are"
    )
    return InputError(
        f"the {which} unknown: no flux unit in BUNIT, and none of {', '.join(layout.zeropoint_keys)}",
        where=unknown[0].uri,
        fix=f"give the AB magnitude of one unit of the image: --zeropoint {','.join(f'{b}=MAG' for b in bands)}",
    )


def _shape(band: Band) -> tuple[int, int]:
    return (0, 0) if band.image is None else band.image.shape


def _with_position(tile: Tile, cards: str, shape: tuple[int, int]) -> Tile:
    height, width = shape
    middle = np.array([(width - 1) / 2]), np.array([(height - 1) / 2])
    ra0, dec0 = (float(v[0]) for v in pixel_to_sky(cards, *middle))
    ra, dec = border(cards, shape)
    radius = float(np.max(separation_deg(ra0, dec0, ra, dec)))
    scale = float(pixel_scale(cards, *middle)[0])
    if not np.isfinite([ra0, dec0, radius, scale]).all() or scale <= 0:
        return replace(tile, problem=("no_wcs", "the WCS gives no positions for the tile's own pixels"))
    sides = slice(None, None, len(ra) // 4)
    return replace(
        tile,
        shape=shape,
        wcs=cards,
        pixel_scale_arcsec=scale,
        corners=tuple((float(a), float(b)) for a, b in zip(ra[sides], dec[sides])),
        centre=(ra0, dec0),
        radius_deg=radius,
    )


def _placed_by(grids: list[Grid], tile: Tile) -> Tile:
    """Say where a tile is that cannot be used, as far as the headers of its damaged files do."""
    for grid in grids:
        try:
            celestial(grid[0])
        except BadFile:
            continue
        placed = _with_position(tile, *grid)
        if placed.wcs:
            return placed
    return tile


def _with_doubts(tile: Tile, layout: Layout) -> Tile:
    """Say why positions are not to be trusted."""
    doubt = contradiction(tile.wcs)
    expected = layout.pixel_scale_arcsec
    if expected and abs(tile.pixel_scale_arcsec / expected - 1) > SCALE_TOLERANCE:
        doubt = f"the pixel scale is {tile.pixel_scale_arcsec:.4g} arcsec where {expected:.4g} is expected"
    return replace(tile, suspect_wcs=doubt)


def _doubt_odd_scales(tiles: list[Tile]) -> list[Tile]:
    """Doubt the WCS of a few tiles whose pixels have another size than those of all others."""
    scales = np.array([tile.pixel_scale_arcsec for tile in tiles])
    known = np.isfinite(scales)
    if known.sum() < FEWEST_TO_COMPARE:
        return tiles
    usual = float(np.median(scales[known]))
    odd = set(np.flatnonzero(known & (np.abs(scales / usual - 1) > SCALE_TOLERANCE)).tolist())
    if len(odd) > max(1, MOST_ODD * known.sum()):
        return tiles
    doubts = {n: f"the pixel scale is {scales[n]:.4g} arcsec where other tiles have {usual:.4g}" for n in odd}
    return [replace(tile, suspect_wcs=tile.suspect_wcs or doubts.get(n, "")) for n, tile in enumerate(tiles)]


def _with_grids(tile: Tile, layout: Layout, grids: dict[int, Grid], first: int) -> Tile:
    """Keep a WCS of its own for a band on another grid, which is a problem unless it may be resampled."""
    other = {n for n, grid in grids.items() if n != first and not _same_grid(grids[first], grid)}
    if other and not layout.resample and not tile.problem[0]:
        names = ", ".join(tile.bands[n].name for n in sorted(other))
        detail = f"band {names} is on another pixel grid than {tile.bands[first].name}"
        tile = replace(tile, problem=("different_grids", detail))
    bands = [band if n in other else replace(band, wcs="") for n, band in enumerate(tile.bands)]
    return replace(tile, bands=tuple(bands))


def _same_grid(one: Grid, other: Grid) -> bool:
    """Whether the corners and the centre of two images are at the same pixels of both."""
    if one[1] != other[1]:
        return False
    if one[0] == other[0]:
        return True
    height, width = one[1]
    x = np.array([0, width - 1, 0, width - 1, (width - 1) / 2])
    y = np.array([0, 0, height - 1, height - 1, (height - 1) / 2])
    moved = sky_to_pixel(other[0], *pixel_to_sky(one[0], x, y))
    return bool(np.max(np.hypot(moved[0] - x, moved[1] - y)) < GRID_TOLERANCE_PX)


def _refuse_wrong_scale(layout: Layout, tiles: list[Tile]) -> None:
    expected = layout.pixel_scale_arcsec
    if expected and all(abs(t.pixel_scale_arcsec / expected - 1) > SCALE_TOLERANCE for t in tiles):
        raise InputError(
            f"pixels are {tiles[0].pixel_scale_arcsec:.4g} arcsec, {expected:.4g} are expected",
            where=f"tile {tiles[0].name}" + (" and all others" if len(tiles) > 1 else ""),
            fix="check the preset, or give --pixel-scale",
        )
