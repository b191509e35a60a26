"""HDF5 of Galaxy10 and ssl-legacysurvey kind."""

import foreign
import numpy as np
import pytest
from foreign import display_pixels, flux_planes, hdf5
from fsspec.implementations.local import LocalFileSystem
from test_adapters import command_in, read, refusal

from surveyproc.catalog import Given, open_catalog
from surveyproc.catalog.adapters import hdf5 as adapter
from surveyproc.errors import InputError

pytest.importorskip("h5py", reason="HDF5 needs the package h5py")

ROWS = 40


@pytest.fixture
def galaxy10(tmp_path):
    positions = {"ra": np.linspace(0, 300, ROWS), "dec": np.linspace(-80, 80, ROWS)}
    return hdf5(
        tmp_path / "Galaxy10.h5",
        images=display_pixels(ROWS),
        ans=np.arange(ROWS, dtype=np.uint8) % 10,
        pxscale=np.full(ROWS, 0.262),
        redshift=np.full(ROWS, np.nan),
        **positions,
    )


@pytest.fixture
def legacysurvey(tmp_path):
    folder = tmp_path / "ssl"
    folder.mkdir()
    for part in range(2):
        ids = np.array([f"id-{part}-{n}" for n in range(ROWS)], dtype="S12")
        planes = flux_planes(ROWS, seed=part).astype(">f4")
        hdf5(folder / f"part-{part}.hdf5", images=planes, object_id=ids, ra=np.ones(ROWS), dec=np.ones(ROWS))
    return folder


def test_galaxy10_has_no_ids_and_is_read_with_numbers(galaxy10):
    assert "--number-rows" in command_in(refusal(galaxy10))
    catalog = open_catalog(str(galaxy10), Given(number_rows=True))
    assert catalog.image.bands == ("R", "G", "B")
    assert catalog.id_type == "int64"
    pixels, _, others = read(catalog, ("image", "ra", "ans", "pixel_scale_arcsec"))
    assert np.array_equal(pixels, display_pixels(ROWS))
    assert others["ans"] == [n % 10 for n in range(ROWS)]
    assert others["ra"] == pytest.approx(np.linspace(0, 300, ROWS).tolist())
    assert others["pixel_scale_arcsec"] == [0.262] * ROWS


def test_ssl_legacysurvey_needs_bands_and_unit_and_is_read_big_endian_planes_first(legacysurvey):
    error = refusal(legacysurvey)
    assert "name its 3 bands" in error.what
    assert "--bands" in command_in(error)
    catalog = open_catalog(str(legacysurvey), Given(bands=("g", "r", "z"), unit="nanomaggy"))
    assert (catalog.image.layout, catalog.image.zeropoint) == ("CHW", 22.5)
    pixels, _, others = read(catalog, ("object_id", "image"))
    expected = np.concatenate([flux_planes(ROWS, seed=part) for part in range(2)])
    assert np.array_equal(pixels, expected.transpose(0, 2, 3, 1))
    assert others["object_id"][:2] == ["id-0-0", "id-0-1"]


def test_row_groups_are_whole_chunks_and_are_read_in_any_order(tmp_path, monkeypatch):
    import h5py

    monkeypatch.setattr(adapter, "GROUP_BYTES", 10 * foreign.SIDE**2 * 3)
    pixels = display_pixels(ROWS)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=pixels, chunks=(4, 12, 12, 3), compression="gzip")
        file["object_id"] = np.arange(ROWS)
    catalog = open_catalog(str(tmp_path / "a.h5"))
    groups = [group.rows for group in catalog.files[0].row_groups]
    assert groups == [8] * 5
    from surveyproc.catalog import read_batches

    batches = read_batches(catalog.uri, "a.h5", [3, 1], 8, ["object_id"], form=catalog.form)
    assert [batch["object_id"].to_pylist() for batch in batches] == [
        list(range(24, 32)),
        list(range(8, 16)),
    ]


def test_chunks_that_cross_batches_are_unpacked_once(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=display_pixels(ROWS), chunks=(ROWS, 1, 12, 3), compression="gzip")
        file["object_id"] = np.arange(ROWS)
    with adapter._opened(LocalFileSystem(), str(tmp_path / "a.h5")) as file:
        _, slots, size, _ = file.id.get_access_plist().get_cache()
    assert size >= 16 << 20 > slots  # what `read_hdf5_footer` calls a row group fits
    catalog = open_catalog(str(tmp_path / "a.h5"))
    assert np.array_equal(read(catalog)[0], display_pixels(ROWS))


def test_small_tables_beside_the_cutouts_are_columns_and_small_cubes_are_not_the_cutouts(tmp_path):
    magnitudes = np.arange(3.0 * ROWS).reshape(ROWS, 3)
    hdf5(
        tmp_path / "a.h5",
        a_kernel=np.zeros((3, 5, 5)),
        images=display_pixels(ROWS),
        magnitudes=magnitudes,
        object_id=np.arange(ROWS),
    )
    pixels, _, others = read(open_catalog(str(tmp_path / "a.h5")), ("image", "magnitudes"))
    assert np.array_equal(pixels, display_pixels(ROWS))
    assert others["magnitudes"] == magnitudes.tolist()


def test_an_id_that_counts_within_a_brick_is_not_proposed(tmp_path):
    path = hdf5(
        tmp_path / "a.h5",
        images=display_pixels(ROWS),
        brickid=np.arange(ROWS),
        objid=np.zeros(ROWS, int),
        inds=np.arange(ROWS),
    )
    words = command_in(refusal(path))
    assert words[words.index("--id") + 1] == "inds"


def test_damaged_chunks_and_text_that_is_not_utf8_are_mistakes_of_the_file(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=display_pixels(ROWS), chunks=(8, 12, 12, 3), compression="gzip")
        file["object_id"] = np.arange(ROWS)
        place = file["images"].id.get_chunk_info(3)
    latin = np.array([f"caf\xe9{n}".encode("latin1") for n in range(ROWS)])
    hdf5(tmp_path / "b.h5", images=display_pixels(ROWS), object_id=latin)
    assert "'object_id' has text that is not UTF-8" in refusal(tmp_path / "b.h5").what
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    (tmp_path / "a.h5").write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        read(open_catalog(str(tmp_path / "a.h5")))


def test_what_is_no_hdf5_or_has_no_cutouts_is_refused(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"<html>not found</html>")
    assert "not a readable HDF5" in refusal(tmp_path / "a.h5").what
    hdf5(tmp_path / "b.h5", ra=np.ones(3))
    assert "no cutouts" in refusal(tmp_path / "b.h5").what
    whole = hdf5(tmp_path / "c.h5", images=display_pixels(ROWS), object_id=np.arange(ROWS)).read_bytes()
    (tmp_path / "d.h5").write_bytes(whole[: len(whole) // 2])
    assert "not a readable HDF5" in refusal(tmp_path / "d.h5").what
