"""`verify` finds what can be wrong with a run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drive import run_here
from toys import toy_bundle, toy_catalog, toy_pixels

from surveyproc.runs import open_run
from surveyproc.runs.verify import verify_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    pixels = toy_pixels(60)
    pixels[5] = 1
    rng = np.random.default_rng(0)
    positions = rng.uniform(40, 50, 60), rng.uniform(-4, 4, 60)
    catalog = toy_catalog(folder / "in.cat", rows=60, pixels=pixels, positions=positions)
    run_here(catalog, folder / "out.run", toy_bundle(folder / "toy"))
    return folder / "out.run"


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out.run"))


def failed(run: Path) -> set[str]:
    """Names of the checks that fail."""
    return {c.name for c in verify_run(open_run(str(run))) if not c.passed}


def a_leaf(run: Path, table: str) -> Path:
    return sorted((run / table / "dataset").rglob("*.parquet"))[0]


def forge(run: Path, path: Path, table: pa.Table) -> None:
    """Write a file anew and make the manifest agree with its bytes and digest."""
    pq.write_table(table, path)
    manifest_path = run / "_manifests" / "000001.json"
    manifest = json.loads(manifest_path.read_text())
    for entry in manifest["tables"].values():
        for file in entry["files"]:
            if run / file["path"] == path:
                file["bytes"] = path.stat().st_size
                file["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest_path.write_text(json.dumps(manifest))


def test_a_good_run_passes_every_check(whole):
    checks = list(verify_run(open_run(str(whole))))
    assert all(c.passed for c in checks), checks
    assert len(checks) > 20
    assert all(c.detail for c in checks)


@pytest.mark.parametrize("table", ["morphology", "morphology_posterior", "embeddings"])
def test_a_flipped_byte_is_found(run, table):
    path = a_leaf(run, table)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert failed(run) >= {f"{table}: digest"}


def test_a_flipped_byte_in_the_rejects_or_index_is_found(run):
    index = next((run / "index").glob("*.faiss"))
    data = bytearray(index.read_bytes())
    data[-1] ^= 1
    index.write_bytes(data)
    assert failed(run) == {"index"}


def test_a_missing_and_a_shortened_file_are_found(run):
    a_leaf(run, "embeddings").unlink()
    path = a_leaf(run, "morphology")
    os.truncate(path, path.stat().st_size - 1)
    assert failed(run) >= {"embeddings: present", "morphology: present"}


def test_a_foreign_file_is_found(run):
    (run / "morphology" / "dataset" / "copy.parquet").write_bytes(a_leaf(run, "morphology").read_bytes())
    assert failed(run) == {"no other files"}


def test_a_missing_commit_is_found(run):
    (run / "_commits" / "shard-0000002.json").unlink()
    assert failed(run) >= {"commits"}


def test_a_doubled_row_is_found_even_when_the_manifest_was_made_to_agree(run):
    path = a_leaf(run, "morphology")
    table = pq.read_table(path)
    forge(run, path, pa.concat_tables([table.slice(0, 1), table]))
    assert failed(run) >= {"morphology: rows", "morphology: ids"}


def test_a_row_of_another_object_is_found_even_when_the_counts_agree(run):
    path = a_leaf(run, "embeddings")
    table = pq.read_table(path)
    ids = table["object_id"].to_numpy().copy()
    ids[0] = 999_999
    column = table.schema.get_field_index("object_id")
    forge(run, path, table.set_column(column, table.schema.field(column), pa.array(ids)))
    assert failed(run) == {"embeddings: ids"}


def test_a_row_in_the_wrong_pixel_is_found(run):
    """LSDB loses such a row from cone searches and says nothing."""
    path = a_leaf(run, "morphology")
    table = pq.read_table(path)
    pixels = table["_healpix_29"].to_numpy().copy()
    pixels[0] = 0 if pixels[0] >> 58 else 11 << 58
    column = table.schema.get_field_index("_healpix_29")
    forge(run, path, table.set_column(column, table.schema.field(column), pa.array(pixels)))
    assert failed(run) == {"morphology: pixel"}


def test_files_of_one_table_with_other_columns_are_found(run):
    paths = sorted((run / "morphology" / "dataset").rglob("*.parquet"))
    assert len(paths) > 1
    forge(run, paths[-1], pq.read_table(paths[-1]).drop_columns(["difficulty"]))
    assert failed(run) == {"morphology: schema"}


def test_an_unfinished_run_is_told(run):
    shutil.rmtree(run / "_manifests")
    assert failed(run) == {"manifest"}
