"""Decoding of the image column: values, views, and one bad row among good ones."""

import contextlib
import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from surveyproc.cutouts import ImageSpec
from surveyproc.images.decode import BadImage, decode_batch, decode_image, find_unusable

RAW = ImageSpec("raw", (4, 5, 3), "uint8")


def encoded(pixels, kind="PNG", mode=None):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).convert(mode or "RGB").save(stream, kind)
    return stream.getvalue()


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def test_raw_values_share_memory_with_the_column_even_when_sliced():
    pixels = noise((6, *RAW.shape))
    column = pa.array([p.tobytes() for p in pixels], pa.binary(RAW.nbytes))
    found, failures = decode_batch(column.slice(2, 3), RAW)
    assert not failures
    assert np.array_equal(found, pixels[2:5])
    start = column.buffers()[1].address
    assert found.__array_interface__["data"][0] == start + 2 * RAW.nbytes


def test_raw_values_in_variable_length_columns_share_memory_too():
    pixels = noise((6, *RAW.shape))
    for kind in (pa.binary(), pa.large_binary()):
        column = pa.array([p.tobytes() for p in pixels], kind)
        found, failures = decode_batch(column.slice(1), RAW)
        assert not failures
        assert np.array_equal(found, pixels[1:])
        assert found.__array_interface__["data"][0] == column.buffers()[2].address + RAW.nbytes


def test_a_null_or_short_raw_row_fails_alone():
    pixels = noise((4, *RAW.shape))
    values = [p.tobytes() for p in pixels]
    fixed = pa.array([values[0], None, *values[2:]], pa.binary(RAW.nbytes))
    loose = pa.array([values[0], None, values[2][:-1], values[3]], pa.binary())
    found, failures = decode_batch(fixed, RAW)
    assert {row: f[0] for row, f in failures.items()} == {1: "missing_image"}
    assert not found[1].any()
    assert np.array_equal(found[[0, 2, 3]], pixels[[0, 2, 3]])
    found, failures = decode_batch(loose, RAW)
    assert {row: f[0] for row, f in failures.items()} == {1: "missing_image", 2: "wrong_size"}
    assert "59 bytes" in failures[2][1]
    assert np.array_equal(found[[0, 3]], pixels[[0, 3]])


def test_channel_first_raw_values_come_out_channel_last():
    spec = ImageSpec("raw", (4, 5, 3), "float32", "CHW")
    pixels = noise((2, 4, 5, 3)).astype(np.float32)
    column = pa.array([p.transpose(2, 0, 1).tobytes() for p in pixels], pa.binary(spec.nbytes))
    found, failures = decode_batch(column, spec)
    assert not failures
    assert np.array_equal(found, pixels)


def test_no_rows_decode_to_no_pixels():
    for spec, kind in ((RAW, pa.binary(RAW.nbytes)), (ImageSpec("png", (4, 5, 3), "uint8"), pa.binary())):
        found, failures = decode_batch(pa.array([], kind), spec)
        assert found.shape == (0, 4, 5, 3)
        assert not failures


def test_bad_encoded_rows_fail_alone_with_their_reason():
    spec = ImageSpec("jpeg", (16, 16, 3), "uint8")
    pixels = noise((16, 16, 3))
    good = encoded(pixels, "JPEG")
    values = [
        good,
        None,
        good[: len(good) // 2],
        b"",
        b"<html>not found</html>",
        encoded(pixels[:8], "JPEG"),
        encoded(pixels, "JPEG", "L"),
        encoded(pixels, "PNG"),
        good,
    ]
    found, failures = decode_batch(pa.array(values, pa.binary()), spec)
    reasons = {row: reason for row, (reason, _) in failures.items()}
    assert reasons == {
        1: "missing_image",
        2: "unreadable_image",
        3: "unreadable_image",
        4: "unreadable_image",
        5: "wrong_shape",
        6: "wrong_channels",
        7: "unreadable_image",
    }
    assert "truncated" in failures[2][1].lower()
    assert failures[5][1] == "image is 8 x 16 px, the catalog 16 x 16"
    assert failures[6][1] == "image has 1 channels, the catalog 3"
    assert not found[list(failures)].any()
    expected = np.asarray(Image.open(io.BytesIO(good)))
    assert np.array_equal(found[0], expected)
    assert np.array_equal(found[8], expected)


def test_a_png_round_trip_is_exact_for_one_three_and_palette_channels():
    for mode, channels in (("RGB", 3), ("L", 1), ("P", 3)):
        image = Image.fromarray(noise((9, 7, 3))).convert(mode)
        stream = io.BytesIO()
        image.save(stream, "PNG")
        expected = np.asarray(image.convert("RGB") if mode == "P" else image).reshape(9, 7, channels)
        assert np.array_equal(decode_image(stream.getvalue()), expected)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG"]),
    cut=st.integers(0, 4000),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=20),
)
def test_a_damaged_image_is_pixels_or_a_bad_image_and_never_another_error(kind, cut, changes):
    damaged = bytearray(encoded(noise((20, 20, 3)), kind))
    for position, value in changes:
        damaged[position % len(damaged)] = value
    damaged = bytes(damaged[: len(damaged) - cut % len(damaged)])
    with contextlib.suppress(BadImage):
        assert decode_image(damaged).ndim == 3


def test_sixteen_bit_images_are_refused_with_words():
    stream = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(stream, "PNG")
    with pytest.raises(BadImage, match="8 bits per channel"):
        decode_image(stream.getvalue())


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_constant_and_nan_cutouts_are_found_and_no_others(dtype):
    pixels = noise((6, 40, 40, 3)).astype(dtype)
    pixels[1] = 7
    pixels[2, :, :] = np.array([1, 2, 3])
    pixels[3] = 0
    pixels[3, 33, 37, 1] = 1
    expected = {1: "constant_pixels", 2: "constant_pixels"}
    if dtype != "uint8":
        pixels[4] = np.nan
        pixels[5, 1:] = np.nan
        expected[4] = "nan_pixels"
    assert {row: reason for row, (reason, _) in find_unusable(pixels).items()} == expected
    assert find_unusable(pixels)[2][1] == "every pixel is 1/2/3"
    assert find_unusable(pixels[:0]) == {}
