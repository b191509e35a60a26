"""Cutouts of tiles: the right pixels, in the right unit, with the right geometry, and no source lost."""

import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_tiles import cut, noise, pixels_of, sources_at, tan_header, wcs_of_row, write_tile

from surveyproc.errors import InputError, UsageError
from surveyproc.ingest.tiles import CutSettings, find_tiles, read_layout, row_schema
from surveyproc.quality import Quality

GRI = ("g", "r", "i")


def one_tile(folder, pixels=None, header=None, bands=("g",), **cards):
    """Write a tile with the same WCS in all bands; returns the tile, its header and its pixels by band."""
    made = {}
    for seed, band in enumerate(bands):
        made[band] = noise((200, 240), seed) if pixels is None else pixels
        head = write_tile(folder / f"t1_{band}.fits", made[band], header, **cards)
    (tile,) = find_tiles(read_layout(str(folder / "{tile}_{band}.fits"), bands))
    return tile, head, made


def test_cutouts_equal_those_of_astropy(tmp_path):
    tile, header, made = one_tile(tmp_path, bands=GRI, angle=30)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-0.4, 239.4, 60), rng.uniform(-0.4, 199.4, 60)
    for size in (16, 17):
        rows, rejects, _ = cut(tile, sources_at(header, x, y), CutSettings(GRI, size))
        assert rejects.num_rows == 0
        for n, stamp in enumerate(pixels_of(rows)):
            for channel, band in enumerate(GRI):
                expected = Cutout2D(made[band], (x[n], y[n]), size, mode="partial", fill_value=0.0)
                assert np.array_equal(stamp[channel], expected.data), (n, band)
            assert np.allclose((rows["x0"][n].as_py(), rows["y0"][n].as_py()), expected.input_position_cutout)


def test_aperture_flux_of_a_cutout_is_that_of_the_tile(tmp_path):
    tile, header, made = one_tile(tmp_path, MAGZERO=27.0, BUNIT="adu")
    x, y = np.array([60.3, 150.8]), np.array([70.9, 99.1])
    rows, _, _ = cut(tile, sources_at(header, x, y), CutSettings(("g",), 48))
    yy, xx = np.mgrid[:200, :240]
    v, u = np.mgrid[:48, :48]
    for n in (0, 1):
        row = rows.slice(n, 1).to_pylist()[0]
        in_tile = made["g"][np.hypot(xx - x[n], yy - y[n]) < 9].astype(float).sum()
        in_cutout = pixels_of(rows)[n, 0][np.hypot(u - row["x0"], v - row["y0"]) < 9].astype(float).sum()
        # 27 mag is 57.5440 nJy for one count: 10^((31.4 - 27) / 2.5)
        assert in_cutout == pytest.approx(in_tile * 57.543993733715695, rel=1e-6)


def sip_header():
    header = tan_header((200, 240), dec=-40.0, angle=12)
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header.update({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 6e-6, "A_0_2": -3e-6, "B_1_1": 9e-6, "B_2_0": 3e-6})
    return header


def galactic_header():
    header = tan_header((200, 240), ra=30.0, dec=60.0)
    header["CTYPE1"], header["CTYPE2"] = "GLON-TAN", "GLAT-TAN"
    return header


@pytest.mark.parametrize(
    "header",
    [
        tan_header((200, 240), dec=75.0, angle=25, scale=5.0),
        tan_header((200, 240), ra=0.001, dec=89.99, scale=0.5),
        tan_header((200, 240), ra=359.999, dec=-3.0),
        sip_header(),
        galactic_header(),
        tan_header((200, 240), RADESYS="FK5", EQUINOX=2000.0),
    ],
    ids=["high-dec", "pole", "wrap", "sip", "galactic", "fk5"],
)
def test_the_wcs_rebuilt_from_a_row_is_that_of_the_tile(tmp_path, header):
    tile, header, _ = one_tile(tmp_path, header=header)
    wcs = WCS(header)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(10, 230, 20), rng.uniform(10, 190, 20)
    sky = wcs.pixel_to_world(x, y).icrs
    sources = pa.table({"object_id": np.arange(20), "ra": sky.ra.deg, "dec": sky.dec.deg})
    rows, rejects, _ = cut(tile, sources, CutSettings(("g",), 32))
    assert rejects.num_rows == 0
    corners = np.array([[0, 0], [31, 0], [0, 31], [31, 31], [15.5, 15.5]])
    for n, row in enumerate(rows.to_pylist()):
        u, v = corners.T
        ra, dec = wcs_of_row(row).all_pix2world(u, v, 0)
        back = wcs.world_to_pixel(SkyCoord(ra, dec, unit="deg"))
        off = np.round(x[n] - row["x0"]), np.round(y[n] - row["y0"])
        assert np.abs(back[0] - (u + off[0])).max() < 0.01
        assert np.abs(back[1] - (v + off[1])).max() < 0.01


