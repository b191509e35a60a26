"""The executors share every line but the loop: their tables are equal bit for bit."""

from __future__ import annotations

import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from drive import assert_same_tables, assert_sound, run_here, tables_of
from toys import encode, encoded_catalog, toy_bundle, toy_catalog, toy_pixels

from surveyproc.config.run import load_run_config
from surveyproc.distributed.job import draft
from surveyproc.errors import InputError, ResourceError

RAY = ["cluster=local", "cluster.actors=2"]


@pytest.fixture(scope="module")
def awkward_pixels():
    pixels = toy_pixels(60)
    pixels[[5, 33]] = 8
    return pixels


def test_raw_cutouts_on_the_sky_give_the_same_tables(ray_session, bundle, tmp_path, awkward_pixels):
    ids = [(-1) ** i * (2**53 + i) for i in range(60)]
    ids[50] = ids[2]
    catalog = toy_catalog(tmp_path / "in.cat", rows=60, ids=ids, pixels=awkward_pixels, positions=True)
    here = run_here(catalog, tmp_path / "here.run", bundle)
    there = run_here(catalog, tmp_path / "there.run", bundle, *RAY)
    assert (here.executor, there.executor) == ("none", "local")
    assert (here.rows, here.rejects) == (there.rows, there.rejects) == (57, 3)
    assert_same_tables(tables_of(tmp_path / "there.run"), tables_of(tmp_path / "here.run"))
    assert_sound(tmp_path / "there.run")


def test_jpegs_with_text_ids_give_the_same_tables(ray_session, bundle, tmp_path, awkward_pixels):
    images = encode(awkward_pixels)
    images[9] = images[9][:100]
    catalog = encoded_catalog(tmp_path / "in.cat", images, ids=[f"J{i:04d}+é" for i in range(60)])
    run_here(catalog, tmp_path / "here.run", bundle, "cluster.actors=1")
    run_here(catalog, tmp_path / "there.run", bundle, *RAY)
    tables = tables_of(tmp_path / "here.run")
    assert tables["rejects"].num_rows == 3
    assert_same_tables(tables_of(tmp_path / "there.run"), tables)
    assert_sound(tmp_path / "there.run")


def test_a_run_begun_here_is_finished_on_ray(ray_session, bundle, tmp_path, monkeypatch):
    catalog = toy_catalog(tmp_path / "in.cat", rows=60)
    run_here(catalog, tmp_path / "here.run", bundle)
    file = next(catalog.rglob("*.parquet"))
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setenv("SURVEYPROC_STEP_HOOK", "meddling:touch")
        patch.setenv("SURVEYPROC_MEDDLE_STEP", '["commit.done", "shard-0000002"]')
        patch.setenv("SURVEYPROC_MEDDLE_FILE", str(file))
        with pytest.raises(InputError):
            run_here(catalog, tmp_path / "there.run", bundle, "cluster.actors=1")
    os.utime(file, ns=times)
    result = run_here(catalog, tmp_path / "there.run", bundle, *RAY)
    assert result.resumed
    assert_same_tables(tables_of(tmp_path / "there.run"), tables_of(tmp_path / "here.run"))


def test_an_error_in_an_actor_arrives_as_three_lines_and_keeps_the_commits(ray_session, bundle, tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=60)
    file = next(catalog.rglob("*.parquet"))
    data = bytearray(file.read_bytes())
    chunks = [pq.read_metadata(file).row_group(0).column(c) for c in range(len(pq.read_schema(file)))]
    pixels = next(chunk for chunk in chunks if chunk.path_in_schema == "image")
    for place in range(pixels.data_page_offset, pixels.data_page_offset + 2000):
        data[place] ^= 0x5A
    file.write_bytes(data)
    with pytest.raises(InputError) as caught:
        run_here(catalog, tmp_path / "out.run", bundle, *RAY)
    assert file.name in caught.value.where


def test_more_actors_than_the_cluster_holds_are_refused_with_the_fix(ray_session, bundle, tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=60)
    with pytest.raises(ResourceError, match="would hang") as caught:
        run_here(catalog, tmp_path / "out.run", bundle, *RAY, "cluster.cpus_per_actor=1")
    assert "cluster.cpus_per_actor=0.9" in caught.value.fix


@pytest.mark.parametrize(("ms", "expected"), [(0.5, "none"), (10_000.0, "local")])
def test_auto_takes_ray_for_more_than_a_minute_of_work(tmp_path, ms, expected):
    bundle = toy_bundle(tmp_path / "toy")
    record = (bundle / "model.json").read_text().replace('"ms_per_cutout": 1.0', f'"ms_per_cutout": {ms}')
    (bundle / "model.json").write_text(record)
    catalog = toy_catalog(tmp_path / "in.cat", rows=60)
    config = load_run_config(["cluster=auto", "cluster.actors=2"])
    drafted = draft(str(catalog), str(tmp_path / "out.run"), [str(bundle)], config)
    assert drafted.executor_for(60) == expected
    assert not (tmp_path / "out.run").exists()


def test_several_engines_and_one_give_the_same_bits(bundle, tmp_path, awkward_pixels):
    catalog = toy_catalog(tmp_path / "in.cat", rows=60, pixels=awkward_pixels)
    for actors in (1, 3):
        run_here(catalog, tmp_path / f"{actors}.run", bundle, f"cluster.actors={actors}")
    assert_same_tables(tables_of(tmp_path / "3.run"), tables_of(tmp_path / "1.run"))


def test_the_size_of_shards_does_not_change_values_beyond_rounding(bundle, tmp_path, awkward_pixels):
    catalog = toy_catalog(tmp_path / "in.cat", rows=60, pixels=awkward_pixels)
    for rows in (10, 60):
        run_here(catalog, tmp_path / f"{rows}.run", bundle, f"engine.shard_rows={rows}")
    one, other = tables_of(tmp_path / "10.run"), tables_of(tmp_path / "60.run")
    for name in one["morphology_posterior"].column_names[1:]:
        np.testing.assert_allclose(
            one["morphology_posterior"][name].to_numpy(),
            other["morphology_posterior"][name].to_numpy(),
            rtol=0.05,
        )
