"""FITS images of one object: pixels, or a ValueError with words."""

import contextlib
import gzip
import io

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from surveyproc.catalog.fits import read_fits_image


def fits_bytes(values, header=None, compress=False):
    stream = io.BytesIO()
    hdu = fits.CompImageHDU(values, header) if compress else fits.PrimaryHDU(values, header)
    hdus = [fits.PrimaryHDU(), hdu] if compress else [hdu]
    fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", "u1"])
def test_planes_and_cubes_come_out_channel_last_in_native_float32(dtype):
    cube = np.arange(24).reshape(2, 3, 4).astype(dtype)
    pixels, headers = read_fits_image(fits_bytes(cube, fits.Header({"BUNIT": "nJy"})))
    assert pixels.dtype == np.float32
    assert pixels.dtype.isnative
    assert headers[0]["BUNIT"] == "nJy"
    assert np.array_equal(pixels, cube.transpose(1, 2, 0))
    plane, headers = read_fits_image(gzip.compress(fits_bytes(cube[0])))
    assert "BUNIT" not in headers[0]
    assert np.array_equal(plane[:, :, 0], cube[0])


def test_scaled_integers_and_tile_compressed_images_are_read():
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) + 60000
    assert np.array_equal(read_fits_image(fits_bytes(values))[0][:, :, 0], values)
    assert np.array_equal(read_fits_image(fits_bytes(values, compress=True))[0][:, :, 0], values)


def test_real_decals_cubes_are_read_and_the_truncated_one_is_refused(shared_data):
    folder = shared_data / "fits" / "decals"
    for name in ("example_a", "example_b", "example_bad_pix"):
        assert read_fits_image((folder / f"{name}.fits").read_bytes())[0].shape == (424, 424, 3)
    with pytest.raises(ValueError, match="truncated"):
        read_fits_image((folder / "example_incomplete.fits").read_bytes())


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x1f\x8bbroken"])
def test_what_is_not_fits_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"\w"):
        read_fits_image(data)


def test_axes_that_are_no_image_are_refused():
    with pytest.raises(ValueError, match="axes"):
        read_fits_image(fits_bytes(np.zeros(5)))
    with pytest.raises(ValueError, match="no image"):
        read_fits_image(fits_bytes(None))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5759), st.lists(st.tuples(st.integers(0, 2879), st.integers(0, 255)), max_size=6))
def test_a_damaged_file_is_pixels_or_a_value_error(cut, changes):
    damaged = bytearray(fits_bytes(np.zeros((8, 8), np.float32)))
    for position, value in changes:
        damaged[position] = value
    with contextlib.suppress(ValueError):
        assert read_fits_image(bytes(damaged[: len(damaged) - cut]))[0].ndim == 3
