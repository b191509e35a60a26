"""The report says what the command that made the catalog rejected."""

import json

from surveyproc.report.origin import origin


def test_counts_of_an_ingest_are_shown_and_escaped(tmp_path):
    about = {
        "rows_in": 2000,
        "rows_out": 1990,
        "rejects": {"no_tile": 9, "<script>": 1},
        "quality": {"EDGE": 25},
        "command": "surveyproc ingest --tiles '{tile}.fits'",
        "tiles": 3,
        "tiles_used": 2,
        "unusable_tiles": {"t<7>": "unreadable: it is a web page"},
    }
    (tmp_path / "catalog.json").write_text(json.dumps(about))
    text = origin(str(tmp_path))
    for shown in ("2,000 rows in = 1,990 cutouts + 10 rejects", "no_tile", "EDGE", "2 of 3 gave cutouts"):
        assert shown in text
    assert "t&lt;7&gt;" in text
    assert "<script>" not in text


def test_images_without_a_row_are_counted(tmp_path):
    about = {"rows_in": 5, "rows_out": 5, "rejects": {"no_row": 2}, "images_without_row": 2}
    (tmp_path / "catalog.json").write_text(json.dumps(about))
    assert "5 rows in + 2 images without a row = 5 cutouts + 2 rejects" in origin(str(tmp_path))


def test_a_catalog_of_others_has_no_such_section(tmp_path):
    assert origin(str(tmp_path)) == ""
    (tmp_path / "catalog.json").write_text(json.dumps({"verb": "publish", "tables": {}}))
    assert origin(str(tmp_path)) == ""