def test_every_source_is_a_row_or_a_reject_with_its_reason(tmp_path):
    tile, header, _ = one_tile(tmp_path)
    good = sources_at(header, [100.0], [100.0])
    ra0, dec0 = good["ra"][0].as_py(), good["dec"][0].as_py()
    ra = [ra0, np.nan, None, ra0 + 90, ra0 + 180, ra0, 400.0, ra0 - 360, np.inf]
    dec = [dec0, dec0, dec0, dec0, -dec0, dec0 + 0.2, dec0, dec0, dec0]
    names = [f"id{n}" for n in range(9)]
    sources = pa.table({"object_id": names, "ra": pa.array(ra, pa.float64()), "dec": dec, "mag": range(9)})
    rows, rejects, _ = cut(tile, sources, CutSettings(("g",), 16, batch_bytes=3000))
    assert rows["object_id"].to_pylist() == ["id0", "id7"]
    assert rows["mag"].to_pylist() == [0, 7]
    reasons = dict(zip(rejects["object_id"].to_pylist(), rejects["reason"].to_pylist()))
    unknown, off = "no_position", "outside"
    assert reasons == {
        "id1": unknown,
        "id2": unknown,
        "id3": off,
        "id4": off,
        "id5": off,
        "id6": unknown,
        "id8": unknown,
    }
    assert set(rejects["stage"].to_pylist()) == {"tile"}


@pytest.fixture(scope="module")
def plain_tile(tmp_path_factory):
    return one_tile(tmp_path_factory.mktemp("plain"))


