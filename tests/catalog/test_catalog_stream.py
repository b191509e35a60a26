"""Writer and reader: values, types, batch sizes and files that change."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surveyproc.catalog import CatalogWriter, open_catalog, read_batches
from surveyproc.catalog.pixels import image_field
from surveyproc.catalog.reading import rechunk
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError
from surveyproc.images.decode import decode_batch

IDS = pa.schema([("object_id", pa.int64())])


def write(path, spec, pixels, ids=None, columns=IDS, step=7, **settings):
    ids = np.arange(len(pixels)) if ids is None else ids
    with CatalogWriter(path, spec, columns, **settings) as writer:
        for start in range(0, len(pixels), step):
            rows = slice(start, start + step)
            writer.write_pixels(pixels[rows], {"object_id": ids[rows]})
    return open_catalog(str(path))


def read_all(catalog, batch_rows, columns=("object_id", "image")):
    for file in catalog.files:
        groups = range(len(file.row_groups))
        expect = (file.size, file.version)
        yield from read_batches(catalog.uri, file.path, groups, batch_rows, list(columns), expect=expect)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_pixels_of_every_dtype_and_layout_survive_writing_and_reading(tmp_path_factory, data):
    dtype = data.draw(st.sampled_from(["uint8", "float16", "float32"]))
    layout = data.draw(st.sampled_from(["HWC", "CHW"]))
    shape = tuple(data.draw(st.integers(1, 6)) for _ in range(3))
    rows = data.draw(st.integers(1, 40))
    spec = ImageSpec(
        "raw", shape, dtype, layout, tuple(f"b{i}" for i in range(shape[2])), "nJy", 31.4, "none"
    )
    bits = np.random.default_rng(rows).integers(
        0, 256, (rows, *shape, np.dtype(dtype).itemsize), dtype=np.uint8
    )
    pixels = bits.view(dtype)[..., 0]
    group = data.draw(st.integers(1, 4000))
    catalog = write(
        tmp_path_factory.mktemp("c") / "x.cat", spec, pixels, row_group_bytes=group, file_bytes=3000
    )
    assert catalog.image == spec
    assert max(g.rows for f in catalog.files for g in f.row_groups) <= max(1, group // spec.nbytes)
    batches = list(read_all(catalog, data.draw(st.integers(1, 50))))
    decoded = [decode_batch(b.column("image"), catalog.image) for b in batches]
    found = np.concatenate([d[0] for d in decoded])
    assert not any(d[1] for d in decoded)
    assert found.dtype == pixels.dtype
    assert found.tobytes() == pixels.tobytes()
    assert np.concatenate([b.column("object_id") for b in batches]).tolist() == list(range(rows))


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 11))
def test_rechunk_gives_exact_batches_whatever_the_stream(sizes, rows):
    values = np.arange(sum(sizes))
    ends = np.cumsum(sizes)
    stream = (pa.record_batch({"v": values[end - size : end]}) for size, end in zip(sizes, ends))
    batches = list(rechunk(stream, rows))
    assert all(len(b) == rows for b in batches[:-1])
    assert all(0 < len(b) <= rows for b in batches)
    assert np.concatenate([values[:0], *(b.column("v") for b in batches)]).tolist() == values.tolist()


def test_rechunk_copies_nothing_when_batches_already_fit():
    batch = pa.record_batch({"v": pa.array(range(8))})
    (found,) = rechunk([batch], 8)
    assert found.column("v").buffers()[1].address == batch.column("v").buffers()[1].address


def test_batches_run_across_row_groups_from_the_first_row_asked_for(tmp_path):
    spec = ImageSpec("raw", (2, 2, 1), "uint8", bands=("g",))
    catalog = write(tmp_path / "x.cat", spec, np.zeros((23, 2, 2, 1), np.uint8), row_group_bytes=20)
    (file,) = catalog.files
    assert [g.rows for g in file.row_groups] == [5, 5, 5, 5, 3]
    batches = list(read_batches(catalog.uri, file.path, range(1, 5), 4, ["object_id", "image"]))
    assert [len(b) for b in batches] == [4, 4, 4, 4, 2]
    assert [i for b in batches for i in b.column(0).to_pylist()] == list(range(5, 23))


def test_ids_beyond_2_to_53_negative_and_text_are_exact(tmp_path):
    spec = ImageSpec("raw", (1, 1, 1), "uint8", bands=("g",))
    pixels = np.zeros((4, 1, 1, 1), np.uint8)
    exact = [-1, -(2**63), 2**53 + 1, 2**63 - 1]
    catalog = write(tmp_path / "i.cat", spec, pixels, np.array(exact))
    assert [i for b in read_all(catalog, 3) for i in b.column(0).to_pylist()] == exact
    text = ["J1", "007", "ü", "-5"]
    catalog = write(tmp_path / "s.cat", spec, pixels, text, pa.schema([("object_id", pa.string())]))
    assert catalog.id_type == pa.string()
    assert [i for b in read_all(catalog, 3) for i in b.column(0).to_pylist()] == text


def test_other_integer_and_text_types_are_read_as_int64_and_string(tmp_path):
    spec = ImageSpec("raw", (1, 1, 1), "uint8", bands=("g",))
    image = pa.array([b"a", b"b"], pa.binary(1))
    for ids, wanted in (
        (pa.array([1, 2], pa.uint32()), pa.int64()),
        (pa.array(["a", "b"], pa.large_string()), pa.string()),
        (pa.array(["a", "b"]).dictionary_encode(), pa.string()),
    ):
        path = tmp_path / "a.parquet"
        schema = pa.schema([pa.field("object_id", ids.type), image_field(spec)])
        pq.write_table(pa.table([ids, image], schema=schema), path)
        catalog = open_catalog(str(path))
        (batch,) = read_all(catalog, 5)
        assert batch.column("object_id").type == catalog.id_type == wanted
    pq.write_table(
        pa.table(
            [pa.array([1, 2**64 - 1], pa.uint64()), image],
            schema=pa.schema([pa.field("object_id", pa.uint64()), image_field(spec)]),
        ),
        path,
    )
    with pytest.raises(InputError, match="does not fit"):
        list(read_all(open_catalog(str(path)), 5))


def test_healpix_is_added_when_positions_are_read_and_null_where_unusable(tmp_path):
    spec = ImageSpec("raw", (1, 1, 1), "uint8", bands=("g",))
    columns = pa.schema([("object_id", pa.int64()), ("ra", pa.float64()), ("dec", pa.float64())])
    ra = pa.array([0.0, 0.0, None, 10.0, float("nan"), -360.0])
    dec = pa.array([0.0, 90.0, 5.0, 90.5, 0.0, 0.0])
    with CatalogWriter(tmp_path / "x.cat", spec, columns) as writer:
        writer.write_pixels(
            np.zeros((6, 1, 1, 1), np.uint8), {"object_id": np.arange(6), "ra": ra, "dec": dec}
        )
    catalog = open_catalog(str(tmp_path / "x.cat"))
    (batch,) = read_all(catalog, 10, ("object_id", "ra", "dec", "image"))
    assert batch.schema.names == ["object_id", "ra", "dec", "image", "_healpix_29"]
    pixels = batch.column("_healpix_29").to_pylist()
    # (0, 0) is the centre of base pixel 4 (Gorski et al. 2005)
    assert pixels[0] >> (2 * 29) == 4
    assert pixels[1] == 4**29 - 1  # the north pole is the last cell of base pixel 0
    assert pixels[2:5] == [None] * 3
    assert pixels[5] == pixels[0]
    (batch,) = read_all(catalog, 10, ("object_id", "ra"))
    assert batch.schema.names == ["object_id", "ra"]


def test_a_stored_healpix_column_is_not_computed_again(tmp_path):
    spec = ImageSpec("raw", (1, 1, 1), "uint8", bands=("g",))
    fields = [
        ("object_id", pa.int64()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("_healpix_29", pa.int64()),
    ]
    values = {"object_id": [1], "ra": [1.0], "dec": [2.0], "_healpix_29": [77]}
    with CatalogWriter(tmp_path / "x.cat", spec, pa.schema(fields)) as writer:
        writer.write_pixels(np.zeros((1, 1, 1, 1), np.uint8), values)
    (batch,) = read_all(open_catalog(str(tmp_path / "x.cat")), 10, ("ra", "dec"))
    assert batch.column("_healpix_29").to_pylist() == [77]


def test_an_unknown_column_is_answered_with_the_nearest(tmp_path):
    spec = ImageSpec("raw", (1, 1, 1), "uint8", bands=("g",))
    catalog = write(tmp_path / "x.cat", spec, np.zeros((1, 1, 1, 1), np.uint8))
    with pytest.raises(InputError, match="Did you mean 'image'"):
        list(read_all(catalog, 1, ["imge"]))


@pytest.fixture
def small(tmp_path):
    spec = ImageSpec("raw", (8, 8, 1), "uint8", bands=("g",))
    return write(tmp_path / "x.cat", spec, np.ones((40, 8, 8, 1), np.uint8), row_group_bytes=640)


def test_a_file_that_changed_or_vanished_is_refused(small, tmp_path):
    path = tmp_path / "x.cat" / small.files[0].path
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="changed since the run was planned") as caught:
        list(read_all(small, 10))
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(InputError, match="an input file is gone"):
        list(read_all(small, 10))


def test_a_file_that_changes_while_it_is_read_is_refused_at_the_end(small, tmp_path):
    path = tmp_path / "x.cat" / small.files[0].path
    batches = read_all(small, 10)
    next(batches)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="changed since the run was planned"):
        list(batches)


def test_a_file_cut_short_while_it_is_read_is_not_a_traceback(small, tmp_path):
    path = tmp_path / "x.cat" / small.files[0].path
    batches = read_all(small, 10)
    next(batches)
    with path.open("r+b") as stream:
        stream.truncate(700)
    with pytest.raises(InputError, match="changed since the run was planned"):
        list(batches)


def test_damaged_pages_are_an_input_error(small, tmp_path):
    path = tmp_path / "x.cat" / small.files[0].path
    damaged = bytearray(path.read_bytes())
    damaged[4:400] = b"\xff" * 396
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="cannot be read"):
        list(read_all(open_catalog(small.uri), 10))


def test_files_are_split_by_size_and_statistics_leave_the_pixels_out(tmp_path):
    spec = ImageSpec("raw", (16, 16, 1), "uint8", bands=("g",))
    pixels = np.random.default_rng(0).integers(0, 255, (200, 16, 16, 1)).astype(np.uint8)
    catalog = write(tmp_path / "x.cat", spec, pixels, row_group_bytes=2560, file_bytes=20_000)
    assert len(catalog.files) > 1
    metadata = pq.read_metadata(tmp_path / "x.cat" / catalog.files[0].path)
    ids, image = (metadata.row_group(0).column(i) for i in range(2))
    assert ids.statistics.max == 9
    assert ids.bloom_filter_offset is not None
    assert image.statistics is None
    assert not image.has_dictionary_page


@pytest.mark.parametrize(
    ("pixels", "codec"),
    [
        (np.random.default_rng(0).standard_normal((40, 32, 32, 1), np.float32), "UNCOMPRESSED"),
        (np.random.default_rng(0).normal(0, 20, (40, 32, 32, 1)).round().astype(np.float32), "ZSTD"),
        (np.zeros((40, 32, 32, 1), np.float32), "ZSTD"),
        (np.zeros((1, 32, 32, 1), np.float32), "ZSTD"),
    ],
    ids=["noise", "counts", "empty", "one row"],
)
def test_pixels_are_compressed_where_that_saves_enough(tmp_path, pixels, codec):
    catalog = write(tmp_path / "x.cat", ImageSpec("raw", (32, 32, 1), "float32", bands=("g",)), pixels)
    metadata = pq.read_metadata(tmp_path / "x.cat" / catalog.files[0].path)
    assert metadata.row_group(0).column(1).compression == codec
    (batch,) = read_all(catalog, 100)
    assert b"".join(batch.column("image").to_pylist()) == pixels.tobytes()


def test_encoded_images_keep_their_bytes_and_group_by_size(tmp_path):
    spec = ImageSpec("jpeg", (4, 4, 3), "uint8")
    images = [bytes([i]) * (10 + i) for i in range(30)]
    with CatalogWriter(tmp_path / "x.cat", spec, IDS, row_group_bytes=100) as writer:
        for start in range(0, 30, 4):
            rows = slice(start, start + 4)
            writer.write(
                pa.table({"object_id": range(30)[rows], "image": pa.array(images[rows], pa.binary())})
            )
    catalog = open_catalog(str(tmp_path / "x.cat"))
    assert [v for b in read_all(catalog, 9) for v in b.column("image").to_pylist()] == images
    assert len(catalog.files[0].row_groups) > 5
    metadata = pq.read_metadata(tmp_path / "x.cat" / catalog.files[0].path)
    assert metadata.row_group(0).column(1).compression == "UNCOMPRESSED"
