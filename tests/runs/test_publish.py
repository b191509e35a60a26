"""Publish runs: every row and value in each format, several runs as one, killed and resumed."""

from __future__ import annotations

import shutil
import subprocess
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drive import run_here
from toys import toy_bundle, toy_catalog, toy_pixels

from surveyproc.catalog.hats import open_hats
from surveyproc.errors import InputError, UsageError
from surveyproc.runs import open_run, publish_hats
from surveyproc.runs.publish import publish
from surveyproc.runs.publish_flat import write_flat
from surveyproc.runs.publish_names import Names
from surveyproc.runs.publish_source import SourceFile, SourceTable
from surveyproc.runs.verify_catalog import verify_catalog
from surveyproc.storage import Storage

MARGIN = 3600.0


def make_run(folder, name, bundle, ids, seed, flat=False):
    """A run of cutouts across the border of four base pixels, two of which are rejects."""
    rng = np.random.default_rng(seed)
    pixels = toy_pixels(len(ids), seed)
    pixels[[3, 4]] = 9
    positions = False if flat else (rng.uniform(42, 48, len(ids)), rng.uniform(-3, 3, len(ids)))
    catalog = toy_catalog(folder / f"{name}.cat", ids=ids, pixels=pixels, positions=positions)
    run_here(catalog, folder / f"{name}.run", bundle, "engine.shard_rows=40")
    return str(folder / f"{name}.run")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    bundle = toy_bundle(folder / "toy")
    return {
        "a": make_run(folder, "a", bundle, list(range(-60, 60)), 1),
        "b": make_run(folder, "b", bundle, list(range(40, 140)), 2),
        "names": make_run(folder, "names", bundle, [f"G{i:03}" for i in range(50)], 3, flat=True),
        "folder": folder,
    }


def stored(uri, table):
    return open_run(uri).table(table).sort_by("object_id").combine_chunks()


def values(column):
    """A column as numbers or text, missing ones as NaN or ''."""
    if pa.types.is_string(column.type):
        return np.array([v or "" for v in column.to_pylist()])
    if pa.types.is_fixed_size_list(column.type):
        return np.array(column.to_pylist())
    return column.to_numpy(zero_copy_only=False)


def read_astropy(path):
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)
        return Table.read(path)


def assert_same(found, expected):
    """Compare an astropy table with what a run stored."""
    order = np.argsort(np.asarray(found["object_id"]))
    for name in expected.column_names:
        ours, theirs = values(expected[name].combine_chunks()), found[name][order]
        if ours.dtype.kind == "U":
            assert [str(v) if v is not np.ma.masked else "" for v in theirs] == ours.tolist(), name
        else:
            filled = np.ma.filled(theirs.astype(float), np.nan) if ours.dtype.kind == "f" else theirs
            np.testing.assert_array_equal(np.asarray(filled), ours, err_msg=name)


@pytest.mark.parametrize(("form", "suffix"), [("fits", "fits"), ("votable", "vot")])
@pytest.mark.parametrize("name", ["a", "names"])
def test_fits_and_votable_hold_every_value(runs, tmp_path, form, suffix, name):
    about = publish([runs[name]], str(tmp_path / "out"), form)
    assert about["tables"].keys() == {"morphology", "embeddings", "morphology_posterior", "rejects"}
    for table in about["tables"]:
        found = read_astropy(tmp_path / "out" / f"{table}.{suffix}")
        expected = stored(runs[name], table)
        assert found.colnames == expected.column_names
        assert_same(found, expected)
    morphology = stored(runs["a"], "morphology")
    assert any(morphology[c].null_count for c in morphology.column_names), "nulls must be among the values"
    if name == "a":
        assert str(read_astropy(tmp_path / "out" / f"morphology.{suffix}")["ra"].unit) == "deg"
    if form == "votable":
        from astropy.io.votable import parse, validate

        path = str(tmp_path / "out" / "morphology.vot")
        assert validate(path, output=None)
        fields = {f.name: f for f in parse(path).get_first_table().fields}
        assert fields["object_id"].ucd == "meta.id;meta.main"
        assert fields["smooth-or-featured_smooth_fraction"].ucd == "stat.probability;src.morph"
    else:
        from astropy.io import fits

        with fits.open(tmp_path / "out" / "morphology.fits") as hdus:
            hdus.verify("exception")
            header = hdus[1].header
            assert (header["TTYPE1"], header["TUCD1"]) == ("object_id", "meta.id;meta.main")
            assert "expected vote fraction" in " ".join(str(v) for v in header.values())
    assert all(check.passed for check in verify_catalog(str(tmp_path / "out")))


