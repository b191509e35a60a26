"""Tiles of SDSS, CFHTLS, DECaLS and DECam as they come."""

import bz2

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from made_tiles import cut, pixels_of, sources_at, wcs_of_row

from surveyproc.errors import InputError
from surveyproc.ingest.tiles import CutSettings, find_tiles, read_layout
from surveyproc.quality import Quality

OWN_PRESET = """
title: DECam Community Pipeline CCDs
bands: {g: g, r: r, z: z}
files:
  image: "CP*/{tile}_ooi_{band}_v?.fits.fz"
  mask: "CP*/{tile}_ood_{band}_v?.fits.fz"
  weight: "CP*/{tile}_oow_{band}_v?.fits.fz"
hdus: {image: 1, mask: 1, weight: 1}
"""


def survey(pattern, bands, **given):
    return find_tiles(read_layout(str(pattern), bands, **given))


def aperture(pixels, x, y, radius=6):
    v, u = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    return pixels[np.hypot(u - x, v - y) < radius].astype(np.float64).sum()


def test_sdss_frames_packed_with_bzip2(shared_data):
    folder = shared_data / "fits" / "sdss_ngc6976"
    (tile,) = survey(folder / "{tile}_{band}.fits.bz2", "gri")
    truth = {b: fits.open(folder / f"reprojected_sdss_{b}.fits.bz2")[0] for b in "gri"}
    wcs = WCS(truth["g"].header)
    x, y = np.random.default_rng(0).uniform(40, 450, (2, 30))
    rows, rejects, read = cut(tile, sources_at(truth["g"].header, x, y), CutSettings(("g", "r", "i"), 64))
    assert rejects.num_rows == 0
    assert read <= sum(p.stat().st_size for p in folder.glob("*.bz2")) + 100
    for n, (row, stamp) in enumerate(zip(rows.to_pylist(), pixels_of(rows))):
        for channel, band in enumerate("gri"):
            # a nanomaggy is 10^((31.4 - 22.5) / 2.5) = 3630.78 nJy
            mine = aperture(stamp[channel], row["x0"], row["y0"]) / 3630.780547701014
            assert mine == pytest.approx(aperture(truth[band].data, x[n], y[n]), rel=2e-6, abs=1e-4)
        u, v = np.array([0.0, 63.0]), np.array([0.0, 63.0])
        back = np.array(wcs.all_world2pix(*wcs_of_row(row).all_pix2world(u, v, 0), 0))
        assert np.abs(back[0] - (u + x[n] - row["x0"])).max() < 0.01
        assert np.abs(back[1] - (v + y[n] - row["y0"])).max() < 0.01
    assert rows["pixel_scale_arcsec"][0].as_py() == pytest.approx(1.188, abs=1e-3)


def test_cfhtls_bands_with_their_own_zero_point_key(shared_data):
    (tile,) = survey(shared_data / "fits" / "cfhtls" / "{tile}_{band}.fits", "gri")
    assert [band.zeropoint for band in tile.bands] == [30.0] * 3
    assert tile.pixel_scale_arcsec == pytest.approx(0.186, abs=1e-4)
    assert tile.bands[0].saturation == pytest.approx(2860.045322)
    image = fits.getdata(shared_data / "fits" / "cfhtls" / "CFHTLS-test_i.fits")
    header = fits.getheader(shared_data / "fits" / "cfhtls" / "CFHTLS-test_i.fits")
    (reverse,) = survey(shared_data / "fits" / "cfhtls" / "{tile}_{band}.fits", "ig")
    sources = sources_at(header, [220.4, 3.0], [219.8, 200.0])
    rows, _, _ = cut(reverse, sources, CutSettings(("i", "g"), 32))
    assert rows["quality"].to_pylist() == [0, Quality.EDGE]
    assert pixels_of(rows)[0, 0] == pytest.approx(image[204:236, 205:237] * 10 ** (1.4 / 2.5), rel=1e-6)


