"""Other people's cutouts are read as the standard column: pixel for pixel, and what is not said is refused."""

import shlex
import sys

import foreign
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign import display_pixels, file_of, flux_planes, nested, universe, write
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from surveyproc.catalog import Given, open_catalog, read_batches
from surveyproc.catalog.adapters.numbers import lists_to_bytes
from surveyproc.errors import InputError, UsageError
from surveyproc.images.decode import decode_batch

ROWS = 40
FLUX = {"bands": ("g", "r", "z"), "unit": "nanomaggy"}


def read(catalog, columns=("image",), batch_rows=7, form=True):
    """Pixels ``(N, H, W, C)``, failures by row, and the other columns as lists."""
    pixels, failures, others, done = [], {}, {name: [] for name in columns if name != "image"}, 0
    for file in catalog.files:
        for batch in read_batches(
            catalog.uri,
            file.path,
            range(len(file.row_groups)),
            batch_rows,
            list(columns),
            expect=(file.size, file.version),
            form=catalog.form if form else None,
        ):
            found, wrong = decode_batch(batch["image"], catalog.image)
            pixels.append(found)
            failures |= {done + row: why for row, why in wrong.items()}
            done += batch.num_rows
            for name in others:
                others[name] += batch[name].to_pylist()
    return np.concatenate(pixels), failures, others


def refusal(path, given=None) -> InputError:
    with pytest.raises(InputError) as caught:
        open_catalog(str(path), given)
    assert caught.value.where
    assert caught.value.fix
    return caught.value


def command_in(error: InputError) -> list[str]:
    """Words of the `repack` command that an error proposes, without the file."""
    assert "surveyproc repack " in error.fix
    return shlex.split(error.fix.partition("surveyproc repack ")[2])


SHOWN = display_pixels(ROWS)
PLANES = flux_planes(ROWS)
CHANNELS_LAST = np.ascontiguousarray(PLANES.transpose(0, 2, 3, 1))
FIXED = pa.list_(pa.list_(pa.list_(pa.uint8(), 3), foreign.SIDE), foreign.SIDE)
UNAMBIGUOUS = {
    "nested lists": lambda: nested(SHOWN, pa.uint8()),
    "large lists": lambda: nested(SHOWN, pa.uint8()).cast(
        pa.large_list(pa.large_list(pa.large_list(pa.uint8())))
    ),
    "fixed lists": lambda: pa.array(SHOWN.tolist(), FIXED),
    "arrow tensors": lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(SHOWN),
    "png files": lambda: pa.array([file_of(image) for image in SHOWN]),
    "files of datasets": lambda: pa.array([{"bytes": file_of(image), "path": None} for image in SHOWN]),
    "dictionary of files": lambda: pa.array([file_of(image) for image in SHOWN]).dictionary_encode(),
    "shaped lists": lambda: pa.array(
        [{"data": image.reshape(-1).tolist(), "shape": list(image.shape)} for image in SHOWN],
        pa.struct([("data", pa.list_(pa.uint8())), ("shape", pa.list_(pa.int64()))]),
    ),
}


@pytest.mark.parametrize("kind", UNAMBIGUOUS)
def test_what_is_not_ambiguous_is_read_pixel_for_pixel(tmp_path, kind):
    catalog = open_catalog(str(write(tmp_path / "a.parquet", UNAMBIGUOUS[kind]())))
    assert (catalog.image.shape, catalog.image.bands) == ((12, 12, 3), ("R", "G", "B"))
    assert (catalog.image.stretch, catalog.image.unit) == ("display", None)
    pixels, failures, others = read(catalog, ("object_id", "image"))
    assert not failures
    assert np.array_equal(pixels, SHOWN)
    assert others["object_id"] == list(range(ROWS))


def test_a_reader_that_is_not_told_the_form_finds_it(tmp_path):
    catalog = open_catalog(str(write(tmp_path / "a.parquet", nested(SHOWN, pa.uint8()))))
    assert np.array_equal(read(catalog, form=False)[0], SHOWN)


