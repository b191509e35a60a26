"""``surveyproc repack``: any form in, the fast layout out; every row accounted for, resumed, and honest."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from toys import toy_bundle, toy_catalog, toy_pixels

from surveyproc.catalog import open_catalog, read_batches
from surveyproc.cli.main import main
from surveyproc.images.decode import decode_batch
from surveyproc.ingest.repack import report as gain
from surveyproc.ingest.repack import source, unit

sys.path.append(str(Path(__file__).resolve().parent.parent / "catalog"))
from foreign import display_pixels, file_of, flux_planes, hdf5, nested, universe, write

ROWS = 60
SHOWN = display_pixels(ROWS)
PLANES = flux_planes(ROWS)
CHANNELS_LAST = np.ascontiguousarray(PLANES.transpose(0, 2, 3, 1))
UNIT_MB = "repack.unit_mb=0.005"


@pytest.fixture
def repack(tmp_path, capsys):
    """Call the verb; returns its JSON, or the exit code with what it printed on stderr."""

    def call(source, *flags, output="out.cat", code=0):
        words = ["repack", str(source), "--output", str(tmp_path / output), "--json", "cluster=none", *flags]
        assert main(words) == code, capsys.readouterr().err
        said = capsys.readouterr()
        return json.loads(said.out) if code == 0 else said.err

    return call


def rows_of(path) -> tuple[pa.Table, np.ndarray]:
    """All rows of a catalog sorted by id, and their pixels."""
    catalog = open_catalog(str(path))
    tables = []
    for file in catalog.files:
        groups = range(len(file.row_groups))
        names = catalog.schema.names
        batches = read_batches(catalog.uri, file.path, groups, 50, names, form=catalog.form)
        tables += [pa.Table.from_batches([batch]) for batch in batches]
    table = pa.concat_tables(tables).sort_by("object_id")
    pixels, failures = decode_batch(table["image"], catalog.image)
    assert not failures
    return table, pixels


def sky(rows: int, seed: int = 3) -> dict[str, pa.Array]:
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))
    return {"object_id": pa.array(range(rows)), "ra": pa.array(ra), "dec": pa.array(dec)}


def test_lists_become_the_fast_layout_and_the_gain_is_told(repack, tmp_path, monkeypatch):
    monkeypatch.setattr(gain, "GAIN_BYTES", SHOWN.nbytes)
    monkeypatch.setattr(gain, "GAIN_SECONDS", 0.01)
    columns = {"object_id": pa.array(range(ROWS)), "mag": pa.array(np.arange(ROWS, dtype=np.float32))}
    columns["emb"] = pa.array([[1.0, 2.0]] * ROWS)
    path = write(tmp_path / "lists.parquet", nested(SHOWN, pa.uint8()), **columns)
    report = repack(path, UNIT_MB)
    assert (report["rows_in"], report["rows_out"], report["rejects"]) == (ROWS, ROWS, {})
    assert (report["layout"], report["left_out"]) == ("flat", ["emb"])
    assert (report["gain"]["before"] > 0, report["gain"]["after"] > 0) == (True, True)
    assert report["gain"]["rows"] == ROWS
    assert report["bytes_before"] == path.stat().st_size
    table, pixels = rows_of(tmp_path / "out.cat")
    assert np.array_equal(pixels, SHOWN)
    assert table["mag"].to_pylist() == list(range(ROWS))
    stored = pq.read_schema(next((tmp_path / "out.cat" / "dataset").glob("*.parquet")))
    assert stored.field("image").type == pa.binary(SHOWN[0].nbytes)
    left = {p.relative_to(tmp_path / "out.cat").parts[0] for p in (tmp_path / "out.cat").rglob("*")}
    assert left == {"dataset", "catalog.json", "checksums.sha256", "rejects.parquet"}


def test_a_row_group_larger_than_a_unit_is_written_in_pieces(repack, tmp_path):
    path = write(tmp_path / "lists.parquet", nested(SHOWN, pa.uint8()), group_rows=ROWS, **sky(ROWS))
    report = repack(path, UNIT_MB, "repack.partition_mb=0.01")
    assert report["gain"] is None  # so few rows would measure how files are opened
    assert report["layout"] == "hats"
    assert np.array_equal(rows_of(tmp_path / "out.cat")[1], SHOWN)


def test_catalogs_with_positions_become_hats_with_every_row_in_its_pixel(repack, tmp_path):
    path = write(tmp_path / "a.parquet", nested(PLANES, pa.float32()), **sky(ROWS))
    flags = ("--bands", "g,r,z", "--unit", "nanomaggy", UNIT_MB, "repack.partition_mb=0.05")
    report = repack(path, *flags)
    assert report["files"] > 5
    found = 0
    for leaf in (tmp_path / "out.cat" / "dataset").rglob("Npix=*.parquet"):
        order, pixel = (int(part.split("=")[1].removesuffix(".parquet")) for part in leaf.parts[-3::2])
        index = pq.read_table(leaf, columns=["_healpix_29"], partitioning=None)["_healpix_29"].to_numpy()
        assert (index >> (2 * (29 - order)) == pixel).all()
        assert (np.diff(index) >= 0).all()
        found += len(index)
    assert found == ROWS
    table, pixels = rows_of(tmp_path / "out.cat")
    assert np.array_equal(pixels, CHANNELS_LAST)
    assert table["ra"].equals(pa.chunked_array([sky(ROWS)["ra"]]))
    about = (tmp_path / "out.cat" / "hats.properties").read_text()
    assert f"hats_nrows={ROWS}" in about
    assert "surveyproc_verb=repack" in about


def test_bad_rows_are_rejects_with_their_reasons_and_everything_adds_up(repack, tmp_path):
    files = [file_of(image, "jpeg") for image in SHOWN]
    files[1], files[2], files[3] = None, files[2][:200], file_of(SHOWN[3, :5])
    files[4] = file_of(np.full_like(SHOWN[4], 7))
    ids = [str(n) for n in range(ROWS)]
    ids[10], ids[11] = None, "9"
    columns = sky(ROWS) | {"object_id": pa.array(ids)}
    dec = columns["dec"].to_numpy().copy()
    dec[20], dec[21] = np.nan, 91.0
    columns["dec"] = pa.array(dec)
    image = pa.array([{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(files)])
    report = repack(
        write(tmp_path / "a.parquet", image, **columns), UNIT_MB, "limits.max_reject_fraction=0.5"
    )
    expected = {"missing_image": 1, "unreadable_image": 1, "wrong_shape": 1, "constant_pixels": 1}
    assert report["rejects"] == expected | {"missing_id": 1, "duplicate_id": 1, "no_position": 2}
    assert report["rows_in"] == ROWS == report["rows_out"] + sum(report["rejects"].values())
    rejects = pq.read_table(tmp_path / "out.cat" / "rejects.parquet")
    assert pc.sum(pc.equal(rejects["stage"], "repack")).as_py() == 8
    bad = rejects["object_id"].to_pylist()
    assert sorted(bad, key=str) == sorted([None, "1", "2", "3", "4", "9", "20", "21"], key=str)
    assert rows_of(tmp_path / "out.cat")[0]["object_id"].to_pylist().count("9") == 1


def test_too_many_rejects_stop_it_and_what_was_done_stays(repack, tmp_path):
    rows = [image.tolist() for image in SHOWN[:20]] + [SHOWN[0, :4].tolist()] * 40
    image = pa.array(rows, pa.list_(pa.list_(pa.list_(pa.uint8()))))
    path = write(tmp_path / "a.parquet", image)
    assert "limits.max_reject_fraction" in repack(path, UNIT_MB, code=4)
    report = repack(path, UNIT_MB, "limits.max_reject_fraction=0.9")
    assert (report["rows_out"], report["rejects"]) == (20, {"wrong_size": 40})


def test_printed_bytes_in_ids_are_mended_and_flux_may_be_halved(repack, tmp_path):
    planes = PLANES.copy()
    planes[5, 1, 2, 3] = 1e6
    columns = {"name": pa.array([f"b'x{n:02d}'" for n in range(ROWS)])}
    path = write(tmp_path / "mmu.parquet", pa.array(universe(planes)), **columns)
    flags = ("--id", "name", "--unit", "counts", "--zeropoint", "27", "--bands", "DES-G=g,DES-R=r,DES-Z=z")
    repack(path, *flags, "--dtype", "float16")
    table, pixels = rows_of(tmp_path / "out.cat")
    assert table["object_id"].to_pylist() == [f"x{n:02d}" for n in range(ROWS)]
    assert np.flatnonzero(table["quality"].to_numpy()).tolist() == [5]
    assert np.isfinite(pixels).all()
    good = np.delete(np.arange(ROWS), 5)
    assert np.array_equal(pixels[good], CHANNELS_LAST[good].astype(np.float16))
    image = open_catalog(str(tmp_path / "out.cat")).image
    assert (image.bands, image.unit, image.zeropoint) == (("g", "r", "z"), "counts", 27.0)


def test_galaxy10_is_numbered_resized_and_its_pixel_scale_follows(repack, tmp_path):
    pytest.importorskip("h5py", reason="HDF5 needs the package h5py")
    where = {name: np.asarray(sky(ROWS)[name]) for name in ("ra", "dec")}
    path = hdf5(tmp_path / "g10.h5", images=SHOWN, pxscale=np.full(ROWS, 0.262), **where)
    repack(path, "--number-rows", "--size", "6")
    table, pixels = rows_of(tmp_path / "out.cat")
    assert table["object_id"].to_pylist() == list(range(ROWS))
    assert table["pixel_scale_arcsec"].to_pylist() == pytest.approx([0.524] * ROWS)
    assert pixels.shape == (ROWS, 6, 6, 3)
    assert np.abs(pixels.mean(axis=(1, 2)) - SHOWN.mean(axis=(1, 2))).max() < 12


def test_numbers_of_rows_count_on_over_all_that_is_read(repack, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "KEY_ROWS", 7)
    where = {name: sky(ROWS)[name] for name in ("ra", "dec")}
    files = [write(tmp_path / "a.parquet", nested(SHOWN, pa.uint8()), **where)]
    if importlib.util.find_spec("h5py"):
        files.append(hdf5(tmp_path / "b.h5", images=SHOWN))  # nothing but pixels
    for file in files:
        assert repack(file, "--number-rows", UNIT_MB, output=f"{file.stem}.cat")["rejects"] == {}
        table, pixels = rows_of(tmp_path / f"{file.stem}.cat")
        assert table["object_id"].to_pylist() == list(range(ROWS))
        assert np.array_equal(pixels, SHOWN)


def test_a_folder_of_images_is_repacked_by_name(repack, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(20):
        (folder / f"g{number:02d}.png").write_bytes(file_of(SHOWN[number]))
    (folder / "g99.png").write_bytes(b"<html>")
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "more").mkdir()
    (folder / "more" / "g03.png").write_bytes(file_of(SHOWN[30]))
    report = repack(folder, "limits.max_reject_fraction=0.9")
    assert report["rejects"] == {"unreadable_image": 2, "duplicate_id": 1}
    table, pixels = rows_of(tmp_path / "out.cat")
    assert table["object_id"].to_pylist() == [f"g{n:02d}" for n in range(20)]
    assert np.array_equal(pixels, SHOWN[:20])

    repack(folder, "--number-rows", "limits.max_reject_fraction=0.9", output="numbered.cat")
    table, pixels = rows_of(tmp_path / "numbered.cat")
    assert table["file"].to_pylist()[3:5] == ["g03.png", "more/g03.png"]
    assert np.array_equal(pixels[4], SHOWN[30])
    assert "JPEG and PNG hold no flux" in repack(folder, "--unit", "nJy", output="x", code=2)


def test_names_that_are_no_text_are_refused(repack, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / os.fsdecode(b"caf\xe9.png")).write_bytes(file_of(SHOWN[0]))
    assert "file names are no text" in repack(tmp_path / "images", code=3)


def test_fits_images_of_a_folder_are_in_the_unit_that_is_said(repack, tmp_path):
    from astropy.io import fits

    (tmp_path / "stamps").mkdir()
    fits.writeto(tmp_path / "stamps" / "a.fits", PLANES[0])
    flags = ("--bands", "g,r,z", "--unit", "counts", "--zeropoint", "27")
    repack(tmp_path / "stamps", *flags)
    assert np.array_equal(rows_of(tmp_path / "out.cat")[1], CHANNELS_LAST[:1])
    image = open_catalog(str(tmp_path / "out.cat")).image
    assert (image.unit, image.zeropoint) == ("counts", 27.0)
    fits.writeto(tmp_path / "stamps" / "a.fits", PLANES[0], fits.Header({"BUNIT": "nJy"}), overwrite=True)
    assert "counts as given 27, BUNIT nJy 31.4" in repack(tmp_path / "stamps", *flags, output="x", code=3)
    repack(tmp_path / "stamps", "--bands", "g,r,z", output="njy.cat")
    assert open_catalog(str(tmp_path / "njy.cat")).image.zeropoint == 31.4


def test_it_resumes_where_it_was_left_and_does_nothing_twice(repack, tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", nested(SHOWN, pa.uint8()), **sky(ROWS))
    real, reached = unit.step, []

    def interrupted(name, subject=""):
        reached.append(subject)
        if len(reached) == 3:
            raise KeyboardInterrupt
        real(name, subject)

    monkeypatch.setattr(unit, "step", interrupted)
    words = ["repack", str(path), "--output", str(tmp_path / "out.cat"), UNIT_MB, "cluster=none"]
    assert main([*words, "cluster.actors=1"]) == 130
    commits = tmp_path / "out.cat" / "_work" / "_commits"
    before = {p.name: p.read_bytes() for p in commits.glob("shard-*")}
    assert len(before) == 2
    with pytest.raises(Exception, match="unfinished"):
        open_catalog(str(tmp_path / "out.cat"))

    reached.clear()
    monkeypatch.setattr(unit, "step", lambda name, subject="": reached.append(subject))
    repack(path, UNIT_MB)
    assert not set(reached) & {name.removesuffix(".json") for name in before}
    assert np.array_equal(rows_of(tmp_path / "out.cat")[1], SHOWN)


def test_the_same_command_again_says_so_and_another_is_refused(repack, tmp_path):
    path = write(tmp_path / "a.parquet", nested(SHOWN, pa.uint8()))
    assert not repack(path)["nothing_to_do"]
    assert repack(path)["nothing_to_do"]
    assert "wanted.size: was None, is 6" in repack(path, "--size", "6", code=2)
    write(tmp_path / "a.parquet", nested(SHOWN[::-1].copy(), pa.uint8()))
    assert "a file was written again" in repack(path, code=2)
    (tmp_path / "other.cat").mkdir()
    (tmp_path / "other.cat" / "thesis.tex").write_text("")
    assert "holds something else" in repack(path, output="other.cat", code=2)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--bands", "g,r"), 3, "names 2 bands"),
        (("--size", "6", "--bands", "g,r,z", "--unit", "nJy"), 2, "--size is for display images"),
        (("--dtype", "uint8", "--bands", "g,r,z", "--unit", "nJy"), 2, "by a stretch only"),
        (("--unit", "counts"), 2, "needs --zeropoint"),
        (("--id", "objid"), 3, "no column 'objid'"),
        ((), 3, "add --bands"),
        (("--bandz", "g"), 2, "Did you mean '--bands'"),
        (("repack.unitmb=1",), 2, "unit_mb"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(repack, tmp_path, flags, code, words):
    path = write(tmp_path / "a.parquet", nested(PLANES, pa.float32()))
    assert words in repack(path, *flags, code=code)
    assert not (tmp_path / "out.cat").exists()


def test_a_run_on_lists_gives_what_a_run_on_the_fast_layout_gives(tmp_path):
    from drive import assert_same_tables, run_here, tables_of

    pixels = toy_pixels(40)
    bundle = toy_bundle(tmp_path / "toy")
    fast = toy_catalog(tmp_path / "fast.cat", pixels=pixels, ids=list(range(40)))
    lists = write(tmp_path / "lists.parquet", nested(pixels, pa.uint8()), group_rows=10)
    for catalog, run in ((fast, "fast.run"), (lists, "lists.run")):
        run_here(str(catalog), str(tmp_path / run), bundle)
    assert_same_tables(tables_of(tmp_path / "lists.run"), tables_of(tmp_path / "fast.run"))
