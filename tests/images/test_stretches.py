"""Every preset against numbers worked out by hand from its published formula, in numpy and in torch."""

import math

import numpy as np
import pytest
import torch

from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError, UsageError
from surveyproc.images.stretches import STRETCHES, find_stretch, stretch_problems, stretched, stretched_spec

KINDS = [np.asarray, torch.from_numpy]
FLUX = ImageSpec("raw", (4, 5, 3), "float32", bands=("g", "r", "z"), unit="nanomaggy", stretch="none")


def one_pixel(name, kind, *flux, **parameters):
    """Bytes of a cutout of one pixel."""
    planes = kind(np.array(flux, dtype=np.float64).reshape(-1, 1, 1))
    return [int(v) for v in find_stretch(name, parameters)(planes)[0, 0]]


# x = 0.02, 0.05, 0.1 in g, r, z. Scaled by 6.0, 3.4, 2.2 and lifted by 0.03: 0.15, 0.20, 0.25, so that I = 0.20,
# f = asinh(20 * 0.20) / sqrt(20) = 2.0947125 / 4.4721360 = 0.4683920 and f / I = 2.3419598.
# The Legacy Surveys: 0.25 f/I = 0.5854900, 0.4683920, 0.3512940 for R (z), G (r), B (g): bytes 149, 119, 90.
# ssl-legacysurvey:   0.1 (2.2 + 0.03 f/I) = 0.2270259, 0.05 (3.4 + ...) = 0.1735129, 0.02 (6 + ...) = 0.1214052.
# Empty sky: I = 0.03, f = asinh(0.6) / sqrt(20) = 0.1271931, times 255 = 32.43; the other form gives 0.
# x = -0.01, 0.003, 0.004: lifted -0.03, 0.0402, 0.0388, the negative one counts as 0: I = 0.0263333, f / I = 4.2876049.
LEGACY = [
    ((0.02, 0.05, 0.1), [149, 119, 90], [58, 44, 31]),
    ((0.0, 0.0, 0.0), [32, 32, 32], [0, 0, 0]),
    ((-0.01, 0.003, 0.004), [42, 44, 0], [2, 3, 0]),
    ((2.0, 5.0, 9.0), [255, 255, 255], [255, 255, 255]),
    ((-0.02, -0.02, -0.02), [0, 0, 0], [0, 0, 0]),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("flux", "legacy", "ssl"), LEGACY)
def test_legacy_lupton_and_ssl_legacysurvey_differ_by_a_parenthesis(flux, legacy, ssl, kind):
    assert one_pixel("legacy_lupton", kind, *flux) == legacy
    assert one_pixel("ssl_legacysurvey", kind, *flux) == ssl


# asinh(-0.5) = -0.4812118, asinh(300) = 6.3969324. x = 0.02, 0.05, 0.1 over 0.008, 0.014, 0.019 is 2.5, 3.5714286,
# 5.2631579, mapped to 0.3094502, 0.3585811, 0.4134830; mean a = 0.3605047; the largest over a and 2.5 is 0.4587828,
# w = sin(pi/2 * 0.5412172) = 0.7513747; R = 0.4134830 w + a (1 - w) + a (1 - w)^2 0.4134830 = 0.4095255: byte 104.
# Empty sky: 0.4812118 / 6.8781443 = 0.0699625, w = sin(pi/2 * 0.6), out = 0.0701410: byte 18.
# A red pixel fades: x / divisors = 1, 1, 100: 0.1981036, 0.1981036, 0.8402781, w = 0.2857965: 0.7111745, 0.3926337.
DECALS = [
    ((0.02, 0.05, 0.1), [104, 94, 84]),
    ((0.0, 0.0, 0.0), [18, 18, 18]),
    ((-0.008, -0.014, -0.019), [0, 0, 0]),
    ((0.008, 0.014, 1.9), [181, 100, 100]),
    ((4.0, 5.0, 6.0), [255, 255, 255]),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("flux", "expected"), DECALS)
def test_gz_decals(flux, expected, kind):
    assert one_pixel("gz_decals", kind, *flux) == expected


