"""``surveyproc plan`` tells what a run reads, writes, takes and costs."""

from __future__ import annotations

import json

import pytest
from drive import run_words
from toys import encode, encoded_catalog, toy_bundle, toy_pixels

from surveyproc.cli.main import main


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    catalog = encoded_catalog(folder / "in.cat", encode(toy_pixels(50)))
    return ["plan", *run_words(catalog, folder / "new.run", toy_bundle(folder / "toy"))[1:]]


def test_a_plan_says_files_rows_shards_sizes_hours_and_cost(words, capsys):
    assert main([*words, "cluster.actors=2", "--price-per-hour", "36000000"]) == 0
    said = capsys.readouterr().out
    for word in ("1 file, ", "50 rows of jpeg uint8 16 x 16 px", "shards", "morphology_posterior", "index"):
        assert word in said, said
    for word in ("B a row", "core-hours", "ms of it to decode", "with 2 engines", "cost"):
        assert word in said, said


def test_json_has_the_same_numbers_for_programs(words, capsys):
    assert main([*words, "--json", "--price-per-hour", "0.05", "--ms-per-cutout", "72"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["rows"] == facts["rows_left"] == 50
    assert facts["device_hours"] == pytest.approx(0.001)
    assert facts["cost"] == pytest.approx(0.00005)
    assert facts["output_bytes"] == pytest.approx(
        sum(t["bytes"] for t in facts["tables"].values()) + facts["index_bytes"], abs=5
    )
    assert facts["decode_ms_per_cutout"] > 0


def test_a_gpu_without_a_measured_time_is_told_how_to_get_one(words, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([*words, "engine.device=cuda", "--price-per-hour", "3"]) == 0
    said = capsys.readouterr().out
    assert "not known: give --ms-per-cutout" in said
    assert "cost" not in said


@pytest.mark.parametrize("wrong", ["0", "-1", "three", "inf", "nan"])
def test_a_price_that_is_no_price_is_a_usage_error(words, capsys, wrong):
    assert main([*words, f"--price-per-hour={wrong}"]) == 2
    assert "not a number above 0" in capsys.readouterr().err
