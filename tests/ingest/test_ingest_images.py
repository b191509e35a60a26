"""A folder of images and a table: every row and every image is accounted for."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from surveyproc.catalog import open_catalog, read_batches
from surveyproc.errors import InputError, UsageError
from surveyproc.images.decode import decode_batch
from surveyproc.ingest import ingest_images


def pixels(seed, shape=(16, 16, 3)):
    return np.random.default_rng(seed).integers(1, 255, shape).astype(np.uint8)


def encode(values, kind):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return stream.getvalue()


class Folder:
    """Images and a table that a test spoils."""

    def __init__(self, root):
        self.root, self.images, self.table = root, root / "images", root / "t.csv"
        self.images.mkdir()
        self.rows = []

    def add(self, name, data, row=True):
        (self.images / name).parent.mkdir(exist_ok=True)
        (self.images / name).write_bytes(data)
        if row:
            self.rows.append(os.path.basename(name).split(".")[0])

    def good(self, *ids, kind="png", **how):
        for i in ids:
            self.add(
                f"{i}.{kind}", encode(pixels(abs(hash(i)) % 1000), {"png": "PNG"}.get(kind, "JPEG")), **how
            )

    def ingest(self, output="x.cat", **options):
        self.table.write_text("\n".join(["id", *map(str, self.rows)]) + "\n")
        report = ingest_images(self.images, self.table, "id", self.root / output, **options)
        assert report.rows_in + report.images_without_row == report.rows_out + sum(report.rejects.values())
        return report

    def rejects(self, output="x.cat"):
        rows = pq.read_table(self.root / output / "rejects.parquet").to_pylist()
        assert {r["stage"] for r in rows} <= {"ingest"}
        return {(r["object_id"], r["reason"]): r["detail"] for r in rows}

    def refused(self, error, *words, **options):
        before = sorted(os.listdir(self.root))
        with pytest.raises(error) as caught:
            self.ingest(**options)
        for word in words:
            assert word in str(caught.value), str(caught.value)
        assert caught.value.fix
        assert sorted(os.listdir(self.root)) in (before, sorted({*before, "t.csv"}))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def read(path):
    catalog = open_catalog(str(path))
    batches = [
        b
        for f in catalog.files
        for b in read_batches(catalog.uri, f.path, range(len(f.row_groups)), 100, catalog.schema.names)
    ]
    return catalog, pa.Table.from_batches(batches)


def decoded(path):
    catalog, table = read(path)
    found, failures = decode_batch(table["image"].combine_chunks(), catalog.image)
    assert not failures
    return table["object_id"].to_pylist(), found


def test_encoded_bytes_are_kept_to_the_byte_in_table_order(folder):
    folder.good("30", "-1", str(2**53 + 1), kind="jpg")
    folder.good("7", kind="jpeg")
    folder.add("below/8.JPG", encode(pixels(8), "JPEG"))
    report = folder.ingest()
    catalog, table = read(folder.root / "x.cat")
    assert table["object_id"].to_pylist() == [30, -1, 2**53 + 1, 7, 8]
    files = ["30.jpg", "-1.jpg", f"{2**53 + 1}.jpg", "7.jpeg", "below/8.JPG"]
    assert table["image"].to_pylist() == [(folder.images / f).read_bytes() for f in files]
    assert (catalog.image.encoding, catalog.image.shape, catalog.image.bands) == (
        "jpeg",
        (16, 16, 3),
        ("R", "G", "B"),
    )
    assert catalog.image.stretch == "display"
    assert report.rejects == {}
    about = json.loads((folder.root / "x.cat" / "catalog.json").read_text())
    assert (about["rows_in"], about["rows_out"], about["source"]["id"]) == (5, 5, "id")


def test_text_ids_match_their_images(folder):
    folder.good("J1+02", "007")
    folder.ingest()
    assert read(folder.root / "x.cat")[1]["object_id"].to_pylist() == ["J1+02", "007"]


def test_decode_stores_the_pixels_of_jpeg_and_png_together(folder):
    folder.good("1", kind="jpg")
    folder.good("2")
    folder.refused(InputError, "mixes kinds of images: 1 jpeg, 1 png", "--decode")
    folder.ingest(decode=True)
    ids, found = decoded(folder.root / "x.cat")
    assert ids == [1, 2]
    for i, name in enumerate(("1.jpg", "2.png")):
        assert np.array_equal(found[i], np.asarray(Image.open(folder.images / name)))


def test_decode_with_size_makes_one_size_of_square_images_and_says_how(folder):
    folder.good("1")
    folder.add(
        "2.png", encode(np.tile(pixels(2, (1, 1, 3)), (64, 64, 1)) // 2 + pixels(1, (64, 64, 3)) // 9, "PNG")
    )
    folder.add("3.png", encode(pixels(3, (16, 20, 3)), "PNG"))
    folder.ingest(decode=True, size=8)
    ids, found = decoded(folder.root / "x.cat")
    assert ids == [1, 2]
    assert found.shape == (2, 8, 8, 3)
    # A filter that averages keeps the mean of the image, one that skips pixels does not.
    original = np.asarray(Image.open(folder.images / "2.png")).astype(float)
    assert np.abs(found[1].mean(axis=(0, 1)) - original.mean(axis=(0, 1))).max() < 1
    assert found[1].std(axis=(0, 1)).max() < original.std(axis=(0, 1)).min() / 2
    assert folder.rejects()[("3", "wrong_shape")] == "image is 16 x 20 px; --size 8 needs square images"
    assert "LANCZOS" in json.loads((folder.root / "x.cat" / "catalog.json").read_text())["source"]["resize"]


def test_every_bad_row_and_image_is_a_reject_and_the_good_ones_survive(folder):
    good = encode(pixels(0), "JPEG")
    folder.good("1", "2", kind="jpg")
    folder.add("3.jpg", good[: len(good) * 2 // 3])
    folder.add("4.jpg", b"")
    folder.add("5.jpg", b"<html>404</html>")
    folder.add("6.jpg", encode(pixels(6)[:, :, 0], "JPEG"))
    folder.add("7.jpg", encode(pixels(7, (16, 12, 3)), "JPEG"))
    folder.add("8.jpg", encode(np.full((16, 16, 3), 9, np.uint8), "JPEG"))
    folder.add("9.jpg", encode(pixels(9), "PNG"))
    folder.add("10.jpg", good)
    folder.add("other/10.jpg", good, row=False)
    folder.rows += ["11", '""', "2"]
    folder.add("99.jpg", good, row=False)
    folder.add("notes.txt", b"hello", row=False)
    report = folder.ingest()
    assert decoded(folder.root / "x.cat")[0] == [1, 2]
    found = folder.rejects()
    assert set(found) == {
        ("3", "unreadable_image"),
        ("4", "unreadable_image"),
        ("5", "unreadable_image"),
        ("6", "wrong_channels"),
        ("7", "wrong_shape"),
        ("8", "constant_pixels"),
        ("9", "unreadable_image"),
        ("10", "ambiguous_image"),
        ("11", "missing_image"),
        (None, "missing_id"),
        ("2", "duplicate_id"),
        ("99", "image_without_row"),
    }
    assert "truncated" in found[("3", "unreadable_image")].lower()
    assert found[("6", "wrong_channels")] == "image has 1 channels, the catalog 3"
    assert "image is 16 x 12 px, the catalog 16 x 16; --decode --size N" in found[("7", "wrong_shape")]
    assert "row 13 of the table repeats the id of row 2, which stays" in found[("2", "duplicate_id")]
    assert "row 12 of the table has no id" in found[(None, "missing_id")]
    assert "99.jpg" in found[("99", "image_without_row")]
    assert (report.rows_in, report.images_without_row, report.rows_out, report.other_files) == (13, 1, 2, 1)


def test_a_malformed_csv_row_is_a_reject(folder):
    folder.good("1", "2")
    folder.rows[1] = "2,extra"
    report = folder.ingest()
    assert report.rejects == {"malformed_row": 1, "image_without_row": 1}
    assert "2,extra" in folder.rejects()[(None, "malformed_row")]


def test_the_shape_of_most_images_wins_over_that_of_the_first(folder):
    folder.add("1.png", encode(pixels(1, (5, 5, 3)), "PNG"))
    folder.good("2", "3")
    assert folder.ingest().image.shape == (16, 16, 3)
    assert ("1", "wrong_shape") in folder.rejects()


def test_fits_images_become_float32_flux_in_native_order(folder):
    cube = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(">f8")
    header = fits.Header({"BUNIT": "nanomaggy"})
    stream = io.BytesIO()
    fits.PrimaryHDU(cube, header).writeto(stream)
    folder.add("1.fits", stream.getvalue())
    folder.add("2.fits.gz", gzip.compress(stream.getvalue()))
    integers = np.arange(60, dtype=np.uint16).reshape(2, 6, 5) + 40000
    stream3 = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(integers, header)]).writeto(stream3)
    folder.add("3.fits", stream3.getvalue())
    folder.add("4.fits", stream.getvalue()[:3000])
    nan = io.BytesIO()
    fits.PrimaryHDU(cube * np.nan, header).writeto(nan)
    folder.add("5.fits", nan.getvalue())
    folder.add("6.fits", b"<html>")
    folder.refused(InputError, "2 channels, which have no names", "--bands g,r")
    folder.refused(InputError, "do not fit --bands g,r,i", bands=["g", "r", "i"])
    folder.refused(UsageError, "--size is for JPEG and PNG", bands=["g", "r"], decode=True, size=4)
    report = folder.ingest(bands=["g", "r"], unit="nanomaggy")
    ids, found = decoded(folder.root / "x.cat")
    assert ids == [1, 2, 3]
    expected = cube.transpose(1, 2, 0).astype(np.float32)
    assert np.array_equal(found[0], expected)
    assert np.array_equal(found[1], expected)
    assert np.array_equal(found[2], integers.transpose(1, 2, 0))
    spec = report.image
    assert (spec.encoding, spec.dtype, spec.stretch, spec.unit, spec.bands) == (
        "raw",
        "float32",
        "none",
        "nanomaggy",
        ("g", "r"),
    )
    assert set(folder.rejects()) == {
        ("4", "unreadable_image"),
        ("5", "nan_pixels"),
        ("6", "unreadable_image"),
    }


def fits_of(pixels, **cards):
    stream = io.BytesIO()
    fits.PrimaryHDU(pixels, fits.Header(cards)).writeto(stream)
    return stream.getvalue()


def test_the_unit_of_fits_images_is_read_or_given_and_never_guessed(folder):
    cube = np.random.default_rng(0).normal(5, 1, size=(2, 4, 4)).astype(np.float32)
    folder.add("1.fits", fits_of(cube, BUNIT="nanomaggy"))
    folder.add("2.fits", fits_of(cube, MAGZERO=25.0))
    report = folder.ingest("a.cat", bands=["g", "r"])
    assert (report.image.unit, report.image.zeropoint) == ("nJy", 31.4)
    assert report.image.orientation == "bottom-up"
    truth = cube.transpose(1, 2, 0)
    found = decoded(folder.root / "a.cat")[1]
    assert found[0] == pytest.approx(truth * 10 ** ((31.4 - 22.5) / 2.5), rel=1e-6)
    assert found[1] == pytest.approx(truth * 10 ** ((31.4 - 25.0) / 2.5), rel=1e-6)
    folder.ingest("b.cat", bands=["g", "r"], unit="uJy", zeropoints={"g": 20.0, "r": 30.0})
    factors = [10 ** ((23.9 - 20.0) / 2.5), 10 ** ((23.9 - 30.0) / 2.5)]
    assert decoded(folder.root / "b.cat")[1][0] == pytest.approx(truth * factors, rel=1e-6)
    folder.add("3.fits", fits_of(cube, BUNIT="nJy", MAGZERO=25.0))
    folder.refused(InputError, "contradicts itself", "BUNIT nJy 31.4", "3.fits", bands=["g", "r"])
    folder.add("3.fits", fits_of(cube, BUNIT="counts"))
    folder.refused(InputError, "unit of the images is unknown", "--unit counts", bands=["g", "r"])
    kept = folder.ingest("c.cat", bands=["g", "r"], unit="counts")
    assert (kept.image.unit, kept.image.zeropoint) == ("counts", None)
    assert np.array_equal(decoded(folder.root / "c.cat")[1][2], truth)
    both = {"bands": ["g", "r"], "unit": "counts", "zeropoints": {"g": 25.0}}
    folder.refused(UsageError, "leave one of them out", **both)
    folder.add("3.fits", fits_of(cube, BUNIT="nJy", BANDS="rg"))
    folder.refused(InputError, "the header names the channels r, g", "--bands r,g", bands=["g", "r"])
    folder.refused(
        UsageError, "unknown flux unit 'nanomagy'", "Did you mean", bands=["g", "r"], unit="nanomagy"
    )


def test_greyscale_folders_need_a_band_name(folder):
    folder.add("1.png", encode(pixels(1)[:, :, 0], "PNG"))
    folder.refused(InputError, "1 channel, which have no names")
    assert folder.ingest(bands=["r"]).image.shape == (16, 16, 1)
    assert decoded(folder.root / "x.cat")[1].shape == (1, 16, 16, 1)


def test_positions_and_carried_columns_come_along_and_bad_positions_are_null(folder):
    folder.good("1", "2", "3")
    folder.table.write_text("id,RA,DEC,z,name\n1,10,20,0.5,a\n2,10,95,,b\n3,,1,0.1,\n")
    report = ingest_images(
        folder.images,
        folder.table,
        "id",
        folder.root / "x.cat",
        ra_column="RA",
        dec_column="DEC",
        carry=["name", "z"],
    )
    assert report.positions_missing == 2
    catalog, table = read(folder.root / "x.cat")
    assert catalog.has_positions
    assert catalog.schema.names == ["object_id", "ra", "dec", "name", "z", "image"]
    assert table.drop_columns(["image", "_healpix_29"]).to_pylist() == [
        {"object_id": 1, "ra": 10.0, "dec": 20.0, "name": "a", "z": 0.5},
        {"object_id": 2, "ra": None, "dec": None, "name": "b", "z": None},
        {"object_id": 3, "ra": None, "dec": None, "name": "", "z": 0.1},
    ]
    assert [v is None for v in table["_healpix_29"].to_pylist()] == [False, True, True]


def test_folders_without_a_usable_image_are_refused_and_leave_nothing(folder):
    folder.rows = ["1"]
    folder.refused(InputError, "no image in the folder")
    folder.add("notes.txt", b"x", row=False)
    folder.refused(InputError, "no image in the folder (1 other files)")
    folder.good("5", row=False)
    folder.refused(InputError, "no row of the table has an image", "ids such as 1; images such as 5")
    folder.rows = ["5"]
    folder.add("5.png", b"broken", row=False)
    folder.refused(InputError, "none of the 1 images can be read", "5.png")
    folder.add("5.png", encode(np.zeros((4, 4, 3), np.uint8), "PNG"), row=False)
    folder.refused(InputError, "no image could be used: 1 constant_pixels", "5: every pixel is 0/0/0")


def test_size_without_decode_and_impossible_sizes_are_usage_errors(folder):
    folder.good("1")
    folder.refused(UsageError, "--size needs --decode", size=8)
    folder.refused(UsageError, "--size 0", decode=True, size=0)


def test_an_output_that_holds_something_is_refused_before_any_work(folder):
    folder.good("1")
    (folder.root / "x.cat").mkdir()
    (folder.root / "x.cat" / "mine").write_text("kept")
    folder.refused(InputError, "holds something else")
    assert os.listdir(folder.root / "x.cat") == ["mine"]


def test_an_interrupted_ingest_leaves_nothing_that_opens(folder):
    folder.good(*map(str, range(200)))

    class Interrupts:
        rejects = 0

        def set(self, done, rows):
            assert len(os.listdir(folder.root)) == 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.ingest(progress=Interrupts())
    assert sorted(os.listdir(folder.root)) == ["images", "t.csv"]
    assert folder.ingest().rows_out == 200


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bad=st.sets(st.integers(0, 150)), workers=st.integers(2, 5))
def test_the_catalog_does_not_depend_on_the_number_of_workers(tmp_path_factory, bad, workers):
    folder = Folder(tmp_path_factory.mktemp("w"))
    folder.good(*map(str, range(151)))
    for i in bad:
        (folder.images / f"{i}.png").write_bytes(b"broken")
    if len(bad) == 151:
        return
    folder.ingest("a.cat", workers=1)
    folder.ingest("b.cat", workers=workers)
    for name in ("dataset/part-00000.parquet", "rejects.parquet"):
        assert (folder.root / "a.cat" / name).read_bytes() == (folder.root / "b.cat" / name).read_bytes()
    assert read(folder.root / "a.cat")[1]["object_id"].to_pylist() == [i for i in range(151) if i not in bad]


KILLED = """
import os, signal, sys
from surveyproc.ingest import ingest_images
class Kills:
    rejects = 0
    def set(self, done, rows):
        os.kill(os.getpid(), signal.SIGKILL)
ingest_images(sys.argv[1], sys.argv[2], "id", sys.argv[3], progress=Kills())
"""


def test_a_killed_ingest_leaves_no_catalog_and_the_next_one_succeeds(folder):
    folder.good(*map(str, range(100)))
    folder.table.write_text("\n".join(["id", *folder.rows]))
    output = folder.root / "x.cat"
    killed = subprocess.run([sys.executable, "-c", KILLED, folder.images, folder.table, output], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = [name for name in os.listdir(folder.root) if ".partial-" in name]
    assert len(left) == 1
    with pytest.raises(InputError, match="no such catalog"):
        open_catalog(str(output))
    assert folder.ingest().rows_out == 100
    assert left[0] in os.listdir(folder.root)
