"""``surveyproc show`` on flux, stretched and encoded catalogs: what it draws, what it says, what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from toys import SPEC, encode, encoded_catalog, toy_catalog, toy_pixels

from surveyproc.catalog import CatalogWriter
from surveyproc.cli.main import main
from surveyproc.cutouts import ImageSpec
from surveyproc.images.stretches import find_stretch, stretched, stretched_spec
from surveyproc.report.sheet import MARGIN, SIDE, directions, round_length

FLUX = ImageSpec(
    "raw",
    (16, 12, 4),
    "float32",
    "CHW",
    ("g", "r", "z", "y"),
    "nanomaggy",
    None,
    "none",
    orientation="bottom-up",
)
SCALE = 0.25


def flux_pixels():
    """Empty sky with a red pixel in the lowest row, on the left."""
    pixels = np.zeros((3, *FLUX.shape), np.float32)
    pixels[:, 0, 0] = [0.02, 0.05, 1.0, 0.5]
    pixels[:, 5, 5] = 0.1
    return pixels


def write(path, spec, pixels, **columns):
    columns = {"object_id": pa.array([7, -8, 2**60])} | columns
    schema = pa.schema([(name, column.type) for name, column in columns.items()])
    with CatalogWriter(path, spec, schema) as writer:
        writer.write_pixels(pixels, columns)
    return str(path)


@pytest.fixture
def flux(tmp_path):
    quality = pa.array([0, 3, 0], pa.int32())
    scales = pa.array([SCALE, SCALE, None])
    return write(tmp_path / "flux.cat", FLUX, flux_pixels(), quality=quality, pixel_scale_arcsec=scales)


def panel(path, number=0, width=12, height=16):
    """The pixels of one panel, at their own size."""
    zoom = -(-SIDE // max(width, height))
    sheet = np.asarray(Image.open(path))
    left = MARGIN + number * (width * zoom + 8)
    return sheet[MARGIN : MARGIN + height * zoom : zoom, left : left + width * zoom : zoom]


def test_one_stretch_is_drawn_with_y_upwards_and_names_the_quality_bits(flux, tmp_path, capsys):
    out = tmp_path / "deep" / "a.png"
    assert main(["show", flux, "--id", "-8", "--stretch", "legacy_lupton", "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert "legacy_lupton" in said
    assert "quality: EDGE, NAN_PIXELS" in said
    expected = stretched(flux_pixels(), FLUX, find_stretch("legacy_lupton"))[1][::-1]
    found = panel(out)
    assert tuple(found[15, 0]) == tuple(expected[15, 0])
    assert found[15, 0, 0] > 200 > found[15, 0, 2]
    assert np.array_equal(found[:12, :], expected[:12, :])  # below lies the scale bar


def test_all_that_can_be_made_are_drawn_side_by_side_and_the_others_explained(flux, tmp_path, capsys):
    out = tmp_path / "a.png"
    assert main(["show", flux, "--id", "7", "--output", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    names = [panel.split(":")[0] for panel in said["panels"]]
    assert names == ["none", "legacy_lupton", "ssl_legacysurvey", "gz_decals", "asinh_percentile"]
    assert said["panels"][-1] == "asinh_percentile: R y, G z, B g"
    assert set(said["left_out"]) == {"gz_euclid", "sdss_lupton"}
    assert "no band i" in said["left_out"]["sdss_lupton"]
    assert said["pixel_scale_arcsec"] == SCALE
    legacy = stretched(flux_pixels(), FLUX, find_stretch("legacy_lupton"))[0][::-1]
    assert np.array_equal(panel(out, 1)[:12], legacy[:12])


def test_a_bar_of_a_round_length_is_drawn_where_the_scale_is_known(flux, tmp_path, capsys):
    for object_id in ("7", str(2**60)):
        words = [
            "show",
            flux,
            "--id",
            object_id,
            "--stretch",
            "none",
            "--output",
            str(tmp_path / f"{object_id}.png"),
        ]
        assert main(words) == 0
    assert "no scale bar" in capsys.readouterr().out
    with_bar, without = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in (7, 2**60))
    differs = (with_bar != without).any(axis=2)
    differs[-50:] = False  # the id in the caption
    white = (with_bar == 255).all(axis=2) & differs
    lengths = white.sum(axis=1)
    zoom = SIDE // 16
    assert lengths.max() == 1.0 / SCALE * zoom + 1  # 1 arcsec: the longest round one within 0.35 of 3 arcsec


@pytest.mark.parametrize(
    ("longest", "length"),
    [(0.35, 0.2), (1.0, 1.0), (4.9, 2.0), (5.0, 5.0), (59.0, 50.0), (61.0, 60.0), (400.0, 300.0)],
)
def test_round_lengths(longest, length):
    assert round_length(longest) == pytest.approx(length)


def test_stretched_and_encoded_catalogs_are_shown_as_they_are(tmp_path, capsys):
    stretch = find_stretch("gz_decals")
    made = stretched(flux_pixels(), FLUX, stretch)
    stored = write(tmp_path / "bytes.cat", stretched_spec(FLUX, stretch), made)
    assert main(["show", stored, "--id", "7", "--output", str(tmp_path / "a.png")]) == 0
    assert np.array_equal(panel(tmp_path / "a.png"), made[0][::-1])
    words = ["show", stored, "--id", "7", "--stretch", "gz_decals", "--parameters", "desaturation=2"]
    assert main([*words, "--output", str(tmp_path / "c.png")]) == 3
    assert "no flux is left to stretch" in capsys.readouterr().err
    pixels = toy_pixels(2)
    png = encoded_catalog(tmp_path / "png.cat", encode(pixels, "png"), encoding="png")
    assert main(["show", str(png), "--id", "1", "--output", str(tmp_path / "b.png")]) == 0
    assert np.array_equal(panel(tmp_path / "b.png", width=16), pixels[1])
    assert "display: as it is" in capsys.readouterr().out


def test_one_and_two_bands_are_drawn_too(tmp_path):
    for bands in (("VIS",), ("VIS", "Y")):
        spec = replace(FLUX, shape=(16, 12, len(bands)), bands=bands)
        catalog = write(tmp_path / f"{len(bands)}.cat", spec, flux_pixels()[..., : len(bands)])
        out = tmp_path / f"{len(bands)}.png"
        assert main(["show", catalog, "--id", "7", "--output", str(out)]) == 0
        found = panel(out, 1 if len(bands) == 2 else 0)
        assert (found[15, 0, 0] == found[15, 0, 2]) == (len(bands) == 1)


def test_of_four_bands_the_last_is_red_whether_they_are_flux_or_stretched(flux, tmp_path, capsys):
    stretch = find_stretch("asinh_percentile", {"bands": FLUX.bands})
    made = stretched(flux_pixels(), FLUX, stretch)
    stored = write(tmp_path / "bytes.cat", stretched_spec(FLUX, stretch), made)
    words = ["--stretch", "asinh_percentile", "--parameters", "bands=g,r,z,y"]
    for catalog, more in ((flux, words), (stored, [])):
        assert main(["show", catalog, "--id", "7", *more, "--output", str(tmp_path / "a.png")]) == 0
        assert "R y, G z, B g" in capsys.readouterr().out
        assert np.array_equal(panel(tmp_path / "a.png")[:12], made[0][::-1][:12, :, [3, 2, 0]])


# The CD matrix of the SDSS tile of NGC 6976, whose y axis points east and whose x axis points north.
TURNED = np.array([[4.50567755535e-05, 0.00032685472236], [0.000326799311661, -4.50016596183e-05]])
UPRIGHT = np.array([[-1e-4, 0.0], [0.0, 1e-4]])


@pytest.mark.parametrize(
    ("cd", "upwards", "north", "east"),
    [
        (UPRIGHT, True, (0, -1), (-1, 0)),
        (UPRIGHT, False, (0, 1), (-1, 0)),
        (TURNED, True, (0.99065, 0.13642), (0.13656, -0.99063)),
    ],
)
def test_north_and_east_are_where_the_cd_matrix_says(cd, upwards, north, east):
    assert np.allclose(directions(cd, upwards), [north, east], atol=2e-4)
    assert directions(np.zeros((2, 2)), upwards) is None


def test_what_cannot_be_drawn_is_refused_with_words(flux, tmp_path, capsys):
    out = str(tmp_path / "a.png")
    toys = str(toy_catalog(tmp_path / "toy.cat", rows=4, ids=["a", "b", "c", "d"]))
    broken = str(encoded_catalog(tmp_path / "broken.cat", [*encode(toy_pixels(1)), b"no image"]))
    unitless = write(tmp_path / "bare.cat", replace(FLUX, unit=None), flux_pixels())
    cases = [
        ([flux, "--id", "9", "--output", out], 3, "there is no object '9' among the 3"),
        ([flux, "--id", "x", "--output", out], 3, "its ids are whole numbers"),
        ([toys, "--id", "e", "--output", out], 3, "there is no object 'e'"),
        ([flux, "--id", "7", "--output", "a.jpg"], 2, "ends in .png"),
        ([flux, "--id", "7"], 2, "--output must be given"),
        ([flux, "--id", "7", "--stretch", "legacy", "--output", out], 2, "Did you mean 'legacy_lupton'"),
        ([flux, "--id", "7", "--stretch", "sdss_lupton", "--output", out], 3, "no band i"),
        ([flux, "--id", "7", "--parameters", "q=3", "--output", out], 2, "add --stretch NAME"),
        (
            [flux, "--id", "7", "--stretch", "none", "--parameters", "q=3", "--output", out],
            2,
            "of one stretch",
        ),
        (
            [flux, "--id", "7", "--stretch", "gz_decals", "--parameters", "q", "--output", out],
            2,
            "not key=value",
        ),
        (
            [flux, "--id", "7", "--stretch", "gz_decals", "--parameters", "q=3", "--output", out],
            2,
            "no parameter 'q'",
        ),
        (
            [unitless, "--id", "7", "--stretch", "gz_decals", "--output", out],
            3,
            "unit of the flux is not known",
        ),
        ([toys, "--id", "a", "--stretch", "gz_decals", "--output", out], 3, "no flux is left to stretch"),
        ([broken, "--id", "1", "--output", out], 3, "cannot be decoded"),
        ([str(tmp_path / "none.cat"), "--id", "1", "--output", out], 3, "none.cat"),
    ]
    for words, code, said in cases:
        assert main(["show", *words]) == code, words
        assert said in capsys.readouterr().err, words
    assert not (tmp_path / "a.png").exists()


def test_parameters_reach_the_stretch(flux, tmp_path):
    words = ["show", flux, "--id", "7", "--stretch", "legacy_lupton", "--output", str(tmp_path / "a.png")]
    assert main([*words, "--parameters", "bands=r,z,y", "q=5"]) == 0
    stretch = find_stretch("legacy_lupton", {"bands": ("r", "z", "y"), "q": 5.0})
    assert np.array_equal(
        panel(tmp_path / "a.png")[:12], stretched(flux_pixels(), FLUX, stretch)[0][::-1][:12]
    )


def test_the_pixel_scale_and_the_compass_follow_from_the_cd_matrix(tmp_path, capsys):
    side = SCALE / 3600
    cd = {"cd11": -side, "cd12": 0.0, "cd21": 0.0, "cd22": side}
    columns = {name: pa.array([value, value, None]) for name, value in cd.items()}
    catalog = write(tmp_path / "cd.cat", SPEC, np.zeros_like(toy_pixels(3)), **columns)
    for object_id in ("7", str(2**60)):
        assert main(["show", catalog, "--id", object_id, "--output", str(tmp_path / f"{object_id}.png")]) == 0
    said = capsys.readouterr().out
    assert said.count("no scale bar") == 1
    sheets = [np.asarray(Image.open(tmp_path / f"{n}.png")) for n in (7, 2**60)]
    corners = [sheet[MARGIN : MARGIN + 100, MARGIN + SIDE - 100 : MARGIN + SIDE] for sheet in sheets]
    assert [int(corner.max()) for corner in corners] == [255, 0]  # the compass, and none
