"""What opens as a catalog, and what is refused with which words."""

import os
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from surveyproc.catalog import CatalogWriter, catalog_files, open_catalog, read_batches
from surveyproc.catalog.pixels import image_field, pixels_to_array
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError

SPEC = ImageSpec("raw", (4, 5, 3), "uint8")


def cutouts(rows, spec=SPEC, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (rows, *spec.shape)).astype(spec.dtype)


def table(rows=6, spec=SPEC, **columns):
    columns = {"object_id": pa.array(range(rows), pa.int64()), **columns}
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    images = pixels_to_array(cutouts(rows, spec), spec)
    return pa.table([*columns.values(), images], schema=pa.schema([*fields, image_field(spec)]))


@pytest.fixture
def folder(tmp_path):
    pq.write_table(table(), tmp_path / "a.parquet")
    return tmp_path


def write_then(writer, happens):
    writer.write(table())
    happens()


def interrupt():
    raise KeyboardInterrupt


def refused(uri, *words):
    with pytest.raises(InputError) as caught:
        open_catalog(str(uri))
    message = str(caught.value)
    assert caught.value.where
    assert caught.value.fix
    for word in words:
        assert word in message, message
    return message


def test_a_folder_of_parquet_files_opens_sorted_and_counts_rows(folder):
    pq.write_table(table(4), folder / "b.parquet", row_group_size=3)
    pq.write_table(table(1), folder / "_metadata.parquet")
    pq.write_table(table(1), folder / ".hidden.parquet")
    catalog = open_catalog(str(folder))
    assert [f.path for f in catalog.files] == ["a.parquet", "b.parquet"]
    assert catalog.rows == 10
    assert [g.rows for g in catalog.files[1].row_groups] == [3, 1]
    assert catalog.image == SPEC
    assert catalog.id_type == pa.int64()
    assert not catalog.has_positions
    assert catalog.bytes == sum((folder / n).stat().st_size for n in ("a.parquet", "b.parquet"))
    for words in ("10 rows in 2 files", "4 x 5 px", "object_id, image"):
        assert words in repr(catalog)


def test_one_file_opens_as_a_catalog_and_file_urls_work(folder):
    path = folder / "a.parquet"
    for uri in (str(path), f"file://{path}"):
        assert [f.path for f in open_catalog(uri).files] == ["a.parquet"]
    assert catalog_files(str(folder)) == [str(path)]


def test_hats_layout_and_collections_are_followed_to_their_dataset(tmp_path):
    leaf = tmp_path / "primary" / "dataset" / "Norder=0" / "Dir=0"
    leaf.mkdir(parents=True)
    position = pa.array([10.0] * 6)
    pq.write_table(table(ra=position, dec=position), leaf / "Npix=4.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "primary" / "data_thumbnail.parquet")
    (tmp_path / "collection.properties").write_text("obs_collection=x\nhats_primary_table_url=primary\n")
    for uri, path in ((tmp_path / "primary", ""), (tmp_path, "primary/")):
        catalog = open_catalog(str(uri))
        assert [f.path for f in catalog.files] == [f"{path}dataset/Norder=0/Dir=0/Npix=4.parquet"]
        assert catalog.has_positions


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    refused(tmp_path / "nothing", "no such catalog", "nothing")
    refused(tmp_path, "empty", "no Parquet file")
    (tmp_path / "1.jpg").write_bytes(b"x")
    refused(tmp_path, "surveyproc ingest --images")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tile.fits", "surveyproc ingest --tiles"),
        ("1.jpg", "folder of the images"),
        ("t.csv", "--images DIR --table"),
        ("a.zip", "unpack"),
    ],
)
def test_a_file_of_another_kind_is_told_what_it_is_good_for(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path / name, "no file of cutouts", words)


def test_leaves_that_are_not_where_hats_has_them_are_pointed_at(folder):
    (folder / "parquet").mkdir()
    (folder / "a.parquet").rename(folder / "parquet" / "1_44.parquet")
    (folder / "dataset").mkdir()
    (folder / "dataset" / "_metadata").write_bytes(b"")
    refused(folder, "no Parquet file", f"give their folder: {folder / 'parquet'}")


def test_a_zero_byte_file_and_a_file_that_is_not_parquet_are_named(folder):
    (folder / "b.parquet").write_bytes(b"")
    refused(folder, "zero bytes", "b.parquet")
    (folder / "b.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-50])
    refused(folder, "not a readable Parquet file", "b.parquet")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (ImageSpec("raw", (4, 4, 3), "uint8"), "shape (4, 4, 3) where the others have (4, 5, 3)"),
        (ImageSpec("raw", (4, 5, 3), "float32"), "dtype float32"),
        (ImageSpec("raw", (4, 5, 3), "uint8", bands=("i", "r", "g")), "bands ('i', 'r', 'g')"),
    ],
)
def test_files_with_other_pixels_are_refused_as_mixed_shapes(folder, other, words):
    pq.write_table(table(spec=other), folder / "b.parquet")
    refused(folder, "mixed shapes", words, "b.parquet", "a.parquet")


def test_files_with_other_columns_are_refused(folder):
    pq.write_table(table(redshift=pa.array([0.1] * 6)), folder / "b.parquet")
    refused(folder, "different columns: redshift", "b.parquet")


