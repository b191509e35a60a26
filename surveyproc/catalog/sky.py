"""HEALPix indices of sky positions (nested scheme, ICRS)."""

from __future__ import annotations

import numpy as np

ORDER = 29


def usable_positions(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Say which positions are on the sky: finite, ``-360 <= ra <= 360`` and ``-90 <= dec <= 90`` degrees."""
    ra, dec = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
    return (np.abs(ra) <= 360) & (np.abs(dec) <= 90)


def healpix29(ra: np.ndarray, dec: np.ndarray) -> np.ma.MaskedArray:
    """Compute ``_healpix_29``, the index at order 29 that HATS sorts by.

    Parameters
    ----------
    ra, dec : ndarray, shape (N,)
        Degrees, ICRS; NaN where unknown.

    Returns
    -------
    numpy.ma.MaskedArray, shape (N,)
        int64; masked where the position is not usable.
    """
    import astropy.units as u
    from astropy.coordinates import Latitude, Longitude
    from cdshealpix.nested import lonlat_to_healpix

    ra, dec = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
    good = usable_positions(ra, dec)
    pixels = np.zeros(len(ra), dtype=np.int64)
    if good.any():
        lon, lat = Longitude(ra[good], u.deg), Latitude(dec[good], u.deg)
        pixels[good] = lonlat_to_healpix(lon, lat, ORDER, num_threads=1).astype(np.int64)
    return np.ma.MaskedArray(pixels, mask=~good)


def parent_pixel(healpix29: np.ndarray, order: int) -> np.ndarray:
    """Pixel at a coarser order that contains pixels of order 29: ``v >> 2 (29 - order)``."""
    if not 0 <= order <= ORDER:
        raise ValueError(f"HEALPix order {order} is not in 0..{ORDER}")
    return np.asarray(healpix29, np.int64) >> (2 * (ORDER - order))


def pixel_range(order: int, pixel: int) -> tuple[int, int]:
    """Indices at order 29 that a coarser pixel covers: the first, and one past the last."""
    shift = 2 * (ORDER - order)
    return pixel << shift, (pixel + 1) << shift


def pixel_centres(order: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the centres of nested pixels.

    Parameters
    ----------
    order : int
        0..29.
    pixels : ndarray, shape (N,)

    Returns
    -------
    ra, dec : ndarray, shape (N,)
        Degrees; ``0 <= ra < 360``.

    Notes
    -----
    Gorski et al. 2005 (ApJ 622, 759), equations 4, 5, 8 and 9. ``cdshealpix`` has the same, but costs half
    a millisecond a call, as much as reading a leaf.
    """
    nside = 1 << order
    pixels = np.asarray(pixels, np.int64)
    face, within = pixels >> (2 * order), pixels & (nside * nside - 1)
    x, y = _even_bits(within), _even_bits(within >> 1)
    row, column = face // 4, face % 4
    ring = (row + 2) * nside - x - y - 1
    polar = np.minimum(np.minimum(ring, 4 * nside - ring), nside)
    shift = np.where((ring >= nside) & (ring <= 3 * nside), (ring - nside) & 1, 0)
    first = 2 * column + (row != 1)
    in_ring = (first * polar + x - y + 1 + shift) // 2
    in_ring = (in_ring - 1) % (4 * polar) + 1
    ra = (in_ring - (shift + 1) / 2) * 90 / polar
    cap = np.degrees(2 * np.arcsin(polar / (nside * np.sqrt(6))))
    belt = np.degrees(np.arcsin(np.clip((2 * nside - ring) * 2 / (3 * nside), -1, 1)))
    dec = np.where(ring < nside, 90 - cap, np.where(ring > 3 * nside, cap - 90, belt))
    return ra % 360, dec


def pixel_radius(order: int) -> float:
    """Bound the distance of a pixel's points from its centre, in degrees.

    The largest distance from a centre to a corner is that of the pixels next to ``z = 2/3`` (the belt's edge);
    one per cent more covers rounding.
    """
    nside = 1 << order
    height = 1 - (1 - 1 / nside) ** 2 / 3
    centre, corner = (2 / 3, np.pi / (4 * nside)), (height, 0.0)
    chord = sum((a - b) ** 2 for a, b in zip(_vector(*centre), _vector(*corner)))
    return 1.01 * float(np.degrees(2 * np.arcsin(min(1.0, np.sqrt(chord) / 2))))


def _vector(z: float, longitude: float) -> tuple[float, float, float]:
    across = np.sqrt(1 - z * z)
    return across * np.cos(longitude), across * np.sin(longitude), z


def _even_bits(values: np.ndarray) -> np.ndarray:
    """Gather the bits at even places: one coordinate of a Morton index."""
    values = values & 0x5555555555555555
    for shift, mask in (
        (1, 0x3333333333333333),
        (2, 0x0F0F0F0F0F0F0F0F),
        (4, 0x00FF00FF00FF00FF),
        (8, 0x0000FFFF0000FFFF),
        (16, 0x00000000FFFFFFFF),
    ):
        values = (values | (values >> shift)) & mask
    return values