@given(
    x=st.lists(st.floats(-400, 600), min_size=1, max_size=30),
    size=st.integers(1, 40),
    batch_rows=st.integers(1, 40),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_source_is_lost_or_doubled_whatever_the_batches(plain_tile, x, size, batch_rows):
    tile, header, _ = plain_tile
    y = [(7 * v) % 200 for v in x]
    sources = sources_at(header, x, y)
    rows, rejects, _ = cut(tile, sources, CutSettings(("g",), size, batch_bytes=batch_rows * 4 * size**2))
    ids = rows["object_id"].to_pylist()
    assert sorted(ids + rejects["object_id"].to_pylist()) == list(range(len(x)))
    assert ids == sorted(ids)
    inside = [n for n, (a, b) in enumerate(zip(x, y)) if -0.499 < a < 239.499 and -0.499 < b < 199.499]
    assert set(inside) <= set(ids)


def test_flaws_become_bits_and_nothing_usable_becomes_a_reject(tmp_path):
    g, r = noise((100, 300), 1), noise((100, 300), 2)
    g[50, 50] = np.nan
    g[30:70, 80:120] = np.nan
    r[30:70, 130:170] = 0.0
    g[50, 200] = 500.0
    g[30:70, 230:270] = np.inf
    r[30:70, 230:270] = 0.0
    for band, pixels in (("g", g), ("r", r)):
        header = write_tile(tmp_path / f"t_{band}.fits", pixels, SATURATE=400.0)
    (tile,) = find_tiles(read_layout(str(tmp_path / "{tile}_{band}.fits"), "gr"))
    x = [20.0, 50.0, 100.0, 150.0, 200.0, 250.0, 2.0]
    rows, rejects, _ = cut(tile, sources_at(header, x, [50.0] * 7), CutSettings(("g", "r"), 16))
    bits = dict(zip(rows["object_id"].to_pylist(), rows["quality"].to_pylist()))
    nothing = Quality.NAN_PIXELS | Quality.MISSING_BAND
    assert bits == {
        0: 0,
        1: Quality.NAN_PIXELS,
        2: nothing,
        3: Quality.MISSING_BAND,
        4: Quality.SATURATED,
        6: Quality.EDGE,
    }
    assert rejects.to_pylist()[0] | {"detail": ""} == {
        "object_id": 5,
        "stage": "tile",
        "reason": "no_pixels",
        "detail": "",
    }
    assert np.isfinite(pixels_of(rows)).all()
    stamp = pixels_of(rows)[1, 0]
    assert stamp[8, 8] == 0
    assert np.array_equal(
        np.delete(stamp.ravel(), 8 * 16 + 8), np.delete(g[42:58, 42:58].ravel(), 8 * 16 + 8)
    )


def test_bits_are_added_to_those_that_sources_bring(tmp_path):
    tile, header, _ = one_tile(tmp_path)
    given_bits = pa.array([int(Quality.DUPLICATE_TILE), None], pa.int32())
    rows, _, _ = cut(
        tile, sources_at(header, [1.0, 99.0], [50.0, 50.0], quality=given_bits), CutSettings(("g",), 16)
    )
    assert rows["quality"].to_pylist() == [Quality.DUPLICATE_TILE | Quality.EDGE, 0]
    assert rows.column_names.count("quality") == 1


@pytest.mark.parametrize("kind", ["u1", ">i2", "u2", ">i4", ">i8", "<f8", ">f8"])
def test_numbers_of_any_type_and_byte_order(tmp_path, kind):
    pixels = (noise((60, 60)) * 5).clip(1, 250).astype(kind)
    tile, header, _ = one_tile(tmp_path, pixels)
    rows, _, _ = cut(tile, sources_at(header, [30.0], [30.0]), CutSettings(("g",), 16))
    assert np.array_equal(pixels_of(rows)[0, 0], pixels[22:38, 22:38].astype(np.float32))


def test_bscale_bzero_and_blank_of_integer_images(tmp_path):
    header = tan_header((40, 40), BSCALE=0.5, BZERO=100.0, BLANK=-7)
    numbers = np.arange(1600, dtype=">i2").reshape(40, 40)
    numbers[20, 20] = -7
    hdu = fits.PrimaryHDU(numbers, header)
    hdu.header.update({"BSCALE": 0.5, "BZERO": 100.0, "BLANK": -7})
    hdu.writeto(tmp_path / "t_g.fits")
    raw = bytearray((tmp_path / "t_g.fits").read_bytes())
    raw[-len(numbers.tobytes()) - (-len(numbers.tobytes()) % 2880) :] = numbers.tobytes().ljust(
        2880 * 2, b"\0"
    )
    (tmp_path / "t_g.fits").write_bytes(raw)
    (tile,) = find_tiles(read_layout(str(tmp_path / "{tile}_{band}.fits"), "g"))
    rows, _, _ = cut(tile, sources_at(header, [20.0], [20.0]), CutSettings(("g",), 8))
    expected = np.arange(1600.0).reshape(40, 40)[16:24, 16:24] * 0.5 + 100
    expected[4, 4] = 0
    assert np.array_equal(pixels_of(rows)[0, 0], expected)
    assert rows["quality"].to_pylist() == [Quality.NAN_PIXELS]


def test_float16_keeps_what_it_can_and_flags_what_it_cannot(tmp_path):
    pixels = noise((60, 60))
    pixels[30, 30] = 1e6
    tile, header, _ = one_tile(tmp_path, pixels)
    rows, _, _ = cut(
        tile, sources_at(header, [30.0, 8.0], [30.0, 8.0]), CutSettings(("g",), 16, dtype="float16")
    )
    stamps = pixels_of(rows)
    assert stamps.dtype == np.float16
    assert stamps[0, 0, 8, 8] == 65504
    assert np.array_equal(stamps[1, 0], pixels[0:16, 0:16].astype(np.float16))
    assert rows["quality"].to_pylist() == [Quality.SATURATED, 0]


def test_one_unit_whatever_the_bands_say(tmp_path):
    """A Euclid cutout may say 24.6 in VIS and 29.8 in Y; 3631 Jy at magnitude 0 is 31.4 mag for a nanojansky."""
    pixels = noise((60, 60))
    for band, zeropoint in (("VIS", 24.6), ("Y", 29.8)):
        header = write_tile(tmp_path / f"t_{band}.fits", pixels, MAGZERO=zeropoint, BUNIT=None)
    (tile,) = find_tiles(read_layout(str(tmp_path / "{tile}_{band}.fits"), ["VIS", "Y"]))
    source = sources_at(header, [30.0], [30.0])
    rows, _, _ = cut(tile, source, CutSettings(("VIS", "Y"), 8))
    vis, y = pixels_of(rows)[0] / pixels[26:34, 26:34]
    assert vis == pytest.approx(np.full((8, 8), 525.0 * 1.0, np.float32), rel=0.02)
    assert vis / y == pytest.approx(np.full((8, 8), 10 ** (5.2 / 2.5)), rel=1e-5)
    rows, _, _ = cut(tile, source, CutSettings(("VIS", "Y"), 8, unit="uJy"))
    assert pixels_of(rows)[0, 0] == pytest.approx(vis * pixels[26:34, 26:34] / 1000, rel=1e-5)


def test_a_file_that_changed_since_the_survey_is_refused(tmp_path):
    tile, header, made = one_tile(tmp_path)
    write_tile(tmp_path / "t1_g.fits", made["g"][:150], tan_header((150, 240)))
    with pytest.raises(InputError, match="changed since it was surveyed"):
        cut(tile, sources_at(header, [50.0], [50.0]), CutSettings(("g",), 16))
    (tmp_path / "t1_g.fits").unlink()
    with pytest.raises(InputError, match="gone"):
        cut(tile, sources_at(header, [50.0], [50.0]), CutSettings(("g",), 16))


def test_settings_that_cannot_be_meant():
    for wrong, what in (
        ({"size": 0}, "0 pixels"),
        ({"dtype": "float8"}, "Did you mean 'float16'|unknown pixel type"),
        ({"unit": "njy"}, "Did you mean 'nJy'"),
        ({"dtype": "uint8"}, "need a stretch"),
    ):
        with pytest.raises(UsageError, match=what):
            CutSettings(("g",), **wrong)
    with pytest.raises(UsageError, match="columns image, x0 of its own"):
        row_schema(
            CutSettings(("g",)),
            (),
            pa.schema([("object_id", pa.int64()), ("x0", pa.int8()), ("image", pa.binary())]),
        )
