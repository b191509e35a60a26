"""Pixels of small FITS images: one object, one file."""

from __future__ import annotations

import gzip
import io
import warnings

import numpy as np


def read_fits_image(data: bytes) -> tuple[np.ndarray, str | None]:
    """Read the first image of a FITS file.

    Parameters
    ----------
    data : bytes
        The file; it may be gzipped.

    Returns
    -------
    pixels : ndarray, shape (H, W, C)
        float32 in native byte order, BSCALE and BZERO applied; rows in FITS order (first row first).
    unit : str or None
        The header's BUNIT.

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
                        unit = hdu.header.get("BUNIT")
                        return _channels_last(hdu.data), str(unit).strip() if unit else None
        except (ValueError, MemoryError):
            raise
        except Exception as error:  # damaged headers raise nearly anything in astropy
            raise ValueError(str(error) or type(error).__name__) from error
    raise ValueError("no image in the FITS file")


def _channels_last(data: np.ndarray) -> np.ndarray:
    if data.ndim == 2:
        data = data[None]
    if data.ndim != 3 or data.size == 0:
        raise ValueError(
            f"FITS image has axes {data.shape}; (height, width) or (bands, height, width) is needed"
        )
    return np.ascontiguousarray(data.transpose(1, 2, 0), dtype=np.float32)
