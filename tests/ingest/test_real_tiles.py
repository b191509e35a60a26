"""Real tiles through the commands, from the file to the answer: ingest, run, verify, cone, sql."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from drive import run_here
from toys import SIZE, toy_bundle

import surveyproc
from surveyproc.catalog import open_catalog
from surveyproc.cli.main import main
from surveyproc.cutouts import InputContract
from surveyproc.quality import Quality

NANOMAGGY = 10 ** ((31.4 - 22.5) / 2.5)  # nJy
DECAM = """
title: DECam Community Pipeline CCDs
bands: {g: g, r: r, z: z}
files:
  image: "CP*/{tile}_ooi_{band}_v?.fits.fz"
  mask: "CP*/{tile}_ood_{band}_v?.fits.fz"
  weight: "CP*/{tile}_oow_{band}_v?.fits.fz"
hdus: {image: 1, mask: 1, weight: 1}
"""


def ingest(capsys, tiles: str, sources: Path, output: Path, *words: str) -> dict:
    """Give the command; returns its report."""
    command = ["ingest", "--tiles", tiles, "--sources", str(sources), "--output", str(output), *words]
    code = main([*command, "--json", "cluster=none"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    report = json.loads(printed.out)
    assert report["rows_in"] == report["rows_out"] + sum(report["rejects"].values())
    return report


def rows_of(catalog: Path) -> pa.Table:
    """All rows, by id."""
    return pa.concat_tables(
        pq.read_table(catalog / file.path) for file in open_catalog(str(catalog)).files
    ).sort_by("object_id")


def stamps_of(rows: pa.Table, catalog: Path) -> np.ndarray:
    """Pixels as (row, band, y, x)."""
    spec = open_catalog(str(catalog)).image
    assert spec.layout == "CHW"
    height, width, channels = spec.shape
    data = b"".join(rows["image"].to_pylist())
    return np.frombuffer(data, spec.dtype).reshape(rows.num_rows, channels, height, width)


def aperture(image: np.ndarray, x: float, y: float, radius: float = 4.71) -> float:
    """Sum of the pixels whose centres are within a radius."""
    v, u = np.mgrid[: image.shape[0], : image.shape[1]]
    return float(image[np.hypot(u - x, v - y) < radius].astype(np.float64).sum())


def write_sources(path: Path, header: fits.Header, x: np.ndarray, y: np.ndarray, ids: list) -> Path:
    """Write a table of sources at pixels of a tile."""
    ra, dec = WCS(header, naxis=2).all_pix2world(x, y, 0)
    pq.write_table(pa.table({"object_id": ids, "ra": ra, "dec": dec, "x": x, "y": y}), path)
    return path


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_galaxies_detected_on_an_sdss_tile_are_found_again_by_a_cone(shared_data, tmp_path, capsys):
    sep = pytest.importorskip("sep")
    folder = shared_data / "fits" / "sdss_ngc6976"
    tile = {band: fits.open(folder / f"reprojected_sdss_{band}.fits.bz2")[0] for band in "gri"}
    image = tile["r"].data.astype(np.float32)
    background = sep.Background(image)
    found = sep.extract(image - background, 5.0, err=background.globalrms, minarea=9)
    assert 100 < len(found) < 1000
    ids = [7_000_000_000_000_000_000 + n for n in range(len(found))]
    header = tile["g"].header
    sources = write_sources(tmp_path / "s.parquet", header, found["x"], found["y"], ids)
    catalog = tmp_path / "ngc6976.cat"
    words = ["--bands", "g,r,i", "--size", "32", "--carry", "x,y"]
    report = ingest(capsys, str(folder / "reprojected_{tile}_{band}.fits.bz2"), sources, catalog, *words)
    assert report["rows_out"] == len(found)
    inside = (found["x"] >= 15) & (found["x"] < 682 - 16) & (found["y"] >= 15) & (found["y"] < 496 - 16)
    assert abs(report["quality"]["EDGE"] - np.count_nonzero(~inside)) <= 1

    rows = rows_of(catalog)
    stamps = stamps_of(rows, catalog)
    inner = [n for n in range(len(found)) if not rows["quality"][n].as_py()][:40]
    for n in inner:
        x, y = rows["x"][n].as_py(), rows["y"][n].as_py()
        for channel, band in enumerate("gri"):
            mine = aperture(stamps[n, channel], rows["x0"][n].as_py(), rows["y0"][n].as_py()) / NANOMAGGY
            assert mine == pytest.approx(aperture(tile[band].data, x, y), rel=1e-5, abs=1e-3)

    contract = InputContract(("R", "G", "B"), SIZE, stretch="sdss_lupton", field_of_view_arcsec=(10, 60))
    bundle = toy_bundle(tmp_path / "toy")
    record = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps(record | {"input": contract.to_dict()}))
    run_here(catalog, tmp_path / "out.run", bundle, "engine.batch_size=64")
    run = surveyproc.open(tmp_path / "out.run")
    assert run.status()["rows"] + run.status()["rejects"] == len(found)
    assert all(check.passed for check in surveyproc.verify(tmp_path / "out.run"))

    table = pq.read_table(sources)
    for n in range(0, len(found), 37):
        ra, dec = table["ra"][n].as_py(), table["dec"][n].as_py()
        nearest = run.cone(ra, dec, 5.0)
        assert nearest["object_id"][0].as_py() == ids[n]
        assert nearest["distance_arcsec"][0].as_py() < 1e-6
        assert surveyproc.cone(catalog, ra, dec, 5.0, columns=["object_id"])["object_id"][0].as_py() == ids[n]
    edges = surveyproc.sql(
        "SELECT count(*) AS n FROM morphology WHERE quality & 1 > 0", tmp_path / "out.run"
    )["n"].to_pylist()
    assert edges == [report["quality"]["EDGE"]]


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_cfhtls_bands_and_a_table_with_everything_wrong(shared_data, tmp_path, capsys):
    folder = shared_data / "fits" / "cfhtls"
    header = fits.getheader(folder / "CFHTLS-test_g.fits")
    x = np.array([200.0, 100.5, 3.0, 5000.0, 200.0, 300.0])
    y = np.array([210.0, 300.25, 430.0, 20.0, 210.0, 50.0])
    ra, dec = WCS(header).all_pix2world(x, y, 0)
    dec[5] = np.nan
    antipode = ((ra[0] + 180) % 360, -dec[0])
    table = pa.table(
        {
            "ID": ["b'a'", "b'b'", "b'c'", "b'off'", "b'a'", "b'nan'", "b'far'"],
            "RA": [*ra, antipode[0]],
            "DEC": [*dec, antipode[1]],
        }
    )
    pq.write_table(table, tmp_path / "s.parquet")
    words = ["--bands", "i,r,g", "--size", "24", "--id", "ID", "--ra", "RA", "--dec", "DEC"]
    catalog = tmp_path / "cfhtls.cat"
    report = ingest(capsys, str(folder / "{tile}_{band}.fits"), tmp_path / "s.parquet", catalog, *words)
    assert report["rows_in"] == 7
    assert report["printed_ids"] == 7
    assert report["quality"] == {"EDGE": 1}
    rows = rows_of(catalog)
    assert rows["object_id"].to_pylist() == ["a", "b", "c"]
    assert sum(report["rejects"].values()) == 4
    stamps = stamps_of(rows, catalog)
    for channel, band in enumerate("irg"):
        truth = fits.getdata(folder / f"CFHTLS-test_{band}.fits")
        factor = 10 ** ((31.4 - 30.0) / 2.5)  # MZP_AB
        for n, (u, v) in enumerate(zip(x[:2], y[:2])):
            mine = aperture(stamps[n, channel], rows["x0"][n].as_py(), rows["y0"][n].as_py())
            assert mine == pytest.approx(aperture(truth, u, v) * factor, rel=1e-5)
    rejected = pq.read_table(catalog / "rejects.parquet")
    assert sorted(rejected["object_id"].to_pylist()) == ["a", "far", "nan", "off"]
    assert all(rejected["reason"].to_pylist())

    pq.write_table(table.select(["ID", "RA"]), tmp_path / "no_dec.parquet")
    words = ["ingest", "--tiles", str(folder / "{tile}_{band}.fits"), *words]
    words += ["--sources", str(tmp_path / "no_dec.parquet"), "--output", str(tmp_path / "no.cat")]
    assert main([*words, "cluster=none"]) in (2, 3)
    assert "DEC" in capsys.readouterr().err
    assert not (tmp_path / "no.cat").exists()


def test_decals_cubes_with_bad_pixels_and_files_that_are_cut_off_or_no_fits(shared_data, tmp_path, capsys):
    folder = tmp_path / "cubes"
    folder.mkdir()
    for path in (shared_data / "fits" / "decals").glob("*.fits"):
        (folder / path.name).symlink_to(path)
    (folder / "example_html.fits").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    tables = []
    for path in sorted((shared_data / "fits" / "decals").glob("*.fits")):
        header = fits.getheader(path)
        steps = np.arange(24.0, 400, 40)
        x, y = (v.ravel() for v in np.meshgrid(steps, steps))
        ra, dec = WCS(header, naxis=2).all_pix2world(x, y, 0)
        names = [f"{path.stem}-{int(a)}-{int(b)}" for a, b in zip(x, y)]
        tables.append(pa.table({"object_id": names, "ra": ra, "dec": dec}))
    pq.write_table(pa.concat_tables(tables), tmp_path / "s.parquet")
    catalog = tmp_path / "decals.cat"
    words = ["--bands", "g,r,z", "--size", "16", "--unit", "nanomaggy", "--zeropoint", "22.5"]
    report = ingest(capsys, str(folder / "{tile}.fits"), tmp_path / "s.parquet", catalog, *words)
    assert report["rejects"]["truncated"] == 100
    assert set(report["unusable_tiles"]) == {"example_incomplete", "example_html"}
    assert report["tiles_used"] == 3
    rows = rows_of(catalog)
    stamps = stamps_of(rows, catalog)
    bad = fits.getdata(folder / "example_bad_pix.fits")
    missing = 0
    for name, quality, stamp in zip(rows["object_id"].to_pylist(), rows["quality"].to_pylist(), stamps):
        tile, x, y = name.rsplit("-", 2)
        assert tile != "example_incomplete"
        if tile == "example_bad_pix":
            truth = bad[:, int(y) - 8 : int(y) + 8, int(x) - 8 : int(x) + 8]
            assert np.array_equal(stamp, truth)
            dead = ~truth.any(axis=(1, 2))
            assert bool(quality & Quality.MISSING_BAND) == bool(dead.any())
            missing += int(dead.any())
        else:
            assert quality == 0
    assert missing == report["quality"]["MISSING_BAND"] > 0

    contract = InputContract(("g", "r", "z"), SIZE, stretch="none", softening=0.01)
    bundle = toy_bundle(tmp_path / "toy", bands=("g", "r", "z"))
    record = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps(record | {"input": contract.to_dict()}))
    run_here(catalog, tmp_path / "out.run", bundle, "engine.batch_size=64")
    found = surveyproc.open(tmp_path / "out.run").table("morphology", ["object_id", "quality"])
    assert found.sort_by("object_id")["quality"].to_pylist() == rows["quality"].to_pylist()


def farthest_from_the_edge(images: list[Path], ra: float, dec: float) -> tuple[Path, float, float]:
    """The exposure in which a position is farthest from the edge, and its pixel there."""
    found = []
    for path in images:
        header = fits.getheader(path, 1)
        x, y = (float(v) for v in WCS(header).all_world2pix(ra, dec, 0))
        edge = min(x, y, header["NAXIS1"] - 1 - x, header["NAXIS2"] - 1 - y)
        found.append((edge, path, x, y))
    return max(found)[1:]


def test_decam_ccds_with_masks_and_weights_through_a_preset(shared_data, tmp_path, capsys):
    root = shared_data / "fits" / "legacypipe" / "images" / "decam"
    (tmp_path / "decam.yaml").write_text(DECAM)
    images = sorted(root.glob("CP*/*_ooi_*_v?.fits.fz"))
    assert len(images) == 4
    parts = []
    for n, path in enumerate(images):
        x, y = np.array([14.2, 25.0]), np.array([20.0, 22.5])
        ra, dec = WCS(fits.getheader(path, 1)).all_pix2world(x, y, 0)
        parts.append(pa.table({"object_id": [10 * n, 10 * n + 1], "ra": ra, "dec": dec, "x": x, "y": y}))
    pq.write_table(pa.concat_tables(parts), tmp_path / "s.parquet")
    catalog = tmp_path / "decam.cat"
    words = [
        "--preset",
        str(tmp_path / "decam.yaml"),
        "--planes",
        "mask,weight",
        "--size",
        "12",
        "--carry",
        "x,y",
    ]
    report = ingest(capsys, str(root), tmp_path / "s.parquet", catalog, *words)
    assert report["rows_out"] == 8
    assert report["quality"]["MISSING_BAND"] == 8, "every exposure is of one band"
    rows, elsewhere = rows_of(catalog), 0
    for row in rows.to_pylist():
        path, x, y = farthest_from_the_edge(images, row["ra"], row["dec"])
        elsewhere += path != images[row["object_id"] // 10]
        assert path == images[row["object_id"] // 10] or row["quality"] & Quality.DUPLICATE_TILE
        channel = "grz".index(path.name.split("_ooi_")[1][0])
        masks = np.frombuffer(row["mask"], np.int32).reshape(3, 12, 12)
        weights = np.frombuffer(row["weight"], np.float32).reshape(3, 12, 12)
        left, low = round(x - row["x0"]), round(y - row["y0"])
        box, name = np.s_[low : low + 12, left : left + 12], str(path)
        assert np.array_equal(masks[channel], fits.getdata(name.replace("_ooi_", "_ood_"), 1)[box])
        raw = fits.getdata(name.replace("_ooi_", "_oow_"), 1)[box].clip(0, None)
        factor = 10 ** ((31.4 - fits.getval(name, "MAGZERO")) / 2.5)
        assert weights[channel] == pytest.approx(raw / factor**2, rel=1e-5)
    assert elsewhere, "exposures overlap"
    nearest = surveyproc.cone(catalog, rows["ra"][0].as_py(), rows["dec"][0].as_py(), 1.0)
    assert nearest["object_id"][0].as_py() == rows["object_id"][0].as_py()
    assert "mask" not in nearest.column_names