FLAT = {
    "flat lists": lambda: pa.array(PLANES.reshape(ROWS, -1).tolist(), pa.list_(pa.float32())),
    "fixed lists": lambda: pa.FixedSizeListArray.from_arrays(pa.array(PLANES.reshape(-1)), 432),
    "doubles": lambda: pa.array(PLANES.astype(float).reshape(ROWS, -1).tolist()),
    "planes": lambda: nested(PLANES.reshape(ROWS, 3, -1), pa.float32()),
}


@pytest.mark.parametrize("kind", FLAT)
def test_flat_lists_are_read_when_their_shape_bands_and_unit_are_given(tmp_path, kind):
    path = write(tmp_path / "a.parquet", FLAT[kind]())
    error = refusal(path)
    assert "surveyproc repack" in error.fix
    catalog = open_catalog(str(path), Given(shape=(3, 12, 12), **FLUX))
    assert (catalog.image.layout, catalog.image.zeropoint, catalog.image.stretch) == ("CHW", 22.5, "none")
    assert np.array_equal(read(catalog)[0], CHANNELS_LAST)


def test_everything_that_is_not_said_is_named_at_once_with_the_command_that_says_it(tmp_path):
    columns = {"ObjID": pa.array(range(ROWS)), "RA": pa.array([1.0] * ROWS), "DEC": pa.array([2.0] * ROWS)}
    error = refusal(write(tmp_path / "a.parquet", nested(PLANES, pa.float32()), **columns))
    for words in ("no column 'object_id'", "name its 3 bands", "flux in which unit"):
        assert words in error.what
    words = command_in(error)
    for flags in (["--id", "ObjID"], ["--ra", "RA", "--dec", "DEC"], ["--unit", "UNIT"]):
        assert words[words.index(flags[0]) : words.index(flags[0]) + len(flags)] == flags
    given = Given(id="ObjID", ra="RA", dec="DEC", **FLUX)
    _, _, others = read(open_catalog(str(tmp_path / "a.parquet"), given), ("object_id", "ra", "dec", "image"))
    assert (others["object_id"][3], others["ra"][3], others["dec"][3]) == (3, 1.0, 2.0)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (lambda: pa.array(SHOWN.reshape(ROWS, -1).tolist(), pa.list_(pa.uint8())), "each is 432 numbers"),
        (lambda: nested(SHOWN.astype(int), pa.int64()), "uint8"),
        (lambda: nested(SHOWN[:, :, :, 0], pa.uint8()), "name its 1 band"),
        (lambda: nested(SHOWN[:, :4, :3], pa.uint8()), "which axis of 4 x 3 x 3"),
        (lambda: pa.array([SHOWN[0].tobytes()] * ROWS), "neither JPEG nor PNG"),
        (lambda: pa.array([None] * ROWS, pa.binary()), "null"),
        (lambda: pa.array([{"bytes": None, "path": "a.png"}] * ROWS), "paths only"),
        (lambda: pa.array(["a.png"] * ROWS), "holds no cutouts"),
        (lambda: pa.array([b"\xff\xd8\xff broken"] * ROWS), "none of the first images"),
        (lambda: pa.array([file_of(i[:, :, 0].astype(np.uint16)) for i in SHOWN]), "pixels of mode I;16"),
        (lambda: pa.array([file_of(i, k) for i, k in zip(SHOWN, ["png", "jpeg"] * 20)]), "JPEG, others PNG"),
    ],
)
def test_what_is_ambiguous_or_no_cutout_is_refused(tmp_path, image, words):
    assert words in refusal(write(tmp_path / "a.parquet", image())).what


