import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("galsim", reason="simulating needs the extra 'sim'")

from surveyproc.catalog import open_catalog
from surveyproc.cutouts import METADATA_KEY
from surveyproc.errors import InputError, UsageError
from surveyproc.images.decode import decode_batch
from surveyproc.simulate.catalog import simulate_catalog
from surveyproc.simulate.marker import is_simulated
from surveyproc.simulate.survey import simulate_rows

N = 40


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return simulate_catalog(tmp_path_factory.mktemp("sim") / "a.cat", N, seed=2, workers=1)


def table_of(catalog):
    return pq.read_table(f"{catalog.uri}/dataset")


def test_it_opens_and_reads_back_the_pixels_that_were_simulated(catalog):
    pixels, failures = decode_batch(table_of(catalog)["image"], catalog.image)
    assert not failures
    assert np.array_equal(pixels[34:38], simulate_rows(2, range(34, 38))[0])


def test_it_says_that_it_is_simulated_and_with_which_stretch(catalog):
    opened = open_catalog(catalog.uri)
    assert is_simulated(opened.schema)
    assert opened.has_positions
    assert opened.rows == N
    assert json.loads(opened.schema.field("image").metadata[METADATA_KEY])["stretch"] == "sdss_lupton"


def test_truth_travels_in_the_catalog(catalog):
    table = table_of(catalog)
    assert table["object_id"].to_pylist() == list(range(3_000_000, 3_000_000 + N))
    assert len(set(table["truth_type"].to_pylist())) > 3
    assert table.schema.field("truth_inclination").metadata[b"unit"] == b"deg"
    ra, dec = table["ra"].to_numpy(), table["dec"].to_numpy()
    assert ((ra >= 0) & (ra < 360)).all()
    assert ((dec > 14) & (dec < 26)).all()


def test_the_catalog_does_not_depend_on_the_number_of_workers(catalog, tmp_path):
    counted = []
    other = simulate_catalog(
        tmp_path / "b.cat", N, seed=2, workers=2, progress=lambda done, total: counted.append((done, total))
    )
    digests = [hashlib.sha256(str(table_of(c).to_pylist()).encode()).hexdigest() for c in (catalog, other)]
    assert digests[0] == digests[1]
    assert counted[-1] == (N, N)


@pytest.mark.parametrize(("n", "seed"), [(0, 0), (-3, 0), (2_000_000, 0), (5, -1)])
def test_a_survey_that_cannot_be_is_refused(tmp_path, n, seed):
    with pytest.raises(UsageError):
        simulate_catalog(tmp_path / "c.cat", n, seed)
    assert not (tmp_path / "c.cat").exists()


def test_an_output_that_holds_something_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("keep")
    with pytest.raises(InputError):
        simulate_catalog(tmp_path / "x", 3)
    assert (tmp_path / "x" / "mine.txt").read_text() == "keep"
