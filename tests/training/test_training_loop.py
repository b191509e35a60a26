import io
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from surveyproc.catalog import CatalogWriter, open_catalog
from surveyproc.cutouts import ImageSpec, InputContract
from surveyproc.errors import InputError, ResourceError
from surveyproc.identifiers import splits_of
from surveyproc.training import loop
from surveyproc.training.bundle import write_morphology_bundle
from surveyproc.training.domain import domain_reference
from surveyproc.training.examples import Examples, load_examples
from surveyproc.training.loop import Recipe, learning_rate_factor, train
from surveyproc.votes import Question, VoteSchema
from surveyproc.votes.labels import Labels

SCHEMA = VoteSchema(
    "toy", (Question("bright", ("yes", "no")), Question("red", ("yes", "no"), ("bright_yes",)))
)
CONTRACT = InputContract(("R", "G", "B"), size=16, crop=0.5, mean=0.3, std=0.3)
TINY = {
    "encoder_arguments": {"channels": [8, 8, 16, 16]},
    "dropout": 0.1,
    "batch": 16,
    "threads": 1,
    "precision": "fp32",
}


def test_the_learning_rate_warms_up_then_falls_to_0_and_depends_on_images_seen_alone():
    assert learning_rate_factor(0, 1000, 0.1) == 0
    assert learning_rate_factor(50, 1000, 0.1) == pytest.approx(0.5)
    assert learning_rate_factor(100, 1000, 0.1) == pytest.approx(1.0)
    assert learning_rate_factor(550, 1000, 0.1) == pytest.approx(0.5)
    assert learning_rate_factor(1000, 1000, 0.1) == pytest.approx(0.0)
    assert learning_rate_factor(2000, 1000, 0.1) == pytest.approx(0.0)
    factors = [learning_rate_factor(i, 1000, 0.1) for i in range(100, 1001, 50)]
    assert factors == sorted(factors, reverse=True)


def test_wrong_settings_are_all_told():
    problems = Recipe(epochs=0, dropout=1.0, precision="fp64").problems()
    assert [p.split("=")[0] for p in problems] == ["train.epochs", "train.dropout", "train.precision"]
    assert Recipe().problems() == []


def toy_pixels(object_id):
    """Blobs whose brightness and colour are what the toy labels say."""
    rng = np.random.default_rng(object_id)
    bright, red = rng.random(2)
    y, x = np.mgrid[:64, :64] - 31.5
    blob = np.exp(-(x**2 + y**2) / 200)[..., None] * np.array([1.0, 1 - red, 1 - red])
    image = np.clip(255 * (0.2 + 0.8 * bright) * blob, 0, 255).astype(np.uint8)
    return image, [bright, 1 - bright, bright * red, bright * (1 - red)]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("toy") / "toy.cat")
    ids = list(range(400))
    made = [toy_pixels(i) for i in ids]
    spec = ImageSpec("png", (64, 64, 3), "uint8")

    def encode(pixels):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        return file.getvalue()

    images = [encode(pixels) for pixels, _ in made]
    images[7] = images[7][:40]
    with CatalogWriter(uri, spec, pa.schema([("object_id", pa.int64())])) as writer:
        writer.write(pa.record_batch({"object_id": pa.array(ids), "image": pa.array(images, pa.binary())}))
    joint = np.array([target for _, target in made])
    labels = Labels([str(i) for i in ids[:380]] + ["nobody"], np.concatenate([joint[:380], joint[:1]]))
    return uri, labels, splits_of(ids[:380])


def test_examples_are_joined_by_id_split_by_id_and_counted(toy):
    uri, labels, splits = toy
    said = []
    examples = load_examples(open_catalog(uri), labels, CONTRACT, said.append)
    assert (
        "380 ids in both, 20 only in the catalog (380, 381, 382, ...), 1 only in the labels (nobody)"
        in said[0]
    )
    assert "1 labelled cutouts have no usable pixels" in said[1]
    usable = np.arange(380) != 7
    for split in ("train", "validation", "calibration", "test"):
        rows = np.flatnonzero((splits == split) & usable)
        np.testing.assert_allclose(examples[split].joint.numpy(), labels.joint[rows], rtol=1e-6)
        assert len(examples[split].pixels) == len(rows)
    assert examples["train"].pixels.dtype == np.uint8
    assert examples["test"].pixels.shape[1:] == (3, 16, 16)


def test_labels_of_other_galaxies_are_refused(toy):
    uri, labels, _ = toy
    foreign = Labels([f"x{i}" for i in labels.ids], labels.joint)
    with pytest.raises(InputError, match="no id of the labels is in the catalog"):
        load_examples(open_catalog(uri), foreign, CONTRACT)