def test_text_that_is_not_ascii_is_read_back_from_a_votable(tmp_path):
    texts = ["Gä1", "b", None, "\N{GREEK SMALL LETTER ALPHA}" * 5]
    rows = pa.table({"object_id": [1, 2, 3, 4], "name": texts, "plain": ["a", "", "c", None]})
    pq.write_table(rows, tmp_path / "t.parquet")
    storage = Storage(tmp_path)
    table = SourceTable("t", rows.schema, [SourceFile(storage, "t.parquet", 4, 1)])
    with storage.writing("t.vot") as sink:
        assert write_flat(sink, table, Names(None), "votable") == 4
    found = read_astropy(tmp_path / "t.vot")
    for name in ("name", "plain"):
        assert [str(v) for v in found[name]] == [text or "" for text in rows[name].to_pylist()]
    if shutil.which("stilts"):
        told = subprocess.run(["stilts", "votlint", tmp_path / "t.vot"], capture_output=True, text=True)
        assert told.stdout + told.stderr == ""
    with pytest.raises(InputError, match="not ASCII"), storage.writing("t.fits") as sink:
        write_flat(sink, table, Names(None), "fits")


def test_parquet_is_the_table_with_units(runs, tmp_path):
    publish([runs["a"]], str(tmp_path / "out"), "parquet")
    for table in ("morphology", "embeddings", "rejects"):
        found = pq.read_table(tmp_path / "out" / f"{table}.parquet")
        assert found.sort_by("object_id").combine_chunks().equals(stored(runs["a"], table))
        assert b"IVOA.VOTable-Parquet.content" in found.schema.metadata


def test_zoobot_names(runs, tmp_path):
    publish([runs["a"]], str(tmp_path / "out"), "parquet", names="zoobot")
    found = pq.read_table(tmp_path / "out" / "morphology.parquet")
    ours = stored(runs["a"], "morphology")
    assert found["id_str"].type == pa.string()
    found = found.take(pa.array(np.argsort([int(i) for i in found["id_str"].to_pylist()])))
    assert found["id_str"].to_pylist() == [str(i) for i in ours["object_id"].to_pylist()]
    endings = {
        "_fraction": "_fraction",
        "_fraction_lower": "_90pc-lower",
        "_fraction_upper": "_90pc-upper",
        "_proportion_asked": "_proportion-asked",
    }
    for mine, theirs in endings.items():
        columns = [name for name in ours.column_names if name.endswith(mine)]
        assert "smooth-or-featured" in " ".join(columns)
        for name in columns:
            assert found[name.removesuffix(mine) + theirs].to_pylist() == ours[name].to_pylist()
    assert not any(name.endswith(("_lower", "_upper", "_asked")) for name in found.column_names)
    features = pq.read_table(tmp_path / "out" / "embeddings.parquet")
    size = stored(runs["a"], "embeddings").schema.field("embedding").type.list_size
    assert [n for n in features.column_names if n.startswith("feat_")] == [f"feat_{i}" for i in range(size)]
    row = features["id_str"].to_pylist().index("-60")
    embedding = stored(runs["a"], "embeddings")["embedding"][0].as_py()
    assert [features[f"feat_{i}"][row].as_py() for i in range(size)] == pytest.approx(embedding)


def test_several_runs_are_one_and_the_first_counts(runs, tmp_path):
    about = publish([runs["b"], runs["a"]], str(tmp_path / "out"), "hats", margin_arcsec=MARGIN)
    first, second = (set(stored(runs[n], "morphology")["object_id"].to_pylist()) for n in ("b", "a"))
    assert about["duplicates"] == len(first & second) > 0
    catalog = open_hats(str(tmp_path / "out"))
    table = catalog.table(["object_id", "difficulty"])
    assert sorted(table["object_id"].to_pylist()) == sorted(first | second)
    expected = dict(
        zip(*(stored(runs["a"], "morphology")[c].to_pylist() for c in ("object_id", "difficulty")))
    )
    expected |= dict(
        zip(*(stored(runs["b"], "morphology")[c].to_pylist() for c in ("object_id", "difficulty")))
    )
    assert dict(zip(table["object_id"].to_pylist(), table["difficulty"].to_pylist())) == expected
    assert len(catalog.partitions) == 4
    assert pq.read_table(tmp_path / "out" / "rejects.parquet").num_rows == 4
    assert open_hats(catalog.margins["morphology_3600arcs"]).rows > 0
    extension = open_hats(catalog.extensions["embeddings"])
    assert extension.table(["object_id"]).num_rows == len(first | second)
    assert all(check.passed for check in verify_catalog(str(tmp_path / "out")))


def test_lsdb_and_hats_read_the_collection(runs, tmp_path, monkeypatch):
    lsdb = pytest.importorskip("lsdb")
    import dask
    import hats
    from hats.io.validation import is_valid_catalog

    monkeypatch.setattr(publish_hats, "TABLE_BYTES", 20_000)
    output = str(tmp_path / "out")
    publish([runs["a"]], output, "hats", margin_arcsec=10.0)
    assert is_valid_catalog(output, strict=True)
    collection = hats.read_hats(output)
    assert set(collection.all_extensions) == {"embeddings", "morphology_posterior"}
    described = hats.read_hats(str(collection.get_extension_path("embeddings")))
    assert described.catalog.catalog_info.total_rows == 118
    with dask.config.set(scheduler="synchronous"):
        catalog = lsdb.open_catalog(output)
        assert len(catalog.get_healpix_pixels()) > 4
        assert len(catalog.compute(progress_bar=False)) == 118
        expected = stored(runs["a"], "morphology")
        inside = np.hypot(expected["ra"].to_numpy() - 45, expected["dec"].to_numpy()) < 1.2
        cone = catalog.cone_search(45, 0, 1.2 * 3600).compute(progress_bar=False)
        assert sorted(cone["object_id"]) == sorted(expected["object_id"].to_numpy()[inside])