def euclid_plane(second, top, q, zeropoint, shown):
    """A plane of 201 pixels of which ``asinh(q x)`` is known, in nanomaggies.

    ``second`` is the second highest and ``top`` the highest: rank 0.9985 * 200 = 199.7 lies 0.7 of the way from
    one to the other.
    """
    values = np.full(201, second)
    values[0], values[1 : 1 + len(shown)] = top, shown
    return (np.sinh(values) / q * 10 ** (0.4 * (22.5 - zeropoint))).reshape(3, 67)


@pytest.mark.parametrize("kind", KINDS)
def test_gz_euclid(kind):
    # VIS: percentile 1 + 0.7 = 1.7; 1 -> 255 / 1.7 = 150, 0.5 -> 75, -1 -> 0, 2 -> 255.
    # Y:   percentile 2 + 0.7 * 2 = 3.4; 1 -> 75, 2 -> 150, 3 -> 225, 4 -> 255.
    vis = euclid_plane(1.0, 2.0, 100.0, 24.6, [0.5, -1.0, 1.0])
    nisp = euclid_plane(2.0, 4.0, 0.2, 29.8, [1.0, 2.0, -0.1])
    rgb = find_stretch("gz_euclid")(kind(np.stack([vis, nisp])))
    found = [[int(v) for v in rgb[0, k]] for k in range(5)]
    # R is NISP, B is VIS, G their mean rounded half up.
    assert found == [[255, 255, 255], [75, 75, 75], [150, 75, 0], [0, 75, 150], [150, 150, 150]]
    assert [int(v) for v in find_stretch("gz_euclid")(kind(np.stack([vis, nisp / 1e3])))[0, 4]][2] == 150
    half = find_stretch("gz_euclid")(kind(np.stack([vis, euclid_plane(1.0, 2.0, 0.2, 29.8, [1.0])])))
    assert [int(v) for v in half[0, 1]] == [150, 113, 75]


@pytest.mark.parametrize("kind", KINDS)
def test_gz_euclid_of_vis_alone_is_grey_and_of_nothing_black(kind):
    vis = euclid_plane(1.0, 2.0, 100.0, 24.6, [0.5])
    alone = find_stretch("gz_euclid", {"bands": ["VIS"], "q": [100], "zeropoints": [24.6]})
    assert [int(v) for v in alone(kind(vis[None]))[0, 1]] == [75, 75, 75]
    assert int(alone(kind(-vis[None])).max()) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_gz_euclid_clips_each_cutout_by_itself(kind):
    bright = euclid_plane(1.0, 2.0, 100.0, 24.6, [])[None, None]
    both = np.concatenate([bright, bright / 100])
    alone = find_stretch("gz_euclid", {"bands": ["VIS"], "q": [100], "zeropoints": [24.6]})
    together = alone(kind(both))
    assert np.array_equal(np.asarray(together[1]), np.asarray(alone(kind(both[1]))))
    assert int(together[1].max()) == 255


@pytest.mark.parametrize("kind", KINDS)
def test_asinh_percentile(kind):
    # 0 to 500: rank 0.998 * 500 = 499 exactly; asinh(1 / 0.7) = 1.1544774.
    # 50: asinh(50 / 499 / 0.7) = 0.1426590, 0.1235702 * 255 = 31.51; 100: 0.2825137, 62.40; 250: 0.6654950, 146.99.
    ramp = np.arange(501.0).reshape(1, 3, 167)
    two = np.concatenate([ramp, np.full_like(ramp, 7.0)])
    shown = np.asarray(find_stretch("asinh_percentile")(kind(two)))
    assert shown.shape == (3, 167, 2)
    assert [int(v) for v in shown[..., 0].ravel()[[0, 50, 100, 250, 499, 500]]] == [0, 32, 62, 147, 255, 255]
    assert not shown[..., 1].any()
    assert np.array_equal(np.asarray(find_stretch("asinh_percentile")(kind(two * 1e6 - 3e6))), shown)


