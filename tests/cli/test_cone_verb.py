"""``surveyproc cone`` on runs and catalogs, and ``sql`` on HATS catalogs of others, as a user gives them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from drive import run_here
from toys import toy_bundle, toy_catalog

import surveyproc
from surveyproc.catalog.sky_regions import separation_arcsec
from surveyproc.cli.main import main

ROWS = 90
AROUND = ["--ra", "359.99", "--dec", "-0.01", "--radius", "300"]


@pytest.fixture(scope="module")
def sky_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cone")
    rng = np.random.default_rng(5)
    ra, dec = rng.normal(0, 0.1, ROWS) % 360, rng.normal(0, 0.1, ROWS)
    catalog = toy_catalog(folder / "in.cat", rows=ROWS, positions=(ra, dec))
    run_here(catalog, folder / "out.run", toy_bundle(folder / "toy"), "engine.batch_size=32")
    distance = separation_arcsec(ra, dec, 359.99, -0.01)
    near = [1000 + int(i) for i in np.argsort(distance) if distance[i] <= 300]
    assert 5 < len(near) < ROWS
    return folder, near, np.sort(distance)


def rows(capsys, *words):
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("table", [[], ["--table", "morphology_posterior"], ["--table", "embeddings"]])
def test_the_rows_of_a_run_around_a_position_come_nearest_first(sky_run, capsys, table):
    folder, near, distance = sky_run
    found = rows(capsys, "cone", folder / "out.run", *AROUND, *table)
    assert [r["object_id"] for r in found] == near
    assert np.allclose([r["distance_arcsec"] for r in found], distance[: len(near)], atol=1e-9)
    assert "embedding" not in found[0], "lists only when they are asked for"


def test_a_catalog_and_a_run_on_it_give_the_same_objects(sky_run, capsys):
    folder, near, _ = sky_run
    assert [r["object_id"] for r in rows(capsys, "cone", folder / "in.cat", *AROUND)] == near
    found = surveyproc.open(folder / "out.run").cone(359.99, -0.01, 300, columns=["object_id"])
    assert found["object_id"].to_pylist() == near
    assert surveyproc.cone(folder / "in.cat", 359.99, -0.01, 300)["object_id"].to_pylist() == near


def test_boxes_and_polygons_and_mocs_give_what_sql_gives(sky_run, capsys, tmp_path):
    from mocpy import MOC

    folder, _, _ = sky_run
    where = "(ra >= 359.9 OR ra <= 0.1) AND dec BETWEEN -0.05 AND 0.1"
    sql = f"SELECT object_id FROM morphology WHERE {where} ORDER BY 1"
    expected = [r["object_id"] for r in rows(capsys, "sql", folder / "out.run", sql)]
    assert len(expected) > 10
    box = ["--box", "359.9", "0.1", "-0.05", "0.1"]
    polygon = ["--polygon", "359.9,-0.05", "0.1,-0.05", "0.1,0.1", "359.9,0.1"]
    for region in (box, polygon):
        found = rows(capsys, "cone", folder / "out.run", *region, "--columns", "object_id")
        assert sorted(r["object_id"] for r in found) == expected
    MOC.from_string("0/0-11").save(str(tmp_path / "sky.fits"), "fits")
    everything = rows(capsys, "cone", folder / "out.run", "--moc", tmp_path / "sky.fits")
    assert len(everything) == ROWS


def test_a_table_fits_the_terminal_and_says_what_it_left_out(sky_run, capsys, monkeypatch):
    folder, near, _ = sky_run
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["cone", str(folder / "out.run"), *AROUND]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("distance_arcsec  object_id")
    assert len(printed.out.splitlines()) == len(near) + 2
    assert "more columns" in printed.err


def test_a_part_is_written_with_units(sky_run, capsys, tmp_path):
    folder, near, _ = sky_run
    output = tmp_path / "near.parquet"
    assert (
        main(["cone", str(folder / "out.run"), *AROUND, "--format", "parquet", "--output", str(output)]) == 0
    )
    assert f"{len(near)} rows" in capsys.readouterr().out
    written = pq.read_table(output)
    assert written["object_id"].to_pylist() == near
    assert written.schema.field("ra").metadata[b"unit"] == b"deg"


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["--ra", "1", "--dec", "2"], 2, "--radius must be given"),
        ([*AROUND, "--box", "1", "2", "3", "4"], 2, "one region at a time"),
        (["--ra", "1", "--dec", "200", "--radius", "0"], 2, "dec 200"),
        (["--polygon", "1,2", "3,4", "5"], 2, "a corner is RA,DEC"),
        ([*AROUND, "--table", "morpholgy"], 3, "Did you mean 'morphology'"),
        ([*AROUND, "--table", "rejects"], 3, "no positions"),
        ([*AROUND, "--columns", "object"], 2, "Did you mean 'object_id'"),
        ([*AROUND, "--format", "parquet"], 2, "go together"),
    ],
)
def test_mistakes_are_answered(sky_run, capsys, words, code, what):
    folder, _, _ = sky_run
    assert main(["cone", str(folder / "out.run"), *words]) == code
    assert what in capsys.readouterr().err


def test_a_catalog_has_no_tables(sky_run, capsys):
    folder, _, _ = sky_run
    assert main(["cone", str(folder / "in.cat"), *AROUND, "--table", "x"]) == 2
    assert main(["cone", str(folder / "absent"), *AROUND]) == 3
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("small_sky_npix_as_dir", 131),
        ("small_sky_npix_alt_suffix", 131),
        ("small_sky_order1_collection", 131),
        ("small_sky_order3_source", 17161),
        ("small_sky_order1_nested_sources", 131),
    ],
)
def test_sql_reads_hats_catalogs_of_others(shared_data, capsys, name, count):
    path = shared_data / "hats" / "lsdb" / name
    assert rows(capsys, "sql", path, "SELECT count(*) AS n FROM catalog") == [{"n": count}]
    names = rows(capsys, "sql", path, "SELECT * FROM catalog LIMIT 1")[0]
    assert not {"Norder", "Dir", "Npix"} & set(names), "parts of paths are no columns"


def test_leaves_in_another_place_are_found_where_the_user_says(shared_data, capsys):
    path = shared_data / "hats" / "lsdb" / "small_sky_order1_custom_tree"
    leaf = ["--leaf", "parquet/{order}_{pixel}.parquet"]
    ids = {r["id"] for r in rows(capsys, "sql", path, "SELECT id FROM catalog", *leaf)}
    assert len(ids) == 131
    everywhere = ["--ra", "0", "--dec", "0", "--radius", "648000", "--columns", "id"]
    assert {r["id"] for r in rows(capsys, "cone", path, *everywhere, *leaf)} == ids
    assert main(["verify", str(path), *leaf]) == 0
    for words in (["sql", str(path), "SELECT 1"], ["cone", str(path), *everywhere]):
        assert main(words) == 3
        assert "--leaf PATTERN" in capsys.readouterr().err
        assert main([*words, "--leaf", "parquet/{oder}.parquet"]) == 2
        assert "is no pattern of leaves" in capsys.readouterr().err


def test_cone_and_sql_agree_on_a_hats_catalog(shared_data, capsys):
    path = shared_data / "hats" / "lsdb" / "small_sky_order1_collection"
    found = rows(capsys, "cone", path, "--ra", "300", "--dec", "-45", "--radius", "54000", "--columns", "id")
    cosine = "sin(radians(dec)) * sin(radians(-45)) + cos(radians(dec)) * cos(radians(-45)) * cos(radians(ra - 300))"
    sql = f"SELECT id FROM catalog WHERE degrees(acos({cosine})) <= 15 ORDER BY 1"
    expected = [r["id"] for r in rows(capsys, "sql", path, sql)]
    assert len(expected) > 20
    assert sorted(r["id"] for r in found) == expected
