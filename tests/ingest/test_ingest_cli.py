"""`surveyproc ingest` on real galaxies and on mistakes."""

import json
import shutil

import numpy as np
import pyarrow.csv as pacsv
import pytest
from PIL import Image

from surveyproc.catalog import open_catalog, read_batches
from surveyproc.cli.main import main
from surveyproc.images.decode import decode_batch


@pytest.fixture(scope="module")
def galaxies(shared_data, tmp_path_factory):
    """The first 100 galaxies of the challenge: their images copied, the table whole."""
    source, folder = shared_data / "galaxy_zoo_challenge", tmp_path_factory.mktemp("gz")
    ids = pacsv.read_csv(source / "labels.csv")["GalaxyID"].to_pylist()
    (folder / "images").mkdir()
    for i in ids[:100]:
        shutil.copy(source / "images" / f"{i}.jpg", folder / "images")
    shutil.copy(source / "labels.csv", folder)
    return folder, ids


def ingest(folder, output, *more):
    words = ["--images", folder / "images", "--table", folder / "labels.csv", "--id", "GalaxyID"]
    return main([str(w) for w in ("ingest", *words, "--output", output, *more)])


def test_real_galaxies_are_ingested_and_every_row_of_the_table_is_accounted_for(galaxies, tmp_path, capsys):
    folder, ids = galaxies
    assert ingest(folder, tmp_path / "gz.cat") == 0
    said = capsys.readouterr()
    assert f"{len(ids):,} table rows = 100 cutouts + {len(ids) - 100:,} rejects" in said.out
    assert "missing_image" in said.out
    assert f"surveyproc run --input {tmp_path / 'gz.cat'} --output NAME.run" in said.out
    assert "rows/s" in said.err
    catalog = open_catalog(str(tmp_path / "gz.cat"))
    assert catalog.image.shape == (424, 424, 3)
    (batch,) = read_batches(
        catalog.uri,
        catalog.files[0].path,
        range(len(catalog.files[0].row_groups)),
        100,
        ["object_id", "image"],
    )
    assert batch["object_id"].to_pylist() == ids[:100]
    pixels, failures = decode_batch(batch["image"], catalog.image)
    assert not failures
    for row in (0, 99):
        assert np.array_equal(pixels[row], np.asarray(Image.open(folder / "images" / f"{ids[row]}.jpg")))


def test_decoded_and_resized_galaxies_and_json(galaxies, tmp_path, capsys):
    folder, _ = galaxies
    more = ["--decode", "--size", "64", "--carry", "Class1.1,Class6.2", "--json"]
    assert ingest(folder, tmp_path / "gz.cat", *more) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows_out"] == 100
    assert report["image"]["shape"] == [64, 64, 3]
    catalog = open_catalog(str(tmp_path / "gz.cat"))
    assert catalog.image.encoding == "raw"
    assert catalog.schema.names == ["object_id", "Class1.1", "Class6.2", "image"]


def test_mistakes_are_three_lines_and_an_exit_code(galaxies, tmp_path, capsys):
    folder, _ = galaxies
    words = ["ingest", "--images", str(folder / "images"), "--table", str(folder / "labels.csv")]
    output = ["--output", str(tmp_path / "gz.cat")]
    for more, code, message in (
        ([*output, "--id", "GalaxyId"], 3, "Did you mean 'GalaxyID'?"),
        (["--id", "GalaxyID"], 2, "--output must be given"),
        ([*output, "--id", "GalaxyID", "--size", "64"], 2, "--size needs --decode"),
        ([*output, "--id", "GalaxyID", "--carry", "Class1.9"], 3, "no column 'Class1.9'"),
        (["--id", "GalaxyID", "--output", str(folder)], 3, "holds something else"),
    ):
        assert main([*words, *more]) == code
        said = capsys.readouterr().err
        assert message in said
        assert len(said.strip().splitlines()) <= 3
    assert not (tmp_path / "gz.cat").exists()