@pytest.mark.parametrize("name", STRETCHES)
def test_numpy_and_torch_give_the_same_bytes(name):
    rng = np.random.default_rng(3)
    stretch = find_stretch(name)
    spec = ImageSpec(
        "raw", (40, 41, 4), "float32", bands=(*(stretch.bands or "gr"), "x", "w")[:4], unit="nJy"
    )
    spec = ImageSpec(**{**vars(spec), "shape": (40, 41, len(spec.bands))})
    flux = rng.normal(300, 900, (7, *spec.shape)).astype(np.float32)
    flux[0, 3, 4] = np.nan
    flux[1, 3, 4, 0] = np.inf
    scale = rng.uniform(0.1, 1, 7)
    of_numpy = stretched(flux, spec, stretch, scale)
    of_torch = stretched(torch.from_numpy(flux), spec, stretch, scale)
    planes = flux.transpose(0, 3, 1, 2)[:, : len(stretch.bands or spec.bands)] / 1000.0
    assert np.array_equal(stretch(torch.from_numpy(planes)).numpy(), stretch(planes))
    assert of_numpy.dtype == np.uint8
    assert of_numpy.std() > 5
    assert np.array_equal(of_numpy, of_torch.numpy())
    assert of_numpy.shape[1:] == stretched_spec(spec, stretch).shape
    assert stretched(flux[:0], spec, stretch, scale[:0]).shape == (0, *of_numpy.shape[1:])


@pytest.mark.parametrize("name", STRETCHES)
def test_chunks_and_one_cutout_alone_give_the_same_bytes(name, monkeypatch):
    rng = np.random.default_rng(4)
    stretch = find_stretch(name)
    bands = stretch.bands or ("a", "b")
    spec = ImageSpec("raw", (9, 8, len(bands)), "float32", bands=bands, unit="nanomaggy")
    flux = rng.normal(0.1, 0.3, (5, *spec.shape)).astype(np.float32)
    whole = stretched(flux, spec, stretch, 0.3)
    monkeypatch.setattr("surveyproc.images.stretches.catalogs.CHUNK_VALUES", 1)
    assert np.array_equal(stretched(flux, spec, stretch, 0.3), whole)
    assert np.array_equal(stretched(flux[2:3], spec, stretch, 0.3), whole[2:3])


def test_bands_are_found_by_name_whatever_their_order():
    flux = np.array([0.02, 0.05, 0.1, 5.0]).reshape(1, 1, 1, 4)
    for order in [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)]:
        bands = tuple(np.array(["g", "r", "z", "i"])[list(order)])
        spec = ImageSpec("raw", (1, 1, 4), "float32", bands=bands, unit="nanomaggy")
        assert stretched(flux[..., order], spec, find_stretch("legacy_lupton")).tolist() == [
            [[[149, 119, 90]]]
        ]
    renamed = ImageSpec("raw", (1, 1, 3), "float32", bands=("des-g", "des-r", "des-z"), unit="nanomaggy")
    stretch = find_stretch("legacy_lupton", {"bands": ["des-g", "des-r", "des-z"]})
    assert stretched(flux[..., :3], renamed, stretch)[0, 0, 0].tolist() == [149, 119, 90]


@pytest.mark.parametrize(
    ("unit", "zeropoint", "one_nanomaggy"),
    [
        ("nanomaggy", None, 1.0),
        ("nJy", None, 3631.0),
        ("nJy", 31.4, 3631.0),
        ("uJy", 23.9, 3.631),
        ("Jy", None, 3.631e-6),
        ("count", 27.0, 10 ** (0.4 * 4.5)),
        (None, 22.5, 1.0),
    ],
)
def test_flux_is_brought_to_nanomaggies(unit, zeropoint, one_nanomaggy):
    spec = ImageSpec("raw", (1, 1, 3), "float32", bands=("g", "r", "z"), unit=unit, zeropoint=zeropoint)
    flux = np.array([0.02, 0.05, 0.1]).reshape(1, 1, 1, 3) * one_nanomaggy
    assert stretched(flux, spec, find_stretch("legacy_lupton"))[0, 0, 0].tolist() == [149, 119, 90]


