"""Pixels of small FITS images: one object, one file."""

from __future__ import annotations

import gzip
import io
import warnings
from contextlib import suppress
from typing import Any

import numpy as np


def read_fits_image(data: bytes) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Read the first image of a FITS file.

    Parameters
    ----------
    data : bytes
        The file; it may be gzipped.

    Returns
    -------
    pixels : ndarray, shape (H, W, C)
        float32 in native byte order, BSCALE and BZERO applied; rows in FITS order (first row first).
    headers : list of dict
        Cards that can be read of its HDU, and of the primary one.

    Raises
    ------
    ValueError
        Not FITS, truncated, or no image of 2 axes or of 3 axes (bands first).
    """
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        warnings.filterwarnings("error", message=".*truncated.*", category=AstropyWarning)
        try:
            # Unpacked here: astropy compares the packed size with the header's and sees a truncated file.
            plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
            with fits.open(io.BytesIO(plain), memmap=False, lazy_load_hdus=False) as hdus:
                for hdu in hdus:
                    if hdu.is_image and hdu.header.get("NAXIS", 0) > 0 and hdu.data is not None:
                        return _channels_last(hdu.data), [_cards(hdu.header), _cards(hdus[0].header)]
        except (ValueError, MemoryError):
            raise
        except Exception as error:  # damaged headers raise nearly anything in astropy
            raise ValueError(str(error) or type(error).__name__) from error
    raise ValueError("no image in the FITS file")


def _cards(header: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for card in header.cards:
        with suppress(Exception):  # damaged cards raise several kinds
            found.setdefault(card.keyword, card.value)
    return found


def _channels_last(data: np.ndarray) -> np.ndarray:
    if data.ndim == 2:
        data = data[None]
    if data.ndim != 3 or data.size == 0:
        raise ValueError(
            f"FITS image has axes {data.shape}; (height, width) or (bands, height, width) is needed"
        )
    return np.ascontiguousarray(data.transpose(1, 2, 0), dtype=np.float32)