def test_a_wrong_row_fails_alone_and_its_neighbours_keep_their_pixels(tmp_path):
    rows = [image.tolist() for image in SHOWN]
    rows[0] = SHOWN[0, :3].tolist()
    rows[3] = None
    rows[9] = SHOWN[9, :5].tolist()
    rows[20] = SHOWN[20].reshape(6, 24, 3).tolist()
    rows[30][0][0][0] = None
    kind = pa.list_(pa.list_(pa.list_(pa.uint8())))
    catalog = open_catalog(str(write(tmp_path / "a.parquet", pa.array(rows, kind))))
    pixels, failures, _ = read(catalog)
    assert {row: why[0] for row, why in failures.items()} == {
        0: "wrong_size",
        3: "missing_image",
        9: "wrong_size",
        20: "wrong_size",
        30: "wrong_size",
    }
    good = [row for row in range(ROWS) if row not in failures]
    assert np.array_equal(pixels[good], SHOWN[good])


def test_files_that_are_none_are_rejects_wherever_they_come(tmp_path):
    files = [b"<html>", None, *(file_of(image) for image in SHOWN[2:])]
    pixels, failures, _ = read(open_catalog(str(write(tmp_path / "a.parquet", pa.array(files)))))
    assert {row: why[0] for row, why in failures.items()} == {0: "unreadable_image", 1: "missing_image"}
    assert np.array_equal(pixels[2:], SHOWN[2:])


def test_a_missing_number_in_flux_is_nan(tmp_path):
    rows = PLANES.tolist()
    rows[1][0][2][3] = None
    kind = pa.list_(pa.list_(pa.list_(pa.float32())))
    catalog = open_catalog(str(write(tmp_path / "a.parquet", pa.array(rows, kind))), Given(**FLUX))
    pixels, failures, _ = read(catalog)
    assert not failures
    assert np.argwhere(~np.isfinite(pixels)).tolist() == [[1, 2, 3, 0]]


def test_wide_integers_become_what_is_said_and_too_large_ones_fail_alone(tmp_path):
    values = SHOWN.astype(int)
    values[5, 0, 0, 0] = 256
    path = write(tmp_path / "a.parquet", nested(values, pa.int64()))
    pixels, failures, _ = read(open_catalog(str(path), Given(dtype="uint8")))
    assert list(failures) == [5]
    assert np.array_equal(pixels[6:], SHOWN[6:])


@settings(deadline=None, max_examples=60)
@drawn(
    st.lists(st.integers(0, 5), min_size=1, max_size=3),
    st.integers(0, 4),
    st.integers(0, 3),
    st.sampled_from([pa.int8(), pa.uint16(), pa.float16(), pa.float32(), pa.float64()]),
    st.booleans(),
)
def test_lists_are_packed_as_numpy_does_it(axes, rows, start, number, large):
    values = np.random.default_rng(0).integers(0, 100, (rows + start, *axes)).astype(number.to_pandas_dtype())
    kind = number
    for _ in axes:
        kind = pa.large_list(kind) if large else pa.list_(kind)
    column = pa.array(values.tolist(), kind).slice(start)
    packed = lists_to_bytes(column, tuple(axes), np.dtype(np.float32))
    assert packed.to_pylist() == [image.astype(np.float32).tobytes() for image in values[start:]]


def ray_field(array: pa.Array, name: str, about: bytes) -> pa.Field:
    """The field that Ray's Parquet files have where Ray's types are not registered."""
    metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": about}
    return pa.field("image", array.type, metadata=metadata)


@pytest.mark.parametrize("name", ["ray.data.arrow_tensor", "ray.data.arrow_tensor_v2"])
def test_ray_tensors_are_read_by_their_storage_and_pickled_shapes_stay_shut(tmp_path, name):
    lists = pa.array(SHOWN.reshape(ROWS, -1).tolist(), pa.list_(pa.uint8()))
    for file, about in (("a.parquet", b"[12, 12, 3]"), ("b.parquet", b"\x80\x05K\x0c.")):
        fields = [pa.field("object_id", pa.int64()), ray_field(lists, name, about)]
        pq.write_table(pa.table([pa.array(range(ROWS)), lists], schema=pa.schema(fields)), tmp_path / file)
    assert np.array_equal(read(open_catalog(str(tmp_path / "a.parquet")))[0], SHOWN)
    assert "pickle" in refusal(tmp_path / "b.parquet").what
    if "ray.data" in sys.modules:
        return  # Ray has registered its types: they refuse such a shape whatever is told
    told = open_catalog(str(tmp_path / "b.parquet"), Given(shape=(12, 12, 3)))
    assert np.array_equal(read(told)[0], SHOWN)