def test_missing_columns_are_refused_with_the_nearest_name(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(table().rename_columns(["objectid", "image"]), path)
    refused(path, "no column 'object_id'", "Did you mean 'objectid'?")
    pq.write_table(table().rename_columns(["object_id", "img"]), path)
    refused(path, "no column 'image'")


def test_an_image_column_without_metadata_or_with_wrong_metadata_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    plain = table()
    pq.write_table(plain.cast(pa.schema([pa.field(f.name, f.type) for f in plain.schema])), path)
    refused(path, "lacks the 'surveyproc.image' metadata")
    broken = image_field(SPEC).with_metadata({"surveyproc.image": "{"})
    pq.write_table(plain.cast(pa.schema([plain.schema.field(0), broken])), path)
    refused(path, "surveyproc.image metadata cannot be read")
    wide = image_field(ImageSpec("raw", (8, 8, 3), "uint8")).metadata
    pq.write_table(
        plain.cast(pa.schema([plain.schema.field(0), image_field(SPEC).with_metadata(wide)])), path
    )
    refused(path, "60 bytes per row", "(8, 8, 3) uint8 needs 192 bytes")


def test_pixels_as_lists_and_ids_as_floats_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    lists = pa.array([[1, 2]], pa.list_(pa.uint8()))
    field = pa.field("image", lists.type, metadata=image_field(SPEC).metadata)
    pq.write_table(
        pa.table([pa.array([1]), lists], schema=pa.schema([("object_id", pa.int64()), field])), path
    )
    refused(path, "list<", "binary columns only")
    pq.write_table(table(2, object_id=pa.array([1.0, 2.0])), path)
    refused(path, "'object_id' is double")


def test_a_catalog_without_rows_is_refused(tmp_path):
    pq.write_table(table().slice(0, 0), tmp_path / "a.parquet")
    refused(tmp_path, "no rows")


def test_catalogs_open_and_stream_from_other_filesystems(folder):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/cats/one/a.parquet", (folder / "a.parquet").read_bytes())
    catalog = open_catalog("memory://cats/one")
    assert catalog.rows == 6
    assert catalog_files("memory://cats/one") == ["memory:///cats/one/a.parquet"]
    (file,) = catalog.files
    pinned = (file.size, file.version)

    def ids():
        batches = read_batches(catalog.uri, file.path, [0], 4, ["object_id", "image"], expect=pinned)
        return [i for b in batches for i in b["object_id"].to_pylist()]

    assert ids() == list(range(6))
    memory.pipe_file("/cats/one/a.parquet", (folder / "a.parquet").read_bytes())
    with pytest.raises(InputError, match="changed since"):
        ids()


@pytest.mark.parametrize(
    "name", ["small_sky_order1_source_collection", "small_sky_npix_as_dir", "small_sky_order3_source"]
)
def test_real_hats_catalogs_are_listed_as_lsdb_does_and_refused_for_lack_of_pixels(shared_data, name):
    import hats

    path = shared_data / "hats" / "lsdb" / name
    catalog = hats.read_hats(path)
    pixels = getattr(catalog, "main_catalog", catalog).get_healpix_pixels()
    found = sorted(re.search(r"Norder=(\d+)/.*Npix=(\d+)", f).groups() for f in catalog_files(str(path)))
    assert found == sorted((str(p.order), str(p.pixel)) for p in pixels)
    with pytest.raises(InputError, match="no cutout catalog"):
        open_catalog(str(path))


def test_the_writer_refuses_an_output_that_holds_something(folder, tmp_path):
    columns = pa.schema([("object_id", pa.int64())])

    def refusal(output):
        with pytest.raises(InputError) as caught:
            CatalogWriter(output, SPEC, columns)
        return str(caught.value)

    assert "the output folder holds something else" in refusal(folder)
    assert (folder / "a.parquet").exists()
    cat = tmp_path / "new" / "x.cat"
    with CatalogWriter(cat, SPEC, columns) as writer:
        writer.write_pixels(cutouts(2), {"object_id": np.arange(2)})
    before = sorted(os.listdir(cat.parent))
    assert before == ["x.cat"]
    assert "a catalog is there already" in refusal(cat)
    assert sorted(os.listdir(cat.parent)) == before
    assert "the output is a file" in refusal(folder / "a.parquet")
    assert "cannot be written" in refusal("/proc/none/x.cat")


def test_an_interrupted_write_leaves_nothing_and_touches_nothing_of_others(tmp_path):
    other = tmp_path / ".x.cat.partial-00000000"
    other.mkdir()
    (other / "theirs").write_text("kept")
    with (
        pytest.raises(KeyboardInterrupt),
        CatalogWriter(tmp_path / "x.cat", SPEC, table().schema.remove(1)) as writer,
    ):
        write_then(writer, interrupt)
    assert os.listdir(tmp_path) == [other.name]
    assert (other / "theirs").read_text() == "kept"


def test_an_output_that_appears_meanwhile_is_not_overwritten(tmp_path):
    output = tmp_path / "x.cat"
    with (
        pytest.raises(InputError, match="holds something else"),
        CatalogWriter(output, SPEC, table().schema.remove(1)) as writer,
    ):
        write_then(writer, lambda: output.mkdir() or (output / "theirs").write_text("kept"))
    assert os.listdir(tmp_path) == ["x.cat"]
    assert os.listdir(output) == ["theirs"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    import errno

    from surveyproc.errors import ResourceError

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        pytest.raises(ResourceError, match="no space left"),
        CatalogWriter(tmp_path / "x.cat", SPEC, table().schema.remove(1)) as writer,
    ):
        write_then(writer, lambda: monkeypatch.setattr(os, "fsync", full))
    assert os.listdir(tmp_path) == []


def test_a_copied_catalog_opens_elsewhere(tmp_path):
    with CatalogWriter(tmp_path / "x.cat", SPEC, table().schema.remove(1)) as writer:
        writer.write(table())
    shutil.move(tmp_path / "x.cat", tmp_path / "y.cat")
    assert open_catalog(str(tmp_path / "y.cat")).rows == 6
