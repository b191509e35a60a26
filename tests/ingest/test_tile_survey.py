"""What the headers of tiles say, and what is refused before any pixel is read."""

import gzip

import numpy as np
import pytest
from astropy.io import fits
from made_tiles import cut, noise, pixels_of, sources_at, tan_header, write_tile

from surveyproc.errors import InputError, UsageError
from surveyproc.ingest.tiles import CutSettings, edge_distance, find_tiles, footprint, locate, read_layout
from surveyproc.ingest.tiles.presets import preset_names, read_preset
from surveyproc.quality import Quality

SHAPE = (60, 80)


def survey(folder, bands="g", pattern="{tile}_{band}.fits", **given):
    return find_tiles(read_layout(f"{folder}/{pattern}", bands, **given))


def refusal(folder, *args, **given):
    with pytest.raises(InputError) as caught:
        survey(folder, *args, **given)
    return str(caught.value)


def test_a_tile_says_where_it_is(tmp_path):
    write_tile(tmp_path / "a_g.fits", noise(SHAPE), angle=20, ra=0.0, dec=60.0, scale=1.5)
    (tile,) = survey(tmp_path)
    assert (tile.name, tile.shape, tile.problem, tile.suspect_wcs) == ("a", SHAPE, ("", ""), "")
    assert tile.pixel_scale_arcsec == pytest.approx(1.5, rel=1e-6)
    assert tile.centre == pytest.approx((0.0, 60.0), abs=1e-9)
    assert tile.radius_deg == pytest.approx(50 * 1.5 / 3600, rel=1e-4)  # 60 x 80 has a half diagonal of 50
    outline = footprint(tile)
    x, y = locate(tile, outline[:, 0], outline[:, 1])
    assert np.abs(edge_distance(tile, x, y)).max() < 1e-6
    assert edge_distance(tile, np.array([39.5]), np.array([29.5])) == pytest.approx(30)
    assert np.isnan(locate(tile, np.array([90.0, np.nan]), np.array([60.0, 0.0]))).all()


def test_patterns_name_tiles_and_bands(tmp_path):
    for tract, patch in (("9", "1,2"), ("10", "0,0")):
        for band in "gr":
            write_tile(tmp_path / tract / f"deepCoadd_{tract}_{patch}_{band}_v2_x.fits", noise(SHAPE))
    tiles = survey(tmp_path, "rg", "*/deepCoadd_{tract}_{patch}_{band}_*.fits")
    assert [tile.name for tile in tiles] == ["10-0,0", "9-1,2"]
    assert [band.name for band in tiles[0].bands] == ["r", "g"]
    text = refusal(tmp_path, "rg", "*/deepCoadd_{tract}_{band}.fits")
    assert "no file matches" in text
    assert "deepCoadd_10_0,0_g_v2_x.fits" in text
    assert "no tile has band z" in refusal(tmp_path, "gz", "*/deepCoadd_{tract}_{patch}_{band}_*.fits")
    write_tile(tmp_path / "9" / "deepCoadd_9_1,2_g_v3_x.fits", noise(SHAPE))
    assert "two files for band g of tile 9-1,2" in refusal(
        tmp_path, "gr", "*/deepCoadd_{tract}_{patch}_{band}_*.fits"
    )


def test_a_missing_band_is_a_bit_and_a_broken_one_a_reject(tmp_path):
    for name, bands in (("a", "gr"), ("b", "g"), ("c", "gr")):
        for band in bands:
            header = write_tile(tmp_path / f"{name}_{band}.fits", noise(SHAPE))
    (tmp_path / "c_r.fits").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    a, b, c = survey(tmp_path, "gr")
    source = sources_at(header, [40.0], [30.0])
    settings = CutSettings(("g", "r"), 16)
    assert cut(a, source, settings)[0]["quality"].to_pylist() == [0]
    rows, _, _ = cut(b, source, settings)
    assert rows["quality"].to_pylist() == [Quality.MISSING_BAND]
    assert not pixels_of(rows)[0, 1].any()
    rows, rejects, _ = cut(c, source, settings)
    assert (rows.num_rows, rejects["reason"].to_pylist()) == (0, ["unreadable"])
    assert "web page" in rejects["detail"][0].as_py()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>503</html>", "web page"),
        (b"\x89PNG and so on", "not FITS"),
        (gzip.compress(b"<html>404</html>"), "web page"),
        (fits.PrimaryHDU().header.tostring().encode()[:200], "ends inside the header"),
        (fits.PrimaryHDU().header.tostring().encode(), "no image"),
    ],
)
def test_files_that_are_no_tiles_are_refused_when_they_are_all_there_is(tmp_path, content, reason):
    (tmp_path / "t_g.fits").write_bytes(content)
    text = refusal(tmp_path)
    assert reason in text
    assert "t_g.fits" in text