@pytest.mark.parametrize(("unit", "zeropoint"), [(None, None), ("count", None), ("nJy", 22.5)])
def test_flux_of_an_unknown_or_contradictory_unit_is_refused(unit, zeropoint):
    spec = ImageSpec("raw", (1, 1, 3), "float32", bands=("g", "r", "z"), unit=unit, zeropoint=zeropoint)
    with pytest.raises(InputError, match="unit of the flux is not known"):
        stretched(np.zeros((1, 1, 1, 3)), spec, find_stretch("legacy_lupton"))
    assert not stretch_problems(spec, find_stretch("asinh_percentile"), False)


def test_all_that_is_missing_is_named():
    found = stretch_problems(
        ImageSpec("raw", (1, 1, 1), "float32", bands=("u",)), find_stretch("sdss_lupton"), False
    )
    assert len(found) == 3
    assert "no band g, r, i" in found[0]
    assert "pixel_scale_arcsec" in found[2]


def test_a_stretch_to_another_pixel_scales_flux_by_area():
    spec = ImageSpec("raw", (1, 1, 3), "float32", bands=("g", "r", "z"), unit="nanomaggy")
    flux = np.array([0.02, 0.05, 0.1]).reshape(1, 1, 1, 3)
    legacy = find_stretch("legacy_lupton", {"pixel_arcsec": 0.262})
    assert stretched(flux / 4, spec, legacy, [0.131])[0, 0, 0].tolist() == [149, 119, 90]


def test_what_is_stored_says_how_it_was_made():
    stretch = find_stretch("legacy_lupton", {"q": 8})
    stored = ImageSpec.from_json(stretched_spec(FLUX, stretch).to_json())
    assert (stored.dtype, stored.bands, stored.unit, stored.stretch) == (
        "uint8",
        ("R", "G", "B"),
        None,
        "legacy_lupton",
    )
    assert find_stretch(stored.stretch, stored.stretch_parameters, stored.stretch_version) == stretch
    assert hash(stored) == hash(stretched_spec(FLUX, stretch))
    assert stretched_spec(FLUX, find_stretch("asinh_percentile")).bands == ("g", "r", "z")


@pytest.mark.parametrize(
    ("name", "parameters", "version", "said"),
    [
        ("legacy-lupton", {}, None, "Did you mean 'legacy_lupton'"),
        ("legacy_lupton", {"scale": 3}, None, "Did you mean 'scales'"),
        ("legacy_lupton", {"scales": [1, 2]}, None, "is not 3 numbers"),
        ("legacy_lupton", {"bands": ["g", "r"]}, None, "is not 3 names of bands"),
        ("legacy_lupton", {"q": "20"}, None, "is no number"),
        ("legacy_lupton", {"pixel_arcsec": 0}, None, "is no size"),
        ("gz_euclid", {"percent": 101}, None, "not in (0, 100]"),
        ("gz_euclid", {"bands": ["VIS"]}, None, "is not 1 numbers"),
        ("legacy_lupton", {"q": -3.0}, None, "q=-3.0 is not above 0"),
        ("legacy_lupton", {"m": math.nan}, None, "is no number"),
        ("sdss_lupton", {"softening": 0}, None, "softening=0 is not above 0"),
        ("asinh_percentile", {"scale": 0.0}, None, "scale=0.0 is not above 0"),
        ("gz_decals", {"divisors": [0.008, 0, 0.019]}, None, "is not above 0"),
        ("gz_decals", {"span": [3, 3]}, None, "does not go from a lower to a higher value"),
        ("gz_decals", {}, 2, "version 2 is needed and this code has version 1"),
    ],
)
def test_wrong_settings_are_refused_with_words(name, parameters, version, said):
    with pytest.raises(UsageError) as error:
        find_stretch(name, parameters, version)
    assert said in str(error.value)


@pytest.mark.parametrize("name", STRETCHES)
def test_the_input_is_left_alone(name):
    flux = np.full((len(find_stretch(name).bands or "gr"), 3, 4), 0.5)
    flux[0, 0, 0] = math.nan
    before = flux.copy()
    find_stretch(name)(flux)
    find_stretch(name)(torch.from_numpy(flux))
    assert np.array_equal(flux, before, equal_nan=True)
