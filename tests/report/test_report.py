import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from toys import SIZE, SPEC, toy_bundle, toy_catalog, toy_pixels

from surveyproc import api
from surveyproc.catalog import CatalogWriter, open_catalog
from surveyproc.errors import InputError
from surveyproc.report import write_report
from surveyproc.report.pictures import fetch_cutouts
from surveyproc.runs import open_run
from surveyproc.runs.verify import verify_run
from surveyproc.simulate.marker import mark_simulated

ROWS = 60
EVIL = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Collects tags, what they refer to, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.references, self.words = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.references += [v for k, v in attributes if k in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy_bundle(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory, bundle):
    """A run on a catalog that is marked as simulated and has two unusable cutouts."""
    folder = tmp_path_factory.mktemp("simulated")
    pixels = toy_pixels(ROWS)
    pixels[[3, 50]] = 0
    fields = {
        "object_id": pa.array(range(ROWS), pa.int64()),
        "ra": pa.array(np.linspace(0, 359, ROWS)),
        "dec": pa.array(np.linspace(-80, 80, ROWS)),
        "truth_type": pa.array(["spiral"] * ROWS),
    }
    schema = mark_simulated(pa.schema([(k, v.type) for k, v in fields.items()]))
    with CatalogWriter(folder / "a.cat", SPEC, schema, row_group_bytes=10 * SPEC.nbytes) as writer:
        writer.write_pixels(pixels, fields)
    api.run(folder / "a.cat", folder / "a.run", [str(bundle)], ["cluster=none", "cluster.actors=1"])
    return folder


def html_of(*arguments, **options):
    return Path(write_report(*arguments, **options)).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(simulated):
    return html_of(str(simulated / "a.run"))


def test_the_report_refers_to_nothing_outside_itself(text):
    page = Reader(text)
    assert page.references
    assert all(r.startswith(("data:image/", "#")) for r in page.references)
    assert not re.search(r"https?:|url\(|@import", text)
    assert not page.tags & {"script", "link", "iframe", "object"}


def test_the_report_says_that_the_galaxies_are_simulated(text):
    assert "These galaxies are simulated" in text


def test_rows_rejects_and_reasons_are_those_of_the_run(text, simulated):
    words = " ".join(Reader(text).words)
    assert f"{ROWS} rows in" in re.sub(r"\s+", " ", words)
    assert "58 rows out" in words
    assert "2 rejects" in words
    assert "constant_pixels" in words
    assert open_run(str(simulated / "a.run")).record["bundles"]["toy"]["weights_sha256"][:16] in words


def test_pictures_carry_truth_only_because_the_catalog_is_simulated(text):
    assert "true type: spiral" in text
    assert "<th>true type</th>" in text


def test_every_gallery_has_a_picture_for_each_object(text):
    assert "no picture" not in text
    assert text.count("<figure><img") == text.count('alt="cutout of')


def test_a_run_with_its_report_still_verifies(simulated, text):
    assert all(check.passed for check in verify_run(open_run(str(simulated / "a.run"))))


def test_a_malicious_id_is_shown_as_text(tmp_path, bundle):
    ids = [f"{EVIL}{k}" for k in range(11)] + ['" onerror="alert(1)']
    pixels = toy_pixels(12)
    pixels[0] = 0
    toy_catalog(tmp_path / "a.cat", 12, ids=ids, pixels=pixels)
    api.run(tmp_path / "a.cat", tmp_path / "a.run", [str(bundle)], ["cluster=none", "cluster.actors=1"])
    text = html_of(str(tmp_path / "a.run"))
    page = Reader(text)
    assert "script" not in page.tags
    assert EVIL in "".join(page.words)
    assert 'onerror="' not in text
    assert "simulated" not in text


def test_a_catalog_that_is_gone_costs_the_pictures_and_the_report_says_so(tmp_path, bundle):
    toy_catalog(tmp_path / "a.cat", 12)
    api.run(tmp_path / "a.cat", tmp_path / "a.run", [str(bundle)], ["cluster=none", "cluster.actors=1"])
    (tmp_path / "a.cat").rename(tmp_path / "b.cat")
    text = html_of(str(tmp_path / "a.run"), output=tmp_path / "x" / "r.html")
    assert "Without pictures" in text
    assert "<img" not in text
    with pytest.raises(InputError):
        write_report(str(tmp_path / "a.run"), str(tmp_path / "a.cat"))
    moved = html_of(str(tmp_path / "a.run"), str(tmp_path / "b.cat"))
    assert "<img" in moved


def test_cutouts_are_fetched_by_id_whatever_their_row_group(tmp_path):
    catalog = open_catalog(str(toy_catalog(tmp_path / "a.cat", 40, group_rows=7)))
    found = fetch_cutouts(catalog, [1039, 1000, 1013, 5])
    assert set(found) == {1000, 1013, 1039}
    assert np.array_equal(found[1013][0], toy_pixels(40)[13])
    half = fetch_cutouts(catalog, [1013], crop=0.5)[1013][0]
    assert np.array_equal(half, toy_pixels(40)[13][SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4])


def test_flux_cutouts_are_stretched_for_display():
    from dataclasses import replace

    from surveyproc.report.pictures import display

    spec = replace(SPEC, dtype="float32", bands=("g", "r", "i"), stretch="none")
    flux = np.zeros((4, 4, 3), dtype=np.float32)
    flux[0, 0], flux[1, 1] = (0, 0, 5), (np.nan, -3, np.inf)
    rgb = display(flux, spec)
    assert rgb.dtype == np.uint8
    assert rgb[0, 0, 0] > 200  # the last band is red
    assert rgb[1, 1].tolist() == [0, 0, 0]


def test_the_gallery_is_one_picture(simulated, tmp_path, monkeypatch):
    from surveyproc.report import gallery, summary

    monkeypatch.setattr(summary, "CONFIDENT", 0.0)  # an untrained bundle is sure of nothing
    path = gallery.write_gallery(str(simulated / "a.run"), tmp_path / "g.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > 8 * 100
