"""Small FITS tiles on the sky and the sources on them, for the tests of ingest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.wcs import WCS

SCALE = 0.2
SIDE = 200
OVERLAP = 30
RA, DEC = 150.0, 2.0
MAGZERO = 25.0
NJY_PER_COUNT = 10 ** ((31.4 - MAGZERO) / 2.5)


def sky(ra: float, dec: float, side: int = SIDE, scale: float = SCALE) -> WCS:
    """A tangent plane at the centre of a square tile."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(side + 1) / 2] * 2
    wcs.wcs.cd = np.diag([-scale, scale]) / 3600
    return wcs


def write_tile(
    folder: Path, name: str, ra: float, dec: float, bands: str = "gr", side: int = SIDE, seed: int = 0
) -> WCS:
    """Write one file per band; every pixel differs."""
    wcs = sky(ra, dec, side)
    for number, band in enumerate(bands):
        rng = np.random.default_rng([seed, number, *name.encode()])
        header = wcs.to_header()
        header["MAGZERO"] = MAGZERO
        pixels = rng.normal(10, 1, (side, side)).astype(np.float32)
        fits.PrimaryHDU(pixels, header).writeto(folder / f"{name}_{band}.fits", overwrite=True)
    return wcs


def centres(
    columns: int = 2, rows: int = 2, ra: float = RA, dec: float = DEC
) -> dict[str, tuple[float, float]]:
    """Names and centres of a mosaic of tiles that overlap by `OVERLAP` pixels."""
    step = (SIDE - OVERLAP) * SCALE / 3600
    return {
        f"t{i}{j}": (ra + i * step / np.cos(np.radians(dec)), dec + j * step)
        for i in range(columns)
        for j in range(rows)
    }


def mosaic(folder: Path, columns: int = 2, rows: int = 2, bands: str = "gr") -> dict[str, WCS]:
    """Write a mosaic of tiles."""
    places = centres(columns, rows)
    return {name: write_tile(folder, name, *place, bands) for name, place in places.items()}


def positions(count: int, columns: int = 2, rows: int = 2, beyond: float = 0.0, seed: int = 1):
    """Random positions on a mosaic, ``beyond`` degrees over its border."""
    rng = np.random.default_rng(seed)
    places = np.array(list(centres(columns, rows).values()))
    half = SIDE * SCALE / 7200
    low, high = places.min(0) - half - beyond, places.max(0) + half + beyond
    return rng.uniform(low[0], high[0], count), rng.uniform(low[1], high[1], count)


def write_sources(path: Path, **columns) -> Path:
    """Write a Parquet table."""
    pq.write_table(pa.table(columns), path)
    return path


def owner_of(wcs: dict[str, WCS], ra: float, dec: float, side: int = SIDE) -> tuple[set[str | None], int]:
    """The rule, one source and one tile at a time: the tile farthest from whose edge it is, and the claims.

    All tiles within 0.01 pixels of the farthest are named: which of them has it is a matter of rounding.
    """
    found = []
    for name, tile in wcs.items():
        x, y = (float(v) for v in tile.wcs_world2pix(ra, dec, 0))
        depth = min(x + 0.5, y + 0.5, side - 0.5 - x, side - 0.5 - y)
        if depth >= 0:
            found.append((depth, name))
    if not found:
        return {None}, 0
    return {name for depth, name in found if depth > max(found)[0] - 0.01}, len(found)
