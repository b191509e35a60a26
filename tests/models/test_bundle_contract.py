"""What every bundle promises the engine: those of conf/bundle/, bundles of other bands, an encoder without a head."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
import yaml
from timm.models import save_for_hf
from toys import toy_bundle

from surveyproc.config.compose import config_folder
from surveyproc.cutouts import ImageSpec, InputContract
from surveyproc.errors import InputError
from surveyproc.images.views import d4, prepare, select_bands
from surveyproc.inference.components import mixture_components
from surveyproc.inference.domain import domain_distance
from surveyproc.inference.engine import Engine, check_domain
from surveyproc.inference.settings import EngineSettings
from surveyproc.models.bundle import SHIPPED, open_bundle, shipped_bundles, write_bundle
from surveyproc.votes import VoteSchema

CONFIGS = sorted((config_folder() / "bundle").glob("*.yaml"))
MEGABYTE = 1_000_000


BANDS = {
    "euclid": ("VIS",),
    "legacy": ("g", "r", "i", "z"),
    "lsst": ("u", "g", "r", "i", "z", "y"),
}


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda p: p.stem)
def shipped(request):
    config = yaml.safe_load(request.param.read_text())
    opened = open_bundle(config["uri"])
    assert opened.name == config["name"] == request.param.stem
    assert opened.record["architecture"] == config["architecture"]
    assert opened.record["arguments"] == config["arguments"]
    return opened


@pytest.fixture(scope="module", params=[*(p.stem for p in CONFIGS), *BANDS, "encoder"])
def bundle(request, tmp_path_factory):
    """A shipped bundle; one of one, four or six bands of flux; or an encoder in the hub's layout."""
    folder = tmp_path_factory.mktemp("bundle") / request.param
    if request.param == "encoder":
        torch.manual_seed(0)
        save_for_hf(timm.create_model("test_resnet", num_classes=0), folder)
    elif request.param not in BANDS:
        return open_bundle(request.param)
    else:
        bands = BANDS[request.param]
        opened = open_bundle(str(toy_bundle(folder, bands=bands)))
        contract = InputContract(bands, 16, stretch="none", softening=0.1, mean=(0.5,) * len(bands), std=2.0)
        write_bundle(folder, opened.record | {"input": contract.to_dict()}, opened.tensors)
    return open_bundle(str(folder))


@pytest.fixture(scope="module")
def spec(bundle):
    """A catalog with more bands than the bundle wants, in another order."""
    contract = bundle.contract
    bands = ("extra", *reversed(contract.bands))
    dtype = "float32" if contract.stretch == "none" else "uint8"
    return ImageSpec("raw", (100, 100, len(bands)), dtype, bands=bands, stretch=contract.stretch)


@pytest.fixture(scope="module")
def pixels(bundle, spec):
    random = torch.rand(5, *spec.shape, generator=torch.Generator().manual_seed(0))
    return random if spec.dtype == "float32" else (random * 255).to(torch.uint8)


@pytest.fixture(scope="module")
def images(bundle, spec, pixels):
    return prepare(select_bands(pixels, bundle.contract.band_positions(spec.bands)), bundle.contract)


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
    assert images.shape[1] == bundle.contract.channels
    assert features.shape == (5, model.embedding_size)
    assert torch.isfinite(features).all()
    assert model.embedding_size == bundle.record["outputs"]["embedding_size"]
    assert 0 <= model.dropout < 1
    if model.product is not None:
        assert torch.isfinite(model.head(features)).all()
        assert model.head(features).dtype == torch.float32


@torch.inference_mode()
def test_the_engine_takes_the_bands_by_name(bundle, spec, pixels, images):
    engine = Engine(
        [bundle], EngineSettings(batch_size=5, views=1), spec, pa.schema([("object_id", pa.int64())])
    )
    check_domain([bundle], spec, None)
    columns = pa.record_batch({"object_id": pa.array(range(5), pa.int64())})
    tables = engine(columns, pixels.numpy(), {})
    found = np.stack(tables["embeddings"]["embedding"].to_numpy()).astype(np.float32)
    expected = bundle.build().encode(images).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
    assert ("morphology" in tables) == (bundle.build().product == "morphology")


def test_a_catalog_that_lacks_a_band_is_refused_by_its_name(bundle, spec):
    *_, last = bundle.contract.bands
    others = tuple("another" if band == last else band for band in spec.bands)
    with pytest.raises(InputError, match=f"there is no band {last}: "):
        check_domain([bundle], replace(spec, bands=others), None)


def outputs_of(model, images):
    features = model.encode(images)
    return features if model.product is None else model.head(features)


@torch.inference_mode()
def test_a_cutout_alone_gets_the_values_it_gets_in_a_batch(bundle, images):
    model = bundle.build()
    together = outputs_of(model, images)
    alone = torch.cat([outputs_of(model, images[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone.numpy(), together.numpy(), rtol=2e-4, atol=1e-3)


@torch.inference_mode()
def test_two_builds_give_the_same_bits(bundle, images):
    outputs = [outputs_of(m, images) for m in (bundle.build(), bundle.build())]
    assert torch.equal(*outputs)


@torch.inference_mode()
def test_morphology_fractions_sum_to_1_over_each_question(bundle, images):
    model = bundle.build()
    if model.product != "morphology":
        pytest.skip("no vote fractions")
    schema = VoteSchema.from_dict(bundle.record["outputs"]["vote_schema"])
    concentrations = mixture_components(model, model.encode(images)[None])
    assert concentrations.shape == (len(getattr(model, "heads", [model])), 5, len(schema.columns))
    assert (concentrations > 0).all()
    for s in schema.slices.values():
        a = concentrations[..., s]
        np.testing.assert_allclose((a / a.sum(-1, keepdim=True)).sum(-1).numpy(), 1.0, rtol=1e-6)


@torch.inference_mode()
def test_the_domain_reference_fits_the_embedding(shipped):
    model = shipped.build()
    centroids, quantiles = shipped.tensors["domain.centroids"], shipped.tensors["domain.quantiles"]
    assert centroids.shape[1] == model.embedding_size
    np.testing.assert_allclose(centroids.float().norm(dim=1).numpy(), 1.0, atol=1e-2)
    assert quantiles.shape == (101,)
    assert (quantiles.float().diff() >= 0).all()
    assert float(quantiles[0]) >= 0
    assert float(quantiles[-1]) <= 2


def test_the_record_says_where_the_bundle_comes_from(shipped):
    record = shipped.record
    assert record["metrics"]["split"] == "test"
    assert record["metrics"]["n"] > 0
    assert record["training"]["galaxies"]["train"] > 0
    assert record["cost"]["ms_per_cutout"] > 0
    assert record["licence"]
    assert record["citation"]
    assert record["inference"]["views"] in range(1, 9)
    assert (Path(shipped.uri) / "README.md").exists()
    json.dumps(record)


@torch.inference_mode()
def test_noise_is_further_from_the_training_set_than_most_galaxies(shipped):
    model, contract = shipped.build(), shipped.contract
    noise = torch.rand(5, 100, 100, len(contract.bands), generator=torch.Generator().manual_seed(0))
    images = prepare((noise * 255).to(torch.uint8), contract)
    embedding = torch.stack([model.encode(d4(images, k)) for k in range(8)]).mean(0)
    distances = domain_distance(
        embedding, shipped.tensors["domain.centre"], shipped.tensors["domain.centroids"]
    )
    assert (distances > shipped.tensors["domain.quantiles"][90].float()).all()
