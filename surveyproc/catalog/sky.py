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
