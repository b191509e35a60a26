"""Sizes told before a run are those of its tables."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drive import run_here
from toys import SPEC, toy_bundle, toy_catalog

from surveyproc.config.run import load_run_config
from surveyproc.cutouts import ImageSpec
from surveyproc.distributed.estimate import estimate
from surveyproc.runs import open_run
from surveyproc.runs.estimate import decode_ms, index_row_bytes, row_bytes


def test_a_row_is_the_sum_of_its_values():
    fields = [("object_id", pa.int64()), ("x", pa.float32()), ("name", pa.string()), ("flag", pa.bool_())]
    plain = row_bytes(pa.schema(fields))
    assert plain == pytest.approx(8 * 0.8 + 4 * 0.85 + 16 + 1 / 8)
    embedding = pa.schema([*fields, ("embedding", pa.list_(pa.float16(), 384))])
    assert row_bytes(embedding) == pytest.approx(plain + 384 * 2 * 0.8)
    assert index_row_bytes(embedding) == pytest.approx(4 * 384 + 6.4)


def test_raw_pixels_need_no_decoding_and_larger_images_more():
    assert decode_ms(SPEC) == 0
    times = [decode_ms(ImageSpec(kind, (px, px, 3), "uint8")) for kind in ("jpeg", "png") for px in (64, 424)]
    assert all(time > 0 for time in times)
    assert times[1] > 4 * times[0]
    assert times[3] > 4 * times[2]


@pytest.fixture(scope="module")
def rows_on_the_sky(tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimate")
    return toy_catalog(folder / "in.cat", rows=1000, group_rows=500, positions=True), toy_bundle(
        folder / "toy"
    )


def estimated(catalog, bundle, *overrides, **given):
    return estimate(
        str(catalog), str(catalog.with_name("out.run")), [str(bundle)], load_run_config(overrides), **given
    )


def test_the_estimated_tables_are_as_large_as_the_written_ones(rows_on_the_sky, tmp_path):
    catalog, bundle = rows_on_the_sky
    facts = estimated(catalog, bundle)
    run_here(catalog, tmp_path / "out.run", bundle, "engine.shard_rows=1000")
    manifest = open_run(str(tmp_path / "out.run")).manifest
    assert facts["tables"].keys() == manifest["tables"].keys() - {"rejects"}
    for name, table in facts["tables"].items():
        stored = 0
        for file in manifest["tables"][name]["files"]:
            footer = pq.read_metadata(tmp_path / "out.run" / file["path"])
            for group in range(footer.num_row_groups):
                columns = (footer.row_group(group).column(c) for c in range(footer.num_columns))
                stored += sum(c.total_compressed_size for c in columns)
        assert 0.6 < table["bytes"] / stored < 1.7, name
    index = sum(f["bytes"] for f in manifest["index"]["files"])
    assert facts["index_bytes"] == pytest.approx(index, rel=0.3)


def test_hours_and_cost_follow_from_rows_time_and_price(rows_on_the_sky):
    catalog, bundle = rows_on_the_sky
    facts = estimated(catalog, bundle, "cluster.actors=4", ms_per_cutout=1200.0, price_per_hour=0.5)
    assert facts["device_hours"] == pytest.approx(1000 * 1.2 / 3600)
    assert facts["seconds"] == pytest.approx(1200 / 4)
    assert facts["cost"] == pytest.approx(0.5 / 3)
    stated = estimated(catalog, bundle)
    assert stated["ms_per_cutout"] == 1.0
    assert stated["cost"] is None


def test_a_gpu_that_is_not_here_is_planned_for_only_with_its_measured_time(rows_on_the_sky, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    catalog, bundle = rows_on_the_sky
    facts = estimated(catalog, bundle, "engine.device=cuda", price_per_hour=3.0)
    assert (facts["device"], facts["device_hours"], facts["cost"]) == ("cuda", None, None)
    facts = estimated(
        catalog, bundle, "engine.device=cuda", "cluster.actors=8", ms_per_cutout=0.3, price_per_hour=3.0
    )
    assert facts["device_hours"] == pytest.approx(1000 * 0.3 / 3.6e6)
    assert facts["actors"] == 8