def test_a_header_without_celestial_wcs_is_refused(tmp_path):
    fits.PrimaryHDU(noise(SHAPE), fits.Header({"BUNIT": "nJy"})).writeto(tmp_path / "t_g.fits")
    assert "no celestial WCS" in refusal(tmp_path)
    write_tile(tmp_path / "u_g.fits", noise(SHAPE))
    bad, good = survey(tmp_path)
    assert (bad.problem[0], bad.wcs, good.problem[0]) == ("no_wcs", "", "")


def test_truncated_tiles_are_told_from_their_size(tmp_path):
    header = write_tile(tmp_path / "t_g.fits", noise(SHAPE))
    whole = (tmp_path / "t_g.fits").read_bytes()
    (tmp_path / "t_g.fits").write_bytes(whole[: 2880 * 2 + 60 * 80 * 4])  # only padding is lost
    assert survey(tmp_path)[0].problem == ("", "")
    (tmp_path / "t_g.fits").write_bytes(whole[:10_000])
    write_tile(tmp_path / "u_g.fits", noise(SHAPE))
    tile = survey(tmp_path)[0]
    assert tile.problem[0] == "truncated"
    assert (tile.shape, tile.corners) == (SHAPE, survey(tmp_path)[1].corners), "its header is whole"
    _, rejects, _ = cut(tile, sources_at(header, [40.0], [30.0]), CutSettings(("g",), 16))
    assert rejects["reason"].to_pylist() == ["truncated"]


def test_zero_points_are_read_or_refused_and_never_assumed(tmp_path):
    for band in "gr":
        write_tile(tmp_path / f"t_{band}.fits", noise(SHAPE), BUNIT="adu")
    text = refusal(tmp_path, "gr")
    assert "zero points of bands g, r are unknown" in text
    assert "--zeropoint g=MAG,r=MAG" in text
    (tile,) = survey(tmp_path, "gr", zeropoints={"g": 25.0, "r": 26.0})
    assert [band.zeropoint for band in tile.bands] == [25.0, 26.0]
    with pytest.raises(UsageError, match="which --bands does not name"):
        survey(tmp_path, "g", zeropoints={"i": 22.5})
    for cards, magnitude in (
        ({"BUNIT": "nanomaggy"}, 22.5),
        ({"BUNIT": "nJy"}, 31.4),
        ({"BUNIT": "Jy"}, 8.9),
        ({"BUNIT": None, "FLUXMAG0": 63095734448.0194}, 27.0),
        ({"BUNIT": None, "PHOTZP": 30.0}, 30.0),
        ({"BUNIT": "nanomaggy", "MAGZERO": 22.5}, 22.5),
    ):
        write_tile(tmp_path / "z" / "t_g.fits", noise(SHAPE), **cards)
        assert survey(tmp_path / "z")[0].bands[0].zeropoint == pytest.approx(magnitude, abs=1e-9), cards
    write_tile(tmp_path / "z" / "t_g.fits", noise(SHAPE), BUNIT="nanomaggy", MAGZERO=30.0)
    assert "contradicts itself on the zero point of band g: MAGZERO 30, BUNIT nanomaggy 22.5" in refusal(
        tmp_path / "z"
    )


def test_the_header_of_the_hdu_stands_before_the_primary_one(tmp_path):
    primary = fits.PrimaryHDU(header=fits.Header({"MAGZERO": 30.0}))
    units = [
        fits.ImageHDU(noise(SHAPE, n), tan_header(SHAPE, BUNIT=None), name=b) for n, b in enumerate("GR")
    ]
    units[1].header["MAGZERO"] = 27.0
    fits.HDUList([primary, *units]).writeto(tmp_path / "t.fits")
    (tile,) = survey(tmp_path, "rg", "{tile}.fits")
    assert [(b.name, b.zeropoint, b.image.hdu) for b in tile.bands] == [("r", 27.0, 2), ("g", 30.0, 1)]
    assert "no tile has band" not in refusal(tmp_path, "zy", "{tile}.fits")
    assert "no usable tile has band z" in refusal(tmp_path, "gz", "{tile}.fits")
    (tile,) = survey(tmp_path, "r", "{tile}.fits", hdu="g")
    assert tile.bands[0].image.hdu == 1
    assert "there is no HDU 7" in refusal(tmp_path, "r", "{tile}.fits", hdu=7)


