import math

import numpy as np
import pytest
import torch

from surveyproc.images.stretches.lupton import sdss_lupton


def by_hand(g, r, i, scales, minimum, slope, softening):
    """Equation 2 of Lupton et al. (2004), one pixel, in plain floats."""
    blue, green, red = g * scales[0], r * scales[1], i * scales[2]
    intensity = (red + green + blue) / 3
    if intensity <= minimum:
        return 0, 0, 0
    stretched = math.asinh(slope * softening * (intensity - minimum)) / softening
    out = [max(0.0, c * stretched / intensity) for c in (red, green, blue)]
    if max(out) > 1:
        out = [c / max(out) for c in out]
    return tuple(math.floor(255 * c + 0.5) for c in out)


PIXELS = [
    (0.1, 0.2, 0.3),
    (0.0, 0.0, 0.0),
    (-0.05, 0.02, 0.04),
    (-1.0, -1.0, -1.0),
    (900.0, 400.0, 10.0),
    (5.1, 9, 12),
]


@pytest.mark.parametrize("minimum", [0.0, 0.01])
@pytest.mark.parametrize("pixel", PIXELS)
def test_a_pixel_is_the_paper_s_formula(pixel, minimum):
    parameters = {"scales": (1.5, 1.0, 0.7), "minimum": minimum, "slope": 2.0, "softening": 4.0}
    flux = np.array(pixel, dtype=np.float64).reshape(3, 1, 1)
    assert tuple(sdss_lupton(flux, **parameters)[0, 0]) == by_hand(*pixel, **parameters)


def test_known_values_of_the_default_preset():
    # R = 0.8 i, G = 0.96 r, B = 1.38 g; I = (0.8 + 0.48 + 0.276) / 3; asinh(2.4 * 6.5 * I) / 6.5 = 0.42796
    flux = np.array([0.2, 0.5, 1.0]).reshape(3, 1, 1)
    gain = math.asinh(2.4 * 6.5 * 1.556 / 3) / 6.5 / (1.556 / 3)
    expected = [round(255 * gain * c) for c in (0.8, 0.48, 0.276)]
    assert sdss_lupton(flux)[0, 0].tolist() == expected


def test_an_oversaturated_pixel_keeps_its_colour():
    rgb = sdss_lupton(np.array([2e6, 1e6, 5e5]).reshape(3, 1, 1), scales=(1.0, 1.0, 1.0))[0, 0]
    assert rgb.tolist() == [64, 128, 255]


def test_one_surface_brightness_has_one_colour_whatever_the_sampling():
    coarse = np.array([0.4, 0.8, 1.2]).reshape(3, 1, 1)
    assert np.array_equal(sdss_lupton(coarse, 0.792), sdss_lupton(coarse / 4, 0.396))


def test_torch_and_numpy_agree_on_any_leading_axes():
    flux = np.random.default_rng(1).normal(0.3, 0.5, (2, 5, 3, 8, 9))
    of_numpy, of_torch = sdss_lupton(flux), sdss_lupton(torch.from_numpy(flux))
    assert of_numpy.shape == (2, 5, 8, 9, 3)
    assert of_numpy.dtype == np.uint8
    assert isinstance(of_torch, torch.Tensor)
    assert np.array_equal(of_numpy, of_torch.numpy())


def test_the_input_is_left_alone():
    flux = np.full((3, 2, 2), 0.5, dtype=np.float32)
    sdss_lupton(flux)
    assert (flux == 0.5).all()
