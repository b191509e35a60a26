"""From a catalog of flux in many bands to a bundle, and that bundle over the catalog."""

import numpy as np
import pyarrow as pa
import pytest
from drive import assert_sound, tables_of

from surveyproc.catalog import CatalogWriter
from surveyproc.cli.main import main
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError, UsageError
from surveyproc.models.bundle import open_bundle
from surveyproc.training.examples import load_examples
from surveyproc.training.job import Request, plan
from surveyproc.training.recipe import Recipe
from surveyproc.votes import load_schema

ROWS, SIDE = 120, 20
BANDS = ("u", "g", "r", "i", "z", "y")
SIGMA = np.array([4.0, 1.0, 1.0, 2.0, 4.0, 14.0])
QUICK = [
    "encoder=resnet10t",
    "encoder_arguments={channels: [8,8,16,16], stem_width: 8}",
    "size=16",
    "batch=16",
]
QUICK += ["epochs=1", "precision=fp32", "views=1", "draws=1"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A catalog in nJy as ingest writes it, band by band, some rows with holes; labels by brightness."""
    folder = tmp_path_factory.mktemp("flux")
    rng = np.random.default_rng(2)
    schema = load_schema("galaxy-challenge")
    fractions = np.concatenate(
        [rng.dirichlet(np.ones(len(q.answers)), ROWS) for q in schema.questions], axis=1
    )
    joint = schema.joint(fractions)
    header = ",".join(["object_id", *(schema.labels[c] for c in schema.columns)])
    lines = [",".join([str(i), *(f"{v:.6f}" for v in joint[i])]) for i in range(ROWS)]
    (folder / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
    spec = ImageSpec(
        "raw", (SIDE, SIDE, 6), "float32", "CHW", BANDS, "nJy", None, "none", orientation="bottom-up"
    )
    grid = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    blob = np.exp(-(grid**2).sum(0) / (4 + 40 * joint[:, 0, None, None]))
    pixels = (
        300.0 * blob[..., None] * np.linspace(0.3, 1.5, 6) + rng.normal(0, 1, (ROWS, SIDE, SIDE, 6)) * SIGMA
    )
    pixels[5, :, :3], pixels[6] = np.nan, np.nan
    columns = {
        "object_id": pa.array(range(ROWS)),
        "quality": pa.array([1 if i == 5 else 0 for i in range(ROWS)]),
    }
    columns |= {"ra": pa.array(rng.uniform(0, 360, ROWS)), "dec": pa.array(rng.uniform(-60, 60, ROWS))}
    kinds = pa.schema([(name, column.type) for name, column in columns.items()])
    with CatalogWriter(folder / "flux.cat", spec, kinds, row_group_bytes=20 * spec.nbytes) as writer:
        writer.write_pixels(pixels.astype(np.float32), columns)
    return folder


def train(inputs, output, *settings):
    words = [
        "train",
        "morphology",
        "--catalog",
        str(inputs / "flux.cat"),
        "--labels",
        str(inputs / "labels.csv"),
    ]
    return main(
        [*words, "--id", "object_id", "--output", str(output), *(f"train.{s}" for s in [*QUICK, *settings])]
    )


def test_a_bundle_of_six_bands_of_flux_is_trained_and_run(inputs, tmp_path, capsys):
    softening = f"softening={SIGMA.tolist()}"
    flux = [f"bands=[{','.join(BANDS)}]", "stretch=none", softening, "crop=1.0", "mean=0.5", "std=1.5"]
    assert train(inputs, tmp_path / "six", *flux) == 0
    bundle = open_bundle(str(tmp_path / "six"))
    contract = bundle.contract
    assert (contract.bands, contract.unit, contract.softening) == (BANDS, "nJy", tuple(SIGMA))
    assert "1 labelled cutouts have no usable pixels" in capsys.readouterr().err
    assert np.isfinite(bundle.record["metrics"]["rmse"])
    words = ["run", "--input", str(inputs / "flux.cat"), "--output", str(tmp_path / "six.run")]
    small = ["engine.batch_size=16", "engine.shard_rows=40", "cluster=none"]
    assert main([*words, "--bundle", str(tmp_path / "six"), *small]) == 0
    tables = tables_of(tmp_path / "six.run")
    assert len(tables["morphology"]) + len(tables["rejects"]) == ROWS
    assert tables["rejects"]["object_id"].to_pylist() == [6]
    quality = dict(
        zip(tables["morphology"]["object_id"].to_pylist(), tables["morphology"]["quality"].to_pylist())
    )
    assert {k: v for k, v in quality.items() if v} == {5: 3}
    assert_sound(tmp_path / "six.run")


def planned(inputs, **settings):
    """What a training would be, without the training."""
    request = Request(
        str(inputs / "flux.cat"),
        str(inputs / "labels.csv"),
        "unused",
        Recipe(),
        {"size": 16} | settings,
        "object_id",
    )
    return plan(request)


def test_a_training_on_a_stretch_of_the_flux_states_it_in_full_and_reads_its_bytes(inputs):
    training = planned(inputs, stretch="legacy_lupton", stretch_parameters={"q": 8})
    contract = training.contract
    assert (contract.bands, contract.stretch, contract.stretch_version) == (
        ("R", "G", "B"),
        "legacy_lupton",
        1,
    )
    assert contract.stretch_parameters["q"] == 8
    assert contract.stretch_parameters["scales"] == (6.0, 3.4, 2.2)
    examples = load_examples(training.catalog, training.labels, contract, joined=training.joined)
    assert examples["train"].pixels.dtype == np.uint8
    assert examples["train"].pixels.std() > 1
    with pytest.raises(InputError, match="no band VIS, Y, which the stretch gz_euclid needs"):
        planned(inputs, stretch="gz_euclid")
    with pytest.raises(UsageError, match="no parameter 'Q'"):
        planned(inputs, stretch="legacy_lupton", stretch_parameters={"Q": 8})
    with pytest.raises(InputError, match="no column pixel_scale_arcsec"):
        planned(inputs, stretch="sdss_lupton")