def test_a_short_training_learns_and_its_bundle_opens(toy, tmp_path):
    uri, labels, _ = toy
    examples = load_examples(open_catalog(uri), labels, CONTRACT)
    recipe = Recipe(**TINY, epochs=12, learning_rate=5e-3, ema=0.9, validate_every=6)
    said = []
    model, log = train(examples["train"], examples["validation"], SCHEMA, CONTRACT, recipe, said.append)
    target = examples["validation"].joint
    constant = float((target - target.mean(0)).square().mean().sqrt())
    assert log["validation"][-1]["rmse"] < 0.6 * constant
    assert log["images_seen"] >= 12 * len(examples["train"].joint)
    assert all("validation RMSE" in line for line in said)
    bundle = write_morphology_bundle(
        tmp_path / "toy",
        model,
        examples,
        SCHEMA,
        CONTRACT,
        recipe,
        log,
        views=8,
        draws=2,
        data="blobs",
        citation=["none"],
    )
    assert bundle.name == "toy"
    assert bundle.record["metrics"]["n"] == len(examples["test"].joint)
    assert bundle.record["metrics"]["rmse"] < bundle.record["metrics"]["rmse_of_the_training_mean"]
    assert "blobs" in (tmp_path / "toy" / "README.md").read_text()
    built = bundle.build()
    images = torch.from_numpy(examples["test"].pixels[:4])
    with torch.inference_mode():
        np.testing.assert_allclose(
            built.head(built.encode(images)).numpy(), model.head(model.encode(images)).numpy(), rtol=1e-3
        )


def test_a_training_repeats_itself_bit_for_bit(toy):
    uri, labels, _ = toy
    examples = load_examples(open_catalog(uri), labels, CONTRACT)
    recipe = Recipe(**TINY, epochs=1)
    states = [
        train(examples["train"], examples["validation"], SCHEMA, CONTRACT, recipe)[0].state_dict()
        for _ in range(2)
    ]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_gradient_that_is_not_a_number_stops_the_training_with_a_way_out(toy, monkeypatch):
    uri, labels, _ = toy
    examples = load_examples(open_catalog(uri), labels, CONTRACT)
    monkeypatch.setattr(loop, "objective", lambda a, *rest: a.sum(1) * float("nan"))
    with pytest.raises(ResourceError, match=r"not a number after 0 images[\s\S]*train.precision=fp32"):
        train(examples["train"], examples["validation"], SCHEMA, CONTRACT, Recipe(**TINY, epochs=1))


def test_targets_that_are_not_numbers_are_refused_by_name_and_count(toy):
    uri, labels, _ = toy
    examples = load_examples(open_catalog(uri), labels, CONTRACT)
    poisoned = Examples(examples["train"].pixels, examples["train"].joint * float("nan"))
    with pytest.raises(InputError, match=rf"bright_yes: {len(poisoned.joint)} joint values are not finite"):
        train(poisoned, examples["validation"], SCHEMA, CONTRACT, Recipe(**TINY, epochs=1))


def test_a_batch_larger_than_the_data_is_refused(toy):
    uri, labels, _ = toy
    examples = load_examples(open_catalog(uri), labels, CONTRACT)
    recipe = Recipe(**{**TINY, "batch": 1000})
    with pytest.raises(InputError, match=f"{len(examples['train'].joint)} training examples, fewer than one"):
        train(examples["train"], examples["validation"], SCHEMA, CONTRACT, recipe)


def test_domain_quantiles_are_distances_of_the_calibration_split():
    generator = torch.Generator().manual_seed(0)
    embeddings = 5 + torch.rand(300, 8, generator=generator)
    reference = domain_reference(embeddings[:200], embeddings[200:])
    assert reference["domain.centroids"].shape == (64, 8)
    outward = (embeddings[200:] - embeddings[:200].mean(0).half()).numpy()
    centroids = reference["domain.centroids"].float().numpy()
    cosines = (
        outward @ centroids.T / np.linalg.norm(outward, axis=1)[:, None] / np.linalg.norm(centroids, axis=1)
    )
    distances = torch.from_numpy(1 - cosines.max(axis=1))
    quantiles = reference["domain.quantiles"].float()
    assert float(quantiles[50]) == pytest.approx(float(distances.median()), rel=0.1)
    assert float(quantiles[100]) == pytest.approx(float(distances.max()), rel=1e-3)
    assert not math.isclose(float(quantiles[0]), float(quantiles[100]))