def test_decals_cubes_good_bad_and_truncated(shared_data):
    folder = shared_data / "fits" / "decals"
    with pytest.raises(InputError, match="zero points of bands g, r, z are unknown"):
        survey(folder / "{tile}.fits", "grz")
    tiles = {t.name: t for t in survey(folder / "{tile}.fits", "grz", zeropoints=dict.fromkeys("grz", 22.5))}
    assert {name: tile.problem[0] for name, tile in tiles.items()} == {
        "example_a": "",
        "example_b": "",
        "example_bad_pix": "",
        "example_incomplete": "truncated",
    }
    settings = CutSettings(("g", "r", "z"), 424, unit="nanomaggy")
    for name, tile in tiles.items():
        ra, dec = (
            fits.getval(folder / f"{name}.fits", "CRVAL1"),
            fits.getval(folder / f"{name}.fits", "CRVAL2"),
        )
        source = pa.table({"object_id": ["a"], "ra": [ra], "dec": [dec]})
        rows, rejects, _ = cut(tile, source, settings)
        if name == "example_incomplete":
            assert rejects["reason"].to_pylist() == ["truncated"]
            continue
        cube = fits.getdata(folder / f"{name}.fits")
        assert np.array_equal(pixels_of(rows)[0], cube)
        lost = (
            Quality.MISSING_BAND if name == "example_bad_pix" else 0
        )  # its g and r are 0 where the galaxy is
        assert rows["quality"].to_pylist() == [lost]
    small = CutSettings(("g", "r", "z"), 16)
    bad = fits.getdata(folder / "example_bad_pix.fits")
    header = fits.getheader(folder / "example_bad_pix.fits")
    x, y = (v.ravel() + 0.0 for v in np.meshgrid(np.arange(20, 400, 20), np.arange(20, 400, 20)))
    rows, rejects, _ = cut(tiles["example_bad_pix"], sources_at(header, x, y), small)
    stamps = [bad[:, int(b) - 8 : int(b) + 8, int(a) - 8 : int(a) + 8] for a, b in zip(x, y)]
    dead = [int((~stamp.any(axis=(1, 2))).sum()) for stamp in stamps]
    assert sum(0 < n < 3 for n in dead) > 0
    flagged = dict(zip(rows["object_id"].to_pylist(), rows["quality"].to_pylist()))
    blank = [bool((~stamp[:, 6:10, 6:10].any(axis=(1, 2))).any()) for stamp in stamps]
    assert {n for n, q in flagged.items() if q & Quality.MISSING_BAND} == {
        n for n, d in enumerate(dead) if d < 3 and blank[n]
    }
    assert rejects["object_id"].to_pylist() == [n for n, d in enumerate(dead) if d == 3]


def test_decam_ccds_with_masks_and_weights(shared_data, tmp_path):
    """Files named .fz that are not compressed, extensions, TPV distortion, int32 masks, and one band for each exposure."""
    (tmp_path / "decam.yaml").write_text(OWN_PRESET)
    root = shared_data / "fits" / "legacypipe" / "images" / "decam"
    planes = ("mask", "weight")
    tiles = survey(root, "", preset=str(tmp_path / "decam.yaml"), planes=planes)
    assert len(tiles) == 4
    for tile in tiles:
        (band,) = [b for b in tile.bands if b.image is not None]
        path = band.image.uri
        data, header = fits.getdata(path, 1), fits.getheader(path, 1)
        assert band.zeropoint == fits.getval(path, "MAGZERO")
        settings = CutSettings(("g", "r", "z"), 16, planes=planes)
        rows, _, _ = cut(tile, sources_at(header, [20.3], [25.2]), settings)
        channel = "grz".index(band.name)
        row = rows.to_pylist()[0]
        assert row["quality"] & Quality.MISSING_BAND
        box = np.s_[18:34, 13:29]
        factor = 10 ** ((31.4 - band.zeropoint) / 2.5)
        assert pixels_of(rows)[0, channel] == pytest.approx(data[box] * factor, rel=1e-5)
        mask = np.frombuffer(row["mask"], np.int32).reshape(3, 16, 16)
        assert np.array_equal(mask[channel], fits.getdata(path.replace("_ooi_", "_ood_"), 1)[box])
        assert (np.delete(mask, channel, axis=0) < 0).all()
        weight = np.frombuffer(row["weight"], np.float32).reshape(3, 16, 16)
        raw = fits.getdata(path.replace("_ooi_", "_oow_"), 1)[box].clip(0, None)
        assert weight[channel] == pytest.approx(raw / factor**2, rel=1e-5)
        back = WCS(header).all_world2pix(*wcs_of_row(row).all_pix2world([0.0], [15.0], 0), 0)
        assert np.abs(np.ravel(back) - [13, 33]).max() < 0.01


def test_a_real_frame_cut_short_is_a_reject(shared_data, tmp_path):
    source = shared_data / "fits" / "sdss_ngc6976" / "reprojected_sdss_g.fits.bz2"
    whole = source.read_bytes()
    (tmp_path / "a_g.fits.bz2").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b_g.fits").write_bytes(bz2.decompress(whole)[:900_000])
    (tmp_path / "c_g.fits.bz2").write_bytes(whole)
    packed = survey(tmp_path / "{tile}_{band}.fits.bz2", "g")
    centre = sources_at(fits.getheader(source), [300.0], [200.0])
    rejects = [cut(tile, centre, CutSettings(("g",), 16))[1]["reason"].to_pylist() for tile in packed]
    assert rejects == [["truncated"], []]
    with pytest.raises(InputError, match="the file has 900000 bytes where"):
        survey(tmp_path / "{tile}_{band}.fits", "g")
