"""The verbs of the command line as functions of `surveyproc`."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import surveyproc
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
    shown = surveyproc.show(tmp_path / "fast.cat", "g3", tmp_path / "g3.png")
    assert shown.panels
    assert Image.open(tmp_path / "g3.png").size[0] > 9
    with pytest.raises(UsageError, match="stretch"):
        surveyproc.show(tmp_path / "fast.cat", "g3", tmp_path / "g3.png", q=8)