def test_tensors_with_named_axes_need_no_layout(tmp_path):
    kind = pa.fixed_shape_tensor(pa.uint8(), (2, 3, 4), dim_names=["C", "H", "W"])
    values = np.arange(48, dtype=np.uint8).reshape(2, 2, 3, 4)
    storage = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 24)
    path = write(tmp_path / "a.parquet", pa.ExtensionArray.from_storage(kind, storage))
    catalog = open_catalog(str(path), Given(bands=("a", "b")))
    assert np.array_equal(read(catalog)[0], values.transpose(0, 2, 3, 1))


def test_slow_forms_are_said_once_with_the_command(tmp_path, capsys):
    path = write(tmp_path / "a.parquet", nested(SHOWN, pa.uint8()))
    for _ in range(2):
        open_catalog(str(path))
    told = capsys.readouterr().err
    assert told.count("slower than the fast layout") == 1
    assert f"surveyproc repack {path} --output a.cat" in told
    open_catalog(str(write(tmp_path / "b.parquet", pa.array([file_of(image) for image in SHOWN]))))
    assert capsys.readouterr().err == ""


def test_several_columns_of_cutouts_or_of_one_name_are_for_the_user_to_choose(tmp_path):
    table = pa.table(
        {
            "object_id": range(3),
            "rgb": [{"bytes": file_of(i), "path": ""} for i in SHOWN[:3]],
            "residual": [{"bytes": file_of(i), "path": ""} for i in SHOWN[3:6]],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert "rgb, residual could be" in refusal(tmp_path / "a.parquet").what
    chosen = open_catalog(str(tmp_path / "a.parquet"), Given(image="residual"))
    assert np.array_equal(read(chosen)[0], SHOWN[3:6])


def test_flags_that_contradict_each_other_or_the_file_are_refused(tmp_path):
    for wrong in (
        {"ra": "a"},
        {"layout": "WHC"},
        {"shape": (0, 2)},
        {"unit": "counts"},
        {"unit": "nJy", "zeropoint": 27.0},
        {"zeropoint": 27.0},
        {"unit": "nJy", "stretch": "display"},
        {"mask": "true"},
        {"dtype": "int16"},
        {"id": "a", "number_rows": True},
    ):
        with pytest.raises(UsageError):
            Given(**wrong)
    path = write(tmp_path / "a.parquet", nested(PLANES, pa.float32()))
    assert "300 numbers" in refusal(path, Given(shape=(10, 10, 3), **FLUX)).what
    assert "names 2 bands" in refusal(path, Given(bands=("g", "r"), unit="nJy")).what


def test_ids_in_bytes_are_read_as_text(tmp_path):
    columns = {"object_id": pa.array([f"0421p022-{n}".encode() for n in range(ROWS)])}
    catalog = open_catalog(str(write(tmp_path / "a.parquet", nested(SHOWN, pa.uint8()), **columns)))
    assert catalog.id_type == pa.string()
    assert read(catalog, ("object_id", "image"))[2]["object_id"][7] == "0421p022-7"


def test_the_multimodal_universe_is_read_by_band(tmp_path, capsys):
    path = write(tmp_path / "a.parquet", pa.array(universe(PLANES)))
    catalog = open_catalog(str(path))
    assert (catalog.image.bands, catalog.image.unit) == (("DES-G", "DES-R", "DES-Z"), None)
    assert "does not say the flux unit" in capsys.readouterr().err
    pixels, _, others = read(catalog, ("image", "pixel_scale_arcsec", "psf_fwhm_arcsec"))
    assert np.array_equal(pixels, CHANNELS_LAST)
    assert others["pixel_scale_arcsec"] == pytest.approx([0.262] * ROWS)
    assert others["psf_fwhm_arcsec"][0] == [1.0, 1.125, 1.25]
    assert "flux unit" in refusal(path, Given()).what

    given = Given(unit="counts", zeropoint=27.0, bands=("DES-Z=z", "DES-G=g"))
    chosen = open_catalog(str(path), given)
    assert (chosen.image.bands, chosen.image.zeropoint) == (("z", "g"), 27.0)
    pixels, _, others = read(chosen, ("image", "psf_fwhm_arcsec"))
    assert np.array_equal(pixels, CHANNELS_LAST[..., [2, 0]])
    assert others["psf_fwhm_arcsec"][0] == [1.25, 1.0]


@pytest.mark.parametrize("form", ["struct of lists", "list of structs"])
def test_odd_rows_of_the_universe_do_not_touch_the_others(tmp_path, form):
    rows = universe(PLANES)
    rows[0]["flux"] = [[[1.0]], [[1.0]], [[1.0]]]
    rows[2]["band"] = ["DES-Z", "DES-R", "DES-G"]
    for part in ("band", "flux", "ivar", "mask", "psf_fwhm", "scale"):
        rows[4][part] = rows[4][part][:2]
    rows[6]["flux"][1] = [[1.0, 2.0]]
    rows[8] = None
    if form == "list of structs":
        rows = [row and [dict(zip(row, values)) for values in zip(*row.values())] for row in rows]
    catalog = open_catalog(str(write(tmp_path / "a.parquet", pa.array(rows))))
    pixels, failures, others = read(catalog, ("image", "psf_fwhm_arcsec"))
    expected = CHANNELS_LAST.copy()
    expected[2] = expected[2][..., ::-1]
    expected[4, :, :, 2] = np.nan
    assert sorted(failures) == [0, 6, 8]
    good = [row for row in range(ROWS) if row not in failures]
    assert np.array_equal(pixels[good], expected[good], equal_nan=True)
    assert others["psf_fwhm_arcsec"][4] == [1.0, 1.125, None]


def test_masks_count_only_when_their_polarity_is_said(tmp_path):
    path = write(tmp_path / "a.parquet", pa.array(universe(PLANES)))
    flagged = CHANNELS_LAST > 1
    for mask, bad in (("bad", flagged), ("clean", ~flagged), (None, np.zeros_like(flagged))):
        pixels, failures, _ = read(open_catalog(str(path), Given(unit="nanomaggy", mask=mask)))
        assert not failures
        assert np.array_equal(np.isnan(pixels), bad)


def test_a_row_whose_mask_is_not_whole_fails_alone(tmp_path):
    rows = universe(PLANES)
    rows[1]["mask"] = None
    rows[2]["mask"] = rows[2]["mask"][:2]
    rows[3]["mask"][1] = [[True]]
    rows[4]["mask"][0][0][0] = None
    path = write(tmp_path / "a.parquet", pa.array(rows))
    pixels, failures, _ = read(open_catalog(str(path), Given(unit="nanomaggy", mask="bad")))
    assert sorted(failures) == [1, 2, 3, 4]
    assert np.array_equal(np.isnan(pixels[5:]), CHANNELS_LAST[5:] > 1)


def test_printed_bytes_as_ids_are_refused_with_the_command(tmp_path):
    columns = {"object_id": pa.array([f"b'x{n}'" for n in range(ROWS)])}
    error = refusal(write(tmp_path / "a.parquet", pa.array(universe(PLANES)), **columns))
    assert "printed bytes" in error.what
    assert "--unit" in command_in(error)
