"""What every bundle of conf/bundle/ promises the engine."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from surveyproc.config.compose import config_folder
from surveyproc.images.views import d4, prepare
from surveyproc.models.bundle import SHIPPED, open_bundle, shipped_bundles
from surveyproc.votes import VoteSchema

CONFIGS = sorted((config_folder() / "bundle").glob("*.yaml"))
MEGABYTE = 1_000_000


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda p: p.stem)
def bundle(request):
    config = yaml.safe_load(request.param.read_text())
    opened = open_bundle(config["uri"])
    assert opened.name == config["name"] == request.param.stem
    assert opened.record["architecture"] == config["architecture"]
    assert opened.record["arguments"] == config["arguments"]
    return opened


@pytest.fixture(scope="module")
def images(bundle):
    contract = bundle.contract
    pixels = torch.rand(5, 100, 100, len(contract.bands), generator=torch.Generator().manual_seed(0))
    return prepare((pixels * 255).to(torch.uint8), contract)


def test_every_shipped_bundle_has_a_config():
    assert set(shipped_bundles()) <= {p.stem for p in CONFIGS}


def test_shipped_bundles_are_small_enough_for_git():
    sizes = [sum(f.stat().st_size for f in p.iterdir()) for p in SHIPPED.iterdir() if p.is_dir()]
    assert max(sizes) <= 16 * MEGABYTE
    assert sum(sizes) <= 40 * MEGABYTE


@torch.inference_mode()
def test_a_model_encodes_and_answers_in_the_declared_shapes(bundle, images):
    model = bundle.build()
    features = model.encode(images)
    assert features.shape == (5, model.embedding_size)
    assert model.embedding_size == bundle.record["outputs"]["embedding_size"]
    assert 0 <= model.dropout < 1
    assert torch.isfinite(model.head(features)).all()
    assert model.head(features).dtype == torch.float32


@torch.inference_mode()
def test_a_cutout_alone_gets_the_values_it_gets_in_a_batch(bundle, images):
    model = bundle.build()
    together = model.head(model.encode(images))
    alone = torch.cat([model.head(model.encode(images[i : i + 1])) for i in range(5)])
    np.testing.assert_allclose(alone.numpy(), together.numpy(), rtol=2e-4, atol=1e-3)


@torch.inference_mode()
def test_two_builds_give_the_same_bits(bundle, images):
    outputs = [m.head(m.encode(images)) for m in (bundle.build(), bundle.build())]
    assert torch.equal(*outputs)


@torch.inference_mode()
def test_morphology_fractions_sum_to_1_over_each_question(bundle, images):
    model = bundle.build()
    if model.product != "morphology":
        pytest.skip("no vote fractions")
    schema = VoteSchema.from_dict(bundle.record["outputs"]["vote_schema"])
    concentrations = model.head(model.encode(images))
    assert concentrations.shape == (5, len(schema.columns))
    assert (concentrations > 0).all()
    for s in schema.slices.values():
        a = concentrations[:, s]
        np.testing.assert_allclose((a / a.sum(1, keepdim=True)).sum(1).numpy(), 1.0, rtol=1e-6)


@torch.inference_mode()
def test_the_domain_reference_fits_the_embedding(bundle, images):
    model = bundle.build()
    centroids, quantiles = bundle.tensors["domain.centroids"], bundle.tensors["domain.quantiles"]
    assert centroids.shape[1] == model.embedding_size
    np.testing.assert_allclose(centroids.float().norm(dim=1).numpy(), 1.0, atol=1e-2)
    assert quantiles.shape == (101,)
    assert (quantiles.float().diff() >= 0).all()
    assert float(quantiles[0]) >= 0
    assert float(quantiles[-1]) <= 2


def test_the_record_says_where_the_bundle_comes_from(bundle):
    record = bundle.record
    assert record["metrics"]["split"] == "test"
    assert record["metrics"]["n"] > 0
    assert record["training"]["galaxies"]["train"] > 0
    assert record["cost"]["ms_per_cutout"] > 0
    assert record["licence"]
    assert record["citation"]
    assert record["inference"]["views"] in range(1, 9)
    assert (Path(bundle.uri) / "README.md").exists()
    json.dumps(record)


@torch.inference_mode()
def test_noise_is_further_from_the_training_set_than_most_galaxies(bundle, images):
    model = bundle.build()
    embedding = torch.stack([model.encode(d4(images, k)) for k in range(8)]).mean(0)
    embedding = torch.nn.functional.normalize(embedding, dim=1)
    centroids = torch.nn.functional.normalize(bundle.tensors["domain.centroids"].float(), dim=1)
    distances = 1 - (embedding @ centroids.T).max(1).values
    assert (distances > bundle.tensors["domain.quantiles"][90].float()).all()