def test_cubes_name_their_bands_or_have_as_many(tmp_path):
    header = tan_header(SHAPE)
    fits.PrimaryHDU(noise((3, *SHAPE)), header).writeto(tmp_path / "t.fits")
    (tile,) = survey(tmp_path, "grz", "{tile}.fits")
    assert [band.image.slice for band in tile.bands] == [0, 1, 2]
    assert "does not name" in refusal(tmp_path, "gr", "{tile}.fits")


def test_contradictory_wcs_and_wrong_scales(tmp_path):
    header = tan_header(SHAPE, PC1_1=1.0, PC2_2=1.0)
    write_tile(tmp_path / "a_g.fits", noise(SHAPE), header)
    (tile,) = survey(tmp_path)
    assert "mixes CDi_j and PCi_j" in tile.suspect_wcs
    header = tan_header(SHAPE, CDELT1=-1e-3, CDELT2=1e-3)
    write_tile(tmp_path / "a_g.fits", noise(SHAPE), header)
    (tile,) = survey(tmp_path)
    assert "different pixel scales" in tile.suspect_wcs
    rows, _, _ = cut(tile, sources_at(tan_header(SHAPE), [40.0], [30.0]), CutSettings(("g",), 16))
    assert rows["quality"].to_pylist() == [Quality.BAD_WCS]
    write_tile(tmp_path / "a_g.fits", noise(SHAPE), scale=0.4)
    assert "pixels are 0.4 arcsec, 0.2 are expected" in refusal(tmp_path, pixel_scale_arcsec=0.2)
    write_tile(tmp_path / "b_g.fits", noise(SHAPE), scale=0.2)
    wrong, right = survey(tmp_path, pixel_scale_arcsec=0.2)
    assert "0.2 is expected" in wrong.suspect_wcs
    assert right.suspect_wcs == ""


def test_a_tile_whose_pixels_have_another_size_than_all_others_is_doubted(tmp_path):
    for name, scale in (("a", 0.2), ("b", 0.4), ("c", 0.201)):
        write_tile(tmp_path / f"{name}_g.fits", noise(SHAPE), scale=scale)
    assert [bool(tile.suspect_wcs) for tile in survey(tmp_path)] == [False, True, False]
    assert "0.4 arcsec where other tiles have 0.201" in survey(tmp_path)[1].suspect_wcs
    write_tile(tmp_path / "d_g.fits", noise(SHAPE), scale=0.4)
    assert not any(tile.suspect_wcs for tile in survey(tmp_path))  # two instruments, not two mistakes
    (tmp_path / "a_g.fits").unlink()
    (tmp_path / "d_g.fits").unlink()
    assert not any(tile.suspect_wcs for tile in survey(tmp_path))


def test_bands_on_different_grids_are_refused(tmp_path):
    write_tile(tmp_path / "t_g.fits", noise(SHAPE))
    write_tile(tmp_path / "t_r.fits", noise(SHAPE), scale=0.3)
    text = refusal(tmp_path, "gr")
    assert "band r is on another pixel grid than g" in text
    assert "--resample" in text
    (tile,) = survey(tmp_path, "gr", resample=True)
    assert [bool(band.wcs) for band in tile.bands] == [False, True]


def test_shipped_presets_can_be_read_and_wrong_ones_say_all_that_is_wrong(tmp_path):
    assert {"euclid_mer", "hsc_pdr3", "legacy_bricks", "rubin_coadds", "sdss_frames"} <= set(preset_names())
    for name in preset_names():
        assert read_preset(name).files["image"].count("{band}") == 1
    with pytest.raises(UsageError, match="Did you mean 'euclid_mer'"):
        read_preset("euclid_mr")
    (tmp_path / "own.yaml").write_text(
        "title: x\nfile: {}\nweight: sigma\npixel_scale_arcsec: -1\nbands: [g]\n"
    )
    with pytest.raises(InputError) as caught:
        read_preset(str(tmp_path / "own.yaml"))
    for problem in (
        "unknown key 'file'. Did you mean 'files'?",
        "weight is one of",
        "-1",
        "bands is no mapping",
    ):
        assert problem in str(caught.value)
    with pytest.raises(UsageError, match="the preset has no band 'g'"):
        read_layout("DIR", ["g"], preset="euclid_mer")
    with pytest.raises(UsageError, match="where is the weight plane"):
        read_layout("DIR/{tile}_{band}.fits", ["g"], planes=["weight"])


def euclid(folder):
    for band, zeropoint in (("VIS", 24.6), ("NIR-Y", 29.8), ("NIR-J", 30.0), ("NIR-H", 29.9)):
        name = f"{band}_TILE102018211-ACBD03_20241018T142710.276838Z_00.00.fits"
        write_tile(
            folder / f"EUC_MER_BGSUB-MOSAIC-{name}", noise(SHAPE), scale=0.1, MAGZERO=zeropoint, BUNIT=None
        )
        rms = f"EUC_MER_MOSAIC-{band}-RMS_TILE102018211-ABC_20241018T1Z_00.00.fits"
        write_tile(folder / rms, np.full(SHAPE, 0.5, np.float32), scale=0.1)


