"""The verbs of the command line as functions of `surveyproc`."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skytiles import mosaic, positions, write_sources

import surveyproc
from surveyproc.cli.main import main
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import UsageError


def lists(path, rows=6, px=9):
    pixels = np.random.default_rng(2).integers(0, 255, (rows, px, px, 3)).astype(np.uint8)
    pq.write_table(pa.table({"name": [f"g{n}" for n in range(rows)], "image": pixels.tolist()}), path)
    return pixels


def test_repack_and_show(tmp_path):
    pixels = lists(tmp_path / "lists.parquet")
    given = {"id": "name", "dtype": "uint8", "overrides": ["cluster=none"]}
    report = surveyproc.repack(tmp_path / "lists.parquet", tmp_path / "fast.cat", **given)
    assert (report.rows_in, report.rows_out) == (6, 6)
    assert report.image == ImageSpec("raw", (9, 9, 3), "uint8", bands=report.image.bands)
    again = surveyproc.repack(tmp_path / "lists.parquet", tmp_path / "fast.cat", **given)
    assert again.nothing_to_do
    found = surveyproc.sql("SELECT object_id, image FROM catalog ORDER BY 1", tmp_path / "fast.cat")
    assert found["object_id"].to_pylist() == [f"g{n}" for n in range(6)]
    assert b"".join(found["image"].to_pylist()) == pixels.tobytes()
    assert {check.name: check.passed for check in surveyproc.verify(tmp_path / "fast.cat")} == {
        "files": True,
        "digests": True,
        "accounts": True,
    }
    shown = surveyproc.show(tmp_path / "fast.cat", "g3", tmp_path / "g3.png")
    assert shown.panels
    assert Image.open(tmp_path / "g3.png").size[0] > 9
    with pytest.raises(UsageError, match="stretch"):
        surveyproc.show(tmp_path / "fast.cat", "g3", tmp_path / "g3.png", q=8)


def test_ingest_of_tiles_is_that_of_the_command_line(tmp_path, capsys):
    mosaic(tmp_path)
    ra, dec = positions(30)
    sources = write_sources(tmp_path / "s.parquet", ID=range(30), ra=ra, dec=dec, z=np.linspace(0, 1, 30))
    tiles = str(tmp_path / "{tile}_{band}.fits")
    said = {"id": "ID", "size": 8, "carry": ["z"], "zeropoints": {"*": 22.5, "r": 23.0}}
    report = surveyproc.ingest_tiles(
        tiles, sources, tmp_path / "a.cat", ["g", "r"], overrides=["cluster=none"], **said
    )
    words = ["ingest", "--tiles", tiles, "--sources", str(sources), "--output", str(tmp_path / "b.cat")]
    words += ["--bands", "g,r", "--id", "ID", "--size", "8", "--carry", "z", "--zeropoint", "22.5,r=23"]
    assert main([*words, "--json", "cluster=none"]) == 0
    theirs = json.loads(capsys.readouterr().out)
    assert report.rows_out == theirs["rows_out"] == 30
    query = "SELECT * FROM catalog ORDER BY object_id"
    assert surveyproc.sql(query, tmp_path / "a.cat").equals(surveyproc.sql(query, tmp_path / "b.cat"))
    with pytest.raises(UsageError, match="no_such"):
        surveyproc.ingest_tiles(tiles, sources, tmp_path / "c.cat", preset="no_such")
