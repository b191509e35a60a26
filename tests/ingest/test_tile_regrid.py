"""Bands on different grids, brought to that of the first."""

import builtins

import numpy as np
import pytest
from astropy.wcs import WCS
from made_tiles import cut, pixels_of, sources_at, tan_header, write_tile

from surveyproc.errors import ResourceError
from surveyproc.ingest.tiles import CutSettings, find_tiles, read_layout
from surveyproc.quality import Quality

FINE, COARSE = (300, 300), (110, 120)


def star_field(header, shape, positions, fwhm_arcsec):
    """Gaussian stars of flux 1000 at sky positions, integrated by sampling each pixel in its centre."""
    wcs = WCS(header)
    v, u = np.mgrid[: shape[0], : shape[1]]
    ra, dec = wcs.all_pix2world(u, v, 0)
    pixel = abs(np.linalg.det(wcs.wcs.cd)) * 3600**2
    sigma = fwhm_arcsec / 2.3548
    out = np.full(shape, 1e-3)
    for ra0, dec0 in positions:
        r2 = ((ra - ra0) * np.cos(np.radians(dec0)) * 3600) ** 2 + ((dec - dec0) * 3600) ** 2
        out += 1000 * pixel / (2 * np.pi * sigma**2) * np.exp(-r2 / (2 * sigma**2))
    return out.astype(np.float32)


@pytest.fixture
def two_grids(tmp_path):
    """VIS at 0.1 arcsec and Y at 0.3, turned and shifted; the Y image is a little smaller than the VIS one."""
    fine = tan_header(FINE, scale=0.1, MAGZERO=25.0, BUNIT=None)
    coarse = tan_header(COARSE, scale=0.3, angle=20, ra=150.0005, dec=2.0003, MAGZERO=25.0, BUNIT=None)
    x, y = np.array([150.0, 80.4, 200.7]), np.array([150.0, 180.2, 90.9])
    ra, dec = WCS(fine).all_pix2world(x, y, 0)
    stars = list(zip(ra, dec))
    write_tile(tmp_path / "t_VIS.fits", star_field(fine, FINE, stars, 0.8), fine)
    write_tile(tmp_path / "t_Y.fits", star_field(coarse, COARSE, stars, 0.8), coarse)
    (tile,) = find_tiles(read_layout(str(tmp_path / "{tile}_{band}.fits"), ["VIS", "Y"], resample=True))
    return tile, sources_at(fine, x, y)


SETTINGS = CutSettings(("VIS", "Y"), 40, unit="uJy")


def test_flux_and_place_survive_resampling(two_grids):
    pytest.importorskip("reproject")
    tile, sources = two_grids
    rows, rejects, _ = cut(tile, sources, SETTINGS)
    assert rejects.num_rows == 0
    factor = 10 ** ((23.9 - 25.0) / 2.5)
    v, u = np.mgrid[:40, :40]
    for row, (vis, y) in zip(rows.to_pylist(), pixels_of(rows).astype(float)):
        assert vis.sum() == pytest.approx(1000 * factor, rel=0.01)
        assert y.sum() == pytest.approx(1000 * factor, rel=0.03)
        centre = (y * u).sum() / y.sum(), (y * v).sum() / y.sum()
        assert centre == pytest.approx((row["x0"], row["y0"]), abs=0.1)


def test_where_the_other_band_has_no_pixels_they_are_flagged(two_grids):
    pytest.importorskip("reproject")
    tile, _ = two_grids
    rows, _, _ = cut(tile, sources_at(tan_header(FINE, scale=0.1), [25.0], [285.0]), SETTINGS)
    (quality,) = rows["quality"].to_pylist()
    assert quality & (Quality.NAN_PIXELS | Quality.MISSING_BAND)
    assert np.isfinite(pixels_of(rows)).all()


def test_without_the_library_the_message_says_how_to_get_it(two_grids, monkeypatch):
    tile, sources = two_grids
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "reproject":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ResourceError, match="needs the package reproject"):
        cut(tile, sources, SETTINGS)
