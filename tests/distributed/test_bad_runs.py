"""Bad catalogs, bundles and outputs: a bad row becomes a reject, a bad run three lines."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drive import assert_sound, run_here, tables_of
from safetensors.torch import load_file
from toys import SPEC, encode, encoded_catalog, toy_bundle, toy_catalog, toy_pixels

from surveyproc.errors import InputError, SurveyprocError, UsageError
from surveyproc.models.bundle import open_bundle, write_bundle


def refused(kind: type[SurveyprocError], catalog, output, bundle, *settings, **flags) -> SurveyprocError:
    """The error of a run that must not begin; it says what, where and what to do, and writes nothing."""
    with pytest.raises(kind) as caught:
        run_here(catalog, output, bundle, *settings, **flags)
    assert caught.value.where
    assert not Path(output).exists() or not any(Path(output).iterdir())
    return caught.value


def rows_of_rejects(run) -> dict:
    table = tables_of(run)["rejects"]
    return dict(zip(table["object_id"].to_pylist(), table["reason"].to_pylist()))


def test_bad_images_become_rejects_and_their_neighbours_do_not_move(bundle, tmp_path):
    pixels = toy_pixels(30)
    good = encode(pixels)
    bad = list(good)
    bad[3], bad[7], bad[11] = None, good[7][: len(good[7]) // 2], b"no image at all"
    bad[12] = encode(np.full((1, 16, 16, 3), 5, np.uint8))[0]
    bad[13] = encode(np.zeros((1, 16, 16), np.uint8) + np.arange(16, dtype=np.uint8))[0]
    bad[14] = encode(toy_pixels(1, 4)[:, :8])[0]
    run_here(encoded_catalog(tmp_path / "good.cat", good), tmp_path / "good.run", bundle)
    run_here(encoded_catalog(tmp_path / "bad.cat", bad), tmp_path / "bad.run", bundle)

    assert rows_of_rejects(tmp_path / "bad.run") == {
        3: "missing_image",
        7: "unreadable_image",
        11: "unreadable_image",
        12: "constant_pixels",
        13: "wrong_channels",
        14: "wrong_shape",
    }
    found, expected = tables_of(tmp_path / "bad.run"), tables_of(tmp_path / "good.run")
    for name in ("morphology", "morphology_posterior", "embeddings"):
        keep = pa.array([i not in (3, 7, 11, 12, 13, 14) for i in range(30)])
        assert found[name].equals(expected[name].filter(keep)), name
    assert_sound(tmp_path / "bad.run")


def test_unusable_float_pixels_become_rejects_and_flaws_a_quality_bit(bundle, tmp_path):
    spec = replace(SPEC, dtype="float32")
    pixels = toy_pixels(20).astype(np.float32) / 255
    pixels[4] = np.nan
    pixels[5] = 0.25
    pixels[6, 3, 3, 1] = np.inf
    catalog = toy_catalog(tmp_path / "in.cat", rows=20, pixels=pixels, spec=spec)
    run_here(catalog, tmp_path / "out.run", bundle)
    rejects = rows_of_rejects(tmp_path / "out.run")
    assert rejects == {1004: "nan_pixels", 1005: "constant_pixels"}
    morphology = tables_of(tmp_path / "out.run")["morphology"]
    quality = dict(zip(morphology["object_id"].to_pylist(), morphology["quality"].to_pylist()))
    assert quality[1006] == 2
    assert set(quality.values()) == {0, 2}


def test_missing_positions_become_rejects(bundle, tmp_path):
    ra, dec = np.linspace(0, 300, 20), np.linspace(-80, 80, 20)
    ra[3], dec[8], dec[9] = np.nan, 95.0, np.inf
    catalog = toy_catalog(tmp_path / "in.cat", rows=20, positions=(ra, dec))
    run_here(catalog, tmp_path / "out.run", bundle)
    assert rows_of_rejects(tmp_path / "out.run") == dict.fromkeys((1003, 1008, 1009), "bad_position")
    assert_sound(tmp_path / "out.run")


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_missing_ids_become_rejects(bundle, tmp_path, kind):
    catalog = toy_catalog(tmp_path / "in.cat", rows=20)
    file = next(catalog.rglob("*.parquet"))
    table = pq.read_table(file)
    ids = pa.array([None if i == 5 else i for i in range(20)]).cast(kind)
    pq.write_table(table.set_column(0, "object_id", ids), file)
    run_here(catalog, tmp_path / "out.run", bundle)
    assert rows_of_rejects(tmp_path / "out.run") == {None: "missing_id"}
    assert tables_of(tmp_path / "out.run")["morphology"]["object_id"].null_count == 0
    assert_sound(tmp_path / "out.run")


@pytest.mark.parametrize(
    "ids",
    [
        [f"galaxy {i} 'é\"" for i in range(40)],
        [(-1) ** i * (2**53 + i) for i in range(40)],
        [-(2**63) + i for i in range(20)] + [2**63 - 1 - i for i in range(20)],
    ],
    ids=["strings", "above 2^53", "extremes of int64"],
)
def test_ids_of_every_kind_pass_through_and_the_first_of_duplicates_stays(bundle, tmp_path, ids):
    ids = list(ids)
    ids[37], ids[38] = ids[3], ids[3]
    catalog = toy_catalog(tmp_path / "in.cat", rows=40, ids=ids, one_group_per_file=True)
    assert len(list(catalog.rglob("*.parquet"))) == 4
    run_here(catalog, tmp_path / "out.run", bundle)
    tables = tables_of(tmp_path / "out.run")
    assert set(tables["morphology"]["object_id"].to_pylist()) == set(ids)
    assert tables["morphology"].num_rows == 38
    assert tables["rejects"]["object_id"].to_pylist() == [ids[3]] * 2
    assert set(tables["rejects"]["reason"].to_pylist()) == {"duplicate_id"}
    assert set(tables["rejects"]["shard"].to_pylist()) == {3}

    pixels = toy_pixels(40)
    alone = toy_catalog(
        tmp_path / "alone.cat", rows=38, ids=ids[:37] + ids[39:], pixels=np.delete(pixels, [37, 38], 0)
    )
    run_here(alone, tmp_path / "alone.run", bundle)
    row = tables["embeddings"]["object_id"].to_pylist().index(ids[3])
    expected = tables_of(tmp_path / "alone.run")["embeddings"]
    assert tables["embeddings"]["embedding"][row] == expected["embedding"][row]
    assert_sound(tmp_path / "out.run")


def test_a_catalog_with_other_bands_is_refused_unless_forced(tmp_path):
    infrared = toy_bundle(tmp_path / "infrared", name="infrared", bands=("H", "J", "Y"))
    catalog = toy_catalog(tmp_path / "in.cat", rows=20)
    error = refused(InputError, catalog, tmp_path / "out.run", infrared)
    assert "bands are R, G, B; the bundle needs H, J, Y" in error.what
    assert "--force-domain" in error.fix
    assert run_here(catalog, tmp_path / "out.run", infrared, force_domain=True).rows == 20


def test_flux_pixels_are_refused_by_a_bundle_of_display_images(bundle, tmp_path):
    spec = replace(SPEC, dtype="float32", stretch="none")
    pixels = toy_pixels(10).astype(np.float32)
    catalog = toy_catalog(tmp_path / "in.cat", rows=10, pixels=pixels, spec=spec)
    assert "stretch none" in refused(InputError, catalog, tmp_path / "out.run", bundle).what


def test_a_bundle_whose_weights_changed_is_refused(bundle, tmp_path):
    broken = Path(shutil.copytree(bundle, tmp_path / "broken"))
    data = bytearray((broken / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (broken / "model.safetensors").write_bytes(data)
    error = refused(InputError, toy_catalog(tmp_path / "in.cat", rows=10), tmp_path / "out.run", broken)
    assert "sha256" in error.what
    assert "model.safetensors" in error.where


@pytest.mark.parametrize(
    ("change", "says"),
    [("missing", "missing tensor classifier.bias"), ("extra", "unexpected tensor encoder.more")],
)
def test_a_bundle_with_other_tensors_is_refused(bundle, tmp_path, change, says):
    tensors = load_file(bundle / "model.safetensors")
    if change == "missing":
        del tensors["classifier.bias"]
    else:
        tensors["encoder.more"] = tensors["classifier.bias"].clone()
    write_bundle(tmp_path / "odd", json.loads((bundle / "model.json").read_text()), tensors)
    catalog = toy_catalog(tmp_path / "in.cat", rows=10)
    assert says in refused(InputError, catalog, tmp_path / "out.run", tmp_path / "odd").what


def test_a_bundle_without_weights_or_record_is_refused(bundle, tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=10)
    broken = Path(shutil.copytree(bundle, tmp_path / "broken"))
    (broken / "model.safetensors").unlink()
    assert "no weights" in refused(InputError, catalog, tmp_path / "out.run", broken).what
    (broken / "model.json").write_text("{")
    assert "cannot be read" in refused(InputError, catalog, tmp_path / "out.run", broken).what
    assert "no bundle 'gz3'" in refused(InputError, catalog, tmp_path / "out.run", "gz3").what


def test_a_bundle_is_never_a_pickle(bundle, tmp_path):
    folder = Path(shutil.copytree(bundle, tmp_path / "pickled"))
    record = json.loads((folder / "model.json").read_text())
    data = b"\x80\x04K\x01."
    (folder / "model.safetensors").write_bytes(data)
    record["weights_sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "model.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="not a safetensors file"):
        open_bundle(str(folder))


def test_an_output_folder_that_holds_something_else_is_refused(bundle, tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=10)
    output = tmp_path / "thesis"
    output.mkdir()
    (output / "chapter1.tex").write_text("draft")
    with pytest.raises(UsageError, match=r"holds something else \(chapter1.tex\)"):
        run_here(catalog, output, bundle)
    assert [p.name for p in output.iterdir()] == ["chapter1.tex"]


def test_an_output_that_is_a_file_is_refused(bundle, tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=10)
    (tmp_path / "out.run").write_text("a file")
    with pytest.raises(SurveyprocError) as caught:
        run_here(catalog, tmp_path / "out.run", bundle)
    assert str(tmp_path / "out.run") in caught.value.where
    assert (tmp_path / "out.run").read_text() == "a file"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no read-only file system to write to")
def test_an_unwritable_output_is_refused(bundle, tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=10)
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        output = tmp_path / "locked" / "out.run"
    else:
        output = Path("/proc/self/out.run")
    with pytest.raises(InputError, match="cannot be written") as caught:
        run_here(catalog, output, bundle)
    assert "--output" in caught.value.fix


def test_an_empty_catalog_is_refused(bundle, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(InputError, tmp_path / "empty", tmp_path / "out.run", bundle).what
    assert refused(InputError, tmp_path / "nowhere", tmp_path / "out.run", bundle)


def test_a_catalog_without_rows_is_refused(bundle, tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=10)
    file = next(catalog.rglob("*.parquet"))
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    assert "no rows" in refused(InputError, catalog, tmp_path / "out.run", bundle).what


@pytest.mark.parametrize("data", [b"", b"PAR1 this is no Parquet PAR1"], ids=["zero bytes", "garbage"])
def test_a_file_that_is_no_parquet_is_refused_and_named(bundle, tmp_path, data):
    catalog = toy_catalog(tmp_path / "in.cat", rows=10)
    odd = next(catalog.rglob("*.parquet")).with_name("part-00001.parquet")
    odd.write_bytes(data)
    assert odd.name in refused(InputError, catalog, tmp_path / "out.run", bundle).where


def test_damaged_pages_stop_the_run_in_three_lines(bundle, tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=60)
    file = next(catalog.rglob("*.parquet"))
    data = bytearray(file.read_bytes())
    for place in range(len(data) // 3, len(data) // 2):
        data[place] ^= 0x5A
    file.write_bytes(data)
    with pytest.raises(InputError) as caught:
        run_here(catalog, tmp_path / "out.run", bundle)
    assert file.name in caught.value.where


def test_an_unknown_column_to_carry_is_refused(bundle, tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=10, positions=True)
    error = refused(InputError, catalog, tmp_path / "out.run", bundle, "output.carry=[redshift]")
    assert "redshift" in error.what


def test_two_bundles_that_write_one_table_are_refused(bundle, tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=10)
    other = toy_bundle(tmp_path / "other", name="other")
    assert "both write" in refused(UsageError, catalog, tmp_path / "out.run", [bundle, other]).what
