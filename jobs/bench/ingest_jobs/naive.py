"""What a short script does, open, WCS and Cutout2D for every source: file, sources, size, repeats."""

import sys

import astropy.units as u
import numpy as np
import pyarrow.parquet as pq
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS
from measured import report

tile, path, size, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
sources = pq.read_table(path)


def stamp(ra: float, dec: float) -> np.ndarray:
    """Cut one source."""
    with fits.open(tile) as hdus:
        place = SkyCoord(ra * u.deg, dec * u.deg)
        return Cutout2D(hdus[0].data, place, size, wcs=WCS(hdus[0].header), copy=True).data


places = list(zip(sources["ra"].to_pylist(), sources["dec"].to_pylist()))
report(lambda: len(np.stack([stamp(*place) for place in places])), repeats)
