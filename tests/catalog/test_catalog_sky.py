"""Sky geometry against the HEALPix reference implementation and its nesting rule."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from surveyproc.catalog.sky import healpix29, parent_pixel, usable_positions


def test_indices_equal_those_of_hats():
    from hats.pixel_math.spatial_index import compute_spatial_index

    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 2000), np.degrees(np.arcsin(rng.uniform(-1, 1, 2000)))
    assert healpix29(ra, dec).tolist() == compute_spatial_index(ra, dec).tolist()


@given(st.floats(-360, 360), st.floats(-90, 90), st.integers(0, 28))
def test_parents_nest(ra, dec, order):
    pixel = healpix29(np.array([ra]), np.array([dec])).data
    assert parent_pixel(parent_pixel(pixel, order + 1) << (2 * (28 - order)), order) == parent_pixel(
        pixel, order
    )
    assert 0 <= parent_pixel(pixel, order)[0] < 12 * 4**order


def test_positions_that_are_not_on_the_sky_are_masked():
    ra = np.array([1.0, np.nan, np.inf, 361.0, 5.0])
    dec = np.array([1.0, 2.0, 3.0, 4.0, -90.1])
    assert usable_positions(ra, dec).tolist() == [True, False, False, False, False]
    assert np.ma.getmaskarray(healpix29(ra, dec)).tolist() == [False, True, True, True, True]