def test_a_table_without_rows_or_without_margin_still_opens(runs, tmp_path):
    publish([runs["a"]], str(tmp_path / "out"), "hats", tables=["morphology"], margin_arcsec=0)
    catalog = open_hats(str(tmp_path / "out"))
    assert catalog.margins == {}
    assert catalog.rows == 118
    with pytest.raises(InputError, match="no positions"):
        publish([runs["names"]], str(tmp_path / "flat"), "hats")
    assert not (tmp_path / "flat").exists()


def test_a_margin_wider_than_the_partitions_is_refused_before_anything_is_written(
    runs, tmp_path, monkeypatch
):
    monkeypatch.setattr(publish_hats, "TABLE_BYTES", 100)
    with pytest.raises(UsageError, match="wider than the smallest partitions"):
        publish([runs["a"]], str(tmp_path / "out"), "hats", margin_arcsec=MARGIN)
    assert not (tmp_path / "out").exists()


def test_text_of_one_letter_is_text(runs, tmp_path):
    """To STIL (TOPCAT) one byte is a letter, and VOTable calls ``arraysize="1"`` deprecated."""
    from astropy.io import fits

    publish([runs["names"]], str(tmp_path / "out"), "fits", tables=["rejects"])
    with fits.open(tmp_path / "out" / "rejects.fits") as hdus:
        assert "1A" not in [column.format for column in hdus[1].columns]
        assert "A" not in [column.format for column in hdus[1].columns]


WAITING: list = []


def another_finishes(name, subject):
    """When a unit is about to be committed, let another driver do and finish everything."""
    if name == "commit.ready" and WAITING:
        WAITING.pop()()


def test_of_two_drivers_the_slower_leaves_nothing_behind(runs, tmp_path, monkeypatch):
    output = str(tmp_path / "out")
    monkeypatch.setenv("SURVEYPROC_STEP_HOOK", "test_publish:another_finishes")
    WAITING.append(lambda: publish([runs["a"]], output, "fits"))
    about = publish([runs["a"]], output, "fits")
    assert WAITING == []
    assert about["tables"]["morphology"]["rows"] == 118
    assert [check.detail for check in verify_catalog(output) if not check.passed] == []
    assert not (tmp_path / "out" / "_work").exists()


def test_what_does_not_go_together_is_refused(runs, tmp_path):
    output = str(tmp_path / "out")
    with pytest.raises(InputError, match="cannot be published as one") as caught:
        publish([runs["a"], runs["names"]], output, "fits")
    assert "morphology has other columns" in str(caught.value)
    with pytest.raises(UsageError, match="given twice"):
        publish([runs["a"], f"{runs['a']}/"], output, "fits")
    with pytest.raises(UsageError, match="lies in a run"):
        publish([runs["a"]], f"{runs['a']}/fits", "fits")
    with pytest.raises(UsageError, match="Did you mean 'embeddings'"):
        publish([runs["a"]], output, "fits", tables=["embedding"])
    assert not (tmp_path / "out").exists()
    unfinished = shutil.copytree(runs["a"], tmp_path / "unfinished.run")
    shutil.rmtree(unfinished / "_manifests")
    with pytest.raises(InputError, match="unfinished"):
        publish([str(unfinished)], output, "fits")
    publish([runs["a"]], output, "fits", tables=["rejects"])
    assert publish([runs["a"]], output, "fits", tables=["rejects"])["nothing_to_do"]
    with pytest.raises(UsageError, match="format: was 'fits', is 'votable'"):
        publish([runs["a"]], output, "votable", tables=["rejects"])
    with pytest.raises(UsageError, match="other files"):
        publish([runs["b"]], output, "fits", tables=["rejects"])


def test_verify_names_what_is_changed_missing_and_extra(runs, tmp_path):
    output = tmp_path / "out"
    publish([runs["a"]], str(output), "fits")

    def failed():
        return [check.detail for check in verify_catalog(str(output)) if not check.passed]

    def coreutils():
        return subprocess.run(["sha256sum", "-c", "--quiet", "checksums.sha256"], cwd=output).returncode

    assert (failed(), coreutils()) == ([], 0)
    path = output / "rejects.fits"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert (failed(), coreutils()) == (["rejects.fits was changed"], 1)
    path.unlink()
    (output / "mine.fits").write_bytes(b"")
    (output / ".DS_Store").write_bytes(b"")
    assert failed() == ["rejects.fits is missing, mine.fits is extra: checksums.sha256 does not list it"]
    (output / "checksums.sha256").write_text("<html>")
    with pytest.raises(InputError, match="line 1 is no digest"):
        failed()
