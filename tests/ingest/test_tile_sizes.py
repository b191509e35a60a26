"""Cutouts of a field of view per source, resampled to one shape; planes and stretches beside the flux."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from made_tiles import cut, noise, pixels_of, sources_at, tan_header, wcs_of_row, write_tile

from surveyproc.errors import UsageError
from surveyproc.images.stretches.lupton import sdss_lupton
from surveyproc.ingest.tiles import CutSettings, find_tiles, image_spec, read_layout
from surveyproc.quality import Quality

SHAPE = (200, 240)
OWN = """
title: an image with planes in its file
bands: {g: g}
files: {image: "{tile}_{band}.fits"}
hdus: {image: 0, weight: 1, mask: 2, psf: 3}
weight: %s
saturated_bits: [4]
"""


def tile_with_planes(folder, weights=None, mask=None, kind="ivar"):
    pixels = noise(SHAPE)
    weights = np.full(SHAPE, 4.0, np.float32) if weights is None else weights
    mask = np.zeros(SHAPE, np.int16) if mask is None else mask
    header = tan_header(SHAPE)
    width = np.linspace(0.5, 1.5, SHAPE[1], dtype=np.float32)[None].repeat(SHAPE[0], 0)
    units = [fits.PrimaryHDU(pixels, header), *(fits.ImageHDU(plane) for plane in (weights, mask, width))]
    fits.HDUList(units).writeto(folder / "t_g.fits")
    (folder / "own.yaml").write_text(OWN % kind)
    layout = read_layout(str(folder), preset=str(folder / "own.yaml"), planes=("weight", "mask", "psf"))
    return find_tiles(layout)[0], header, pixels


def plain(folder):
    pixels = noise(SHAPE)
    header = write_tile(folder / "t_g.fits", pixels, angle=15)
    (tile,) = find_tiles(read_layout(str(folder / "{tile}_{band}.fits"), "g"))
    return tile, header, pixels


SIZED = CutSettings(("g",), 16, size_column="fov")


def exact_sum(pixels, x, y, half):
    """Flux of a square aperture, with the exact share of every pixel: the product of overlaps along the axes."""
    shares = []
    for centre, length in ((y, pixels.shape[0]), (x, pixels.shape[1])):
        low, high = np.arange(length) - 0.5, np.arange(length) + 0.5
        shares.append(np.clip(np.minimum(high, centre + half) - np.maximum(low, centre - half), 0, None))
    return float(shares[0] @ pixels.astype(float) @ shares[1])


@pytest.mark.parametrize("fov", [1.7, 3.2, 6.4, 11.3])
def test_flux_is_conserved_whether_pixels_shrink_or_grow(tmp_path, fov):
    """At 0.2 arcsec, 16 pixels of the tile are 3.2 arcsec."""
    tile, header, pixels = plain(tmp_path)
    x, y = np.array([100.3, 60.0, 180.77]), np.array([90.1, 100.0, 66.6])
    rows, rejects, _ = cut(tile, sources_at(header, x, y, fov=[fov] * 3), SIZED)
    assert rejects.num_rows == 0
    for n, stamp in enumerate(pixels_of(rows)[:, 0].astype(float)):
        assert stamp.sum() == pytest.approx(exact_sum(pixels, x[n], y[n], fov / 0.4), rel=1e-5)
        inner = stamp[4:12, 4:12].sum()
        assert inner == pytest.approx(exact_sum(pixels, x[n], y[n], fov / 0.8), rel=1e-5)


def test_geometry_is_scaled_with_the_pixels(tmp_path):
    tile, header, _ = plain(tmp_path)
    x, y = np.array([100.3, 60.0]), np.array([90.1, 100.0])
    rows, _, _ = cut(tile, sources_at(header, x, y, fov=[6.4, 1.6]), SIZED)
    assert rows["x0"].to_pylist() == rows["y0"].to_pylist() == [7.5, 7.5]
    assert rows["pixel_scale_arcsec"].to_pylist() == pytest.approx([0.4, 0.1], rel=1e-4)
    for n, row in enumerate(rows.to_pylist()):
        u, v = np.array([0.0, 15.0, 0.0]), np.array([0.0, 0.0, 15.0])
        sky = SkyCoord(*wcs_of_row(row).all_pix2world(u, v, 0), unit="deg")
        back = WCS(header).world_to_pixel(sky)
        step = [2.0, 0.5][n]
        assert np.abs(back[0] - (x[n] + (u - 7.5) * step)).max() < 0.01
        assert np.abs(back[1] - (y[n] + (v - 7.5) * step)).max() < 0.01


def test_the_size_of_the_tile_pixel_gives_the_pixels_of_the_tile(tmp_path):
    tile, header, pixels = plain(tmp_path)
    scale = cut(tile, sources_at(header, [99.5], [99.5]), CutSettings(("g",), 16))[0]["pixel_scale_arcsec"][
        0
    ].as_py()
    rows, _, _ = cut(tile, sources_at(header, [99.5], [99.5], fov=[16 * scale]), SIZED)
    assert pixels_of(rows)[0, 0] == pytest.approx(pixels[92:108, 92:108], rel=1e-4, abs=1e-3)


def test_fields_that_are_no_fields_are_rejects_and_edges_are_flagged(tmp_path):
    tile, header, _ = plain(tmp_path)
    fov = [3.2, 0.0, -1.0, np.nan, 1e6, 30.0]
    rows, rejects, _ = cut(tile, sources_at(header, [100.0] * 6, [100.0] * 6, fov=fov), SIZED)
    assert rows["object_id"].to_pylist() == [0, 5]
    assert rejects["object_id"].to_pylist() == [1, 2, 3, 4]
    assert set(rejects["reason"].to_pylist()) == {"bad_size"}
    assert rows["quality"].to_pylist() == [0, 0]
    rows, _, _ = cut(tile, sources_at(header, [5.0], [100.0], fov=[3.2]), SIZED)
    assert rows["quality"].to_pylist() == [Quality.EDGE]


@pytest.mark.parametrize(("kind", "values"), [("ivar", 4.0), ("variance", 0.25), ("rms", 0.5)])
def test_weights_are_inverse_variances_in_the_unit_of_the_pixels(tmp_path, kind, values):
    weights = np.full(SHAPE, values, np.float32)
    weights[100, 100] = np.nan
    weights[100, 101] = -1
    tile, header, _ = tile_with_planes(tmp_path, weights, kind=kind)
    settings = CutSettings(("g",), 16, unit="uJy", planes=("weight",))
    rows, _, _ = cut(tile, sources_at(header, [100.0, 2.0], [100.0, 100.0]), settings)
    stamps = [np.frombuffer(v, np.float32).reshape(16, 16) for v in rows["weight"].to_pylist()]
    expected = np.full((16, 16), 4.0e6)  # one uJy is 1000 nJy
    expected[8, 8:10] = 0
    assert stamps[0] == pytest.approx(expected, rel=1e-5)
    assert (stamps[1][:, :6] == 0).all()
    assert stamps[1][:, 6:] == pytest.approx(np.full((16, 10), 4.0e6), rel=1e-5)


def test_masks_keep_their_bits_and_say_where_there_are_no_data(tmp_path):
    mask = np.zeros(SHAPE, np.int16)
    mask[100, 100], mask[50, 60] = 1, 16
    tile, header, _ = tile_with_planes(tmp_path, mask=mask)
    sources = sources_at(header, [100.0, 60.0, 2.0], [100.0, 50.0, 100.0], fov=[6.4] * 3)
    settings = CutSettings(("g",), 16, planes=("mask", "psf"))
    rows, _, _ = cut(tile, sources, settings)
    a, b, c = (np.frombuffer(v, np.int32).reshape(16, 16) for v in rows["mask"].to_pylist())
    assert (a[8, 8], np.count_nonzero(a)) == (1, 1)
    assert (b[8, 8], np.count_nonzero(b)) == (16, 1)
    assert (c[:, :6] < 0).all()
    assert (c[:, 6:] == 0).all()
    assert rows["quality"].to_pylist() == [0, Quality.SATURATED, Quality.EDGE]
    widths = rows["psf_fwhm_arcsec"].combine_chunks().flatten().to_pylist()
    assert widths == pytest.approx([0.5 + n / 239 for n in (100, 60, 2)])
    rows, _, _ = cut(tile, sources, CutSettings(("g",), 16, planes=("weight", "mask"), size_column="fov"))
    a, b = (np.frombuffer(v, np.int32).reshape(16, 16) for v in rows["mask"].to_pylist()[:2])
    assert (np.unique(a).tolist(), np.unique(b).tolist()) == ([0, 1], [0, 16])
    assert np.count_nonzero(a) == 4  # a pixel of the tile in the middle of four of twice the size
    weight = np.frombuffer(rows["weight"][0].as_py(), np.float32)
    # 32 px for 16: shares per axis are (1/2, 1, 1/2) or (1, 1); the variance of a pixel is 1/4
    assert weight == pytest.approx(np.full(256, 4 / 1.5**2), rel=1e-3)


def test_a_tile_in_batches_is_the_tile_at_once(tmp_path):
    tile, header, _ = tile_with_planes(tmp_path)
    x, y = np.random.default_rng(0).uniform(0, 199, (2, 50))
    for column in (None, "fov"):
        settings = {"size": 16, "planes": ("weight", "mask", "psf"), "size_column": column}
        sources = sources_at(header, x, y, fov=np.linspace(1, 9, 50))
        once = cut(tile, sources, CutSettings(("g",), **settings))[0]
        pieces = cut(tile, sources, CutSettings(("g",), **settings, batch_bytes=20_000))[0]
        assert once.combine_chunks().equals(pieces.combine_chunks())


def test_stretched_cutouts_are_the_stretch_of_the_flux(tmp_path):
    for seed, band in enumerate("gri"):
        header = write_tile(tmp_path / f"t_{band}.fits", noise(SHAPE, seed), scale=0.396, BUNIT="nanomaggy")
    (tile,) = find_tiles(read_layout(str(tmp_path / "{tile}_{band}.fits"), "gri"))
    x, y = np.random.default_rng(0).uniform(20, 180, (2, 12))
    sources = sources_at(header, x, y)
    flux, _, _ = cut(tile, sources, CutSettings(("g", "r", "i"), 16, unit="nanomaggy"))
    settings = CutSettings(("g", "r", "i"), 16, dtype="uint8", stretch="sdss_lupton", batch_bytes=30_000)
    rows, _, _ = cut(tile, sources, settings)
    spec = image_spec(settings)
    assert (spec.stretch, spec.layout, spec.bands, spec.orientation) == (
        "sdss_lupton",
        "HWC",
        ("R", "G", "B"),
        "bottom-up",
    )
    expected = sdss_lupton(pixels_of(flux).astype(np.float64), 0.396)
    assert np.abs(pixels_of(rows).astype(int) - expected.astype(int)).max() <= 1
    assert 20 < pixels_of(rows).mean() < 235
    with pytest.raises(UsageError, match="no band"):
        image_spec(CutSettings(("g",), 16, dtype="uint8", stretch="sdss_lupton"))
    with pytest.raises(UsageError, match="Did you mean"):
        image_spec(CutSettings(("g",), 16, dtype="uint8", stretch="sdss_luptn"))