def sdss(folder):
    for band in "ugriz":
        write_tile(folder / f"frame-{band}-001737-5-0047.fits", noise(SHAPE), scale=0.396, BUNIT="nanomaggy")


def legacy(folder):
    for band in "griz":
        for plane, values in (
            ("image", noise(SHAPE)),
            ("invvar", np.full(SHAPE, 4.0, np.float32)),
            ("psfsize", np.full(SHAPE, 1.25, np.float32)),
        ):
            hdu = fits.CompImageHDU(
                values, tan_header(SHAPE, scale=0.262, BUNIT="nanomaggy" if plane == "image" else None)
            )
            fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(
                folder / f"legacysurvey-0001m002-{plane}-{band}.fits.fz"
            )
    bits = np.zeros(SHAPE, np.int16)
    bits[30, 40] = 1 << 3
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(bits, tan_header(SHAPE, scale=0.262))]).writeto(
        folder / "legacysurvey-0001m002-maskbits.fits.fz"
    )


def lsst(folder, names, scale, cards):
    for name in names.values():
        bits = np.zeros(SHAPE, np.int32)
        bits[30, 40] = 1 << 1
        units = [
            fits.ImageHDU(
                noise(SHAPE), tan_header(SHAPE, scale=scale, BUNIT=cards.get("BUNIT")), name="IMAGE"
            ),
            fits.ImageHDU(bits, fits.Header({"MP_BAD": 0, "MP_SAT": 1}), name="MASK"),
            fits.ImageHDU(np.full(SHAPE, 0.25, np.float32), name="VARIANCE"),
        ]
        primary = fits.PrimaryHDU(header=fits.Header({k: v for k, v in cards.items() if k != "BUNIT"}))
        fits.HDUList([primary, *units]).writeto(folder / name)


@pytest.mark.parametrize(
    ("preset", "make", "zeropoints", "planes"),
    [
        ("euclid_mer", euclid, (24.6, 29.8, 30.0, 29.9), ("weight",)),
        ("sdss_frames", sdss, (22.5,) * 5, ()),
        ("legacy_bricks", legacy, (22.5,) * 4, ("weight", "mask", "psf")),
        (
            "hsc_pdr3",
            lambda f: lsst(
                f,
                {b: f"calexp-HSC-{b}-9813-4,4.fits" for b in "GRIZY"},
                0.168,
                {"FLUXMAG0": 63095734448.0194},
            ),
            (27.0,) * 5,
            ("weight", "mask"),
        ),
        (
            "rubin_coadds",
            lambda f: lsst(
                f,
                {b: f"deepCoadd_calexp_9813_42_{b}_hsc_rings_v1_u_r.fits" for b in "ugrizy"},
                0.2,
                {"BUNIT": "nJy"},
            ),
            (31.4,) * 6,
            ("weight", "mask"),
        ),
    ],
)
def test_presets_find_bands_units_and_planes(tmp_path, preset, make, zeropoints, planes):
    make(tmp_path)
    (tile,) = find_tiles(read_layout(str(tmp_path), preset=preset, planes=planes))
    assert tuple(band.zeropoint for band in tile.bands) == pytest.approx(zeropoints, abs=1e-9)
    scale = read_preset(preset).pixel_scale_arcsec
    source = sources_at(tan_header(SHAPE, scale=scale), [40.0], [30.0])
    bands = tuple(band.name for band in tile.bands)
    rows, _, _ = cut(tile, source, CutSettings(bands, 8, unit="nanomaggy", planes=planes))
    row = rows.to_pylist()[0]
    assert row["quality"] == (Quality.SATURATED if "mask" in planes else 0)
    factor = 10 ** ((22.5 - np.array(zeropoints)) / 2.5)
    if "weight" in planes:
        ivar = np.frombuffer(row["weight"], np.float32).reshape(len(bands), 8, 8)
        assert ivar[:, 3, 3] == pytest.approx(4 / factor**2, rel=1e-5)
    if "mask" in planes:
        bits = np.frombuffer(row["mask"], np.int32).reshape(len(bands), 8, 8)
        assert (bits[:, 4, 4] > 0).all()
        assert np.count_nonzero(bits) == len(bands)
    if "psf" in planes:
        assert row["psf_fwhm_arcsec"] == pytest.approx([1.25] * 4)
