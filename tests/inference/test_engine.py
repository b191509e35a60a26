"""The engine gives an object the same bits whatever is beside it, before it or missing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from drive import bits
from safetensors.torch import load_file
from toys import SPEC, toy_bundle, toy_pixels

from surveyproc.errors import ResourceError, UsageError
from surveyproc.inference.engine import Engine
from surveyproc.inference.passes import group_passes
from surveyproc.inference.products import DomainReference
from surveyproc.inference.settings import EngineSettings, resolve_device, resolve_precision
from surveyproc.models.bundle import open_bundle, write_bundle

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH = 16
KEYS = pa.schema([("object_id", pa.int64())])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(str(toy_bundle(tmp_path_factory.mktemp("bundle") / "toy", views=4, draws=3)))


def engine_of(bundles, precision="fp32", spec=SPEC, **settings) -> Engine:
    bundles = bundles if isinstance(bundles, list) else [bundles]
    return Engine(bundles, EngineSettings(batch_size=BATCH, precision=precision, **settings), spec, KEYS)


def predict(engine: Engine, ids, pixels, failures=None) -> dict[str, pa.Table]:
    return engine(pa.record_batch({"object_id": pa.array(ids, pa.int64())}), pixels, failures or {})


def values(table: pa.Table, ids) -> list:
    """Bits of every column of some objects, in the order of ``ids``."""
    rows = [table["object_id"].to_pylist().index(i) for i in ids]
    table = table.take(rows)
    return [(name, bits(table[name])) for name in table.column_names if name != "_row"]


def assert_same_values(found, expected, ids) -> None:
    for name in ("morphology", "morphology_posterior", "embeddings"):
        assert values(found[name], ids) == values(expected[name], ids), name


@pytest.fixture(scope="module")
def pixels():
    return toy_pixels(BATCH)


def test_values_do_not_depend_on_the_place_in_the_batch(bundle, precision, pixels):
    engine = engine_of(bundle, precision)
    expected = predict(engine, range(BATCH), pixels)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(BATCH)
        found = predict(engine, order, np.ascontiguousarray(pixels[order]))
        assert_same_values(found, expected, range(BATCH))


def test_values_do_not_depend_on_padding(bundle, precision, pixels):
    engine = engine_of(bundle, precision)
    expected = predict(engine, range(BATCH), pixels)
    for rows in (1, 5, BATCH - 1):
        assert_same_values(predict(engine, range(rows), pixels[:rows]), expected, range(rows))


def test_values_do_not_depend_on_the_neighbours(bundle, precision, pixels):
    engine = engine_of(bundle, precision)
    expected = predict(engine, range(BATCH), pixels)
    other = toy_pixels(BATCH, seed=9)
    other[4] = pixels[4]
    found = predict(engine, [*range(100, 104), 4, *range(105, 100 + BATCH)], other)
    assert_same_values(found, expected, [4])


def test_two_engines_and_two_calls_give_the_same_bits(bundle, precision, pixels):
    engine = engine_of(bundle, precision)
    first = predict(engine, range(BATCH), pixels)
    assert_same_values(predict(engine, range(BATCH), pixels), first, range(BATCH))
    assert_same_values(predict(engine_of(bundle, precision), range(BATCH), pixels), first, range(BATCH))


def test_draws_are_keyed_by_object(bundle, pixels):
    engine = engine_of(bundle)
    same = np.repeat(pixels[:1], 2, axis=0)
    found = predict(engine, [1, 2], same)
    assert found["embeddings"]["embedding"][0] == found["embeddings"]["embedding"][1]
    assert (
        found["morphology_posterior"].drop_columns(["_row", "object_id"]).to_pylist()[0]
        != (found["morphology_posterior"].drop_columns(["_row", "object_id"]).to_pylist()[1])
    )


def test_bad_rows_become_rejects_and_their_neighbours_do_not_move(bundle, precision, pixels):
    spec = replace(SPEC, dtype="float32")
    engine = engine_of(bundle, precision, spec)
    good = pixels.astype(np.float32) / 255
    expected = predict(engine, range(BATCH), good)
    bad = good.copy()
    bad[2], bad[5] = np.nan, 0.5
    found = predict(engine, range(BATCH), bad, {9: ("unreadable_image", "cut short")})
    rejects = found["rejects"].drop_columns(["_row", "detail"]).to_pylist()
    assert rejects == [
        {"object_id": 2, "stage": "pixels", "reason": "nan_pixels", "quality": 6},
        {"object_id": 5, "stage": "pixels", "reason": "constant_pixels", "quality": 4},
        {"object_id": 9, "stage": "decode", "reason": "unreadable_image", "quality": 0},
    ]
    kept = [i for i in range(BATCH) if i not in (2, 5, 9)]
    assert found["morphology"]["object_id"].to_pylist() == kept
    assert_same_values(found, expected, kept)


def test_a_model_that_answers_nan_for_one_row_loses_only_that_row(bundle, pixels):
    spec = replace(SPEC, dtype="float32")
    engine = engine_of(bundle, "fp32", spec)
    good = pixels.astype(np.float32) / 255
    expected = predict(engine, range(BATCH), good)
    huge = good.copy()
    huge[3] *= np.float32(3e38)
    found = predict(engine, range(BATCH), huge)
    assert found["rejects"]["reason"].to_pylist() == ["nonfinite_output"]
    assert_same_values(found, expected, [i for i in range(BATCH) if i != 3])


def test_missing_ids_are_rejects(bundle, pixels):
    found = predict(engine_of(bundle), [0, None, 2, None], pixels[:4])
    assert found["rejects"]["reason"].to_pylist() == ["missing_id"] * 2
    assert found["morphology"]["object_id"].to_pylist() == [0, 2]


def test_embeddings_do_not_turn_with_the_image_when_all_views_are_averaged(bundle, precision, pixels):
    engine = engine_of(bundle, precision, views=8)
    turned = {
        "quarter": np.rot90(pixels, 1, (1, 2)),
        "half": np.rot90(pixels, 2, (1, 2)),
        "mirrored": pixels[:, :, ::-1],
        "transposed": pixels.transpose(0, 2, 1, 3),
    }

    def embed(images):
        table = predict(engine, range(BATCH), np.ascontiguousarray(images))["embeddings"]
        return np.stack(table["embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)

    expected = embed(pixels)
    noise = {"fp32": 2e-3, "bf16": 2e-2}[precision] * np.abs(expected).max()
    for name, images in turned.items():
        assert np.abs(embed(images) - expected).max() < noise, name
    one_view = engine_of(bundle, precision, views=1)
    found = predict(one_view, range(BATCH), np.ascontiguousarray(turned["mirrored"]))["embeddings"][
        "embedding"
    ]
    assert found != predict(one_view, range(BATCH), pixels)["embeddings"]["embedding"]


@pytest.fixture(scope="module")
def sibling(bundle, tmp_path_factory):
    """The same encoder with another head."""
    tensors = load_file(f"{bundle.uri}/model.safetensors")
    generator = torch.Generator().manual_seed(5)
    for key in ("classifier.weight", "classifier.bias"):
        tensors[key] = torch.randn(tensors[key].shape, generator=generator)
    record = bundle.record | {"name": "sibling"}
    return write_bundle(tmp_path_factory.mktemp("sibling"), record, tensors)


def test_bundles_that_share_an_encoder_make_one_pass_with_the_values_of_each_alone(bundle, sibling, pixels):
    settings = EngineSettings(batch_size=BATCH)
    assert bundle.encoder_hash == sibling.encoder_hash
    assert len(group_passes([bundle, sibling], settings, SPEC)) == 1
    calls = []
    batch, keys = torch.from_numpy(pixels), np.arange(BATCH, dtype=np.uint64)

    def columns(bundles):
        (one_pass,) = group_passes(bundles, settings, SPEC)
        real = one_pass._encoder.encode
        one_pass._encoder.encode = lambda images: (calls.append(len(images)), real(images))[1]
        with torch.inference_mode():
            return one_pass(batch, keys, np.zeros(BATCH, np.int32), np.ones(BATCH, bool))

    alone = columns([sibling])
    alone_calls = len(calls)
    shared = columns([bundle, sibling])
    assert len(calls) == 2 * alone_calls, "the second head cost another pass"
    for table in ("morphology_posterior", "morphology"):
        for name, found in shared[table].items():
            assert pa.array(found).equals(pa.array(alone[table][name])), name
    assert shared["embeddings"]["embedding"].equals(alone["embeddings"]["embedding"])


def test_another_encoder_contract_or_number_of_views_is_another_pass(bundle, tmp_path):
    tensors = load_file(f"{bundle.uri}/model.safetensors")
    cropped = write_bundle(
        tmp_path / "cropped",
        bundle.record | {"name": "cropped", "input": bundle.record["input"] | {"crop": 0.5}},
        tensors,
    )
    fewer = write_bundle(
        tmp_path / "fewer", bundle.record | {"name": "fewer", "inference": {"views": 2, "draws": 1}}, tensors
    )
    other = open_bundle(str(toy_bundle(tmp_path / "other", name="other", seed=7, views=4)))
    for second in (cropped, fewer, other):
        assert len(group_passes([bundle, second], EngineSettings(), SPEC)) == 2, second.name


def test_a_batch_is_never_larger_than_its_shape(bundle):
    with pytest.raises(ValueError, match="17 rows in a batch of 16"):
        predict(engine_of(bundle), range(17), toy_pixels(17))


def test_views_are_a_subgroup_of_the_square(bundle):
    with pytest.raises(UsageError, match="3 views"):
        engine_of(bundle, views=3)


def test_hardware_that_is_not_there_is_refused_never_replaced():
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="no CUDA"):
            resolve_device("cuda")
        assert resolve_device("auto") == "cpu"
    assert resolve_precision("fp32", "cpu") == "fp32"
    assert resolve_precision("auto", "cpu") in ("fp32", "bf16")


def test_bf16_is_refused_where_the_processor_lacks_it(monkeypatch):
    monkeypatch.setattr("surveyproc.inference.settings._cpu_has_bf16", lambda: False)
    with pytest.raises(ResourceError, match="bf16"):
        resolve_precision("bf16", "cpu")
    assert resolve_precision("auto", "cpu") == "fp32"


def test_domain_distance_is_a_quantile_of_the_reference(bundle, tmp_path):
    size = bundle.record["outputs"]["embedding_size"]
    tensors = load_file(f"{bundle.uri}/model.safetensors")
    centroid = torch.zeros(1, size)
    centroid[0, 0] = 1
    tensors["domain.centre"] = torch.full((size,), 20.0)
    tensors["domain.centroids"] = centroid
    tensors["domain.quantiles"] = torch.linspace(0, 0.5, 101)
    reference = DomainReference(write_bundle(tmp_path / "d", bundle.record, tensors))
    angle = torch.tensor([0.0, np.arccos(0.75), np.arccos(0.5), 3.0])
    embeddings = torch.zeros(4, size)
    embeddings[:, 0], embeddings[:, 1] = 7 * angle.cos(), 7 * angle.sin()
    assert reference.distance(embeddings + 20) == pytest.approx([0, 0.5, 1, 1], abs=2e-3)


def test_the_tables_hold_no_extension_types_and_the_rows_position(bundle, pixels):
    engine = engine_of(bundle)
    columns = pa.record_batch({"object_id": pa.array([7, 8], pa.int64())})
    tables = engine(columns, pixels[:2], {}, first_row=40)
    for name, table in tables.items():
        assert table.schema.equals(engine.schemas[name])
        assert not any(isinstance(f.type, pa.BaseExtensionType) for f in table.schema)
    assert tables["embeddings"]["_row"].to_pylist() == [40, 41]
    assert tables["embeddings"].schema.field("embedding").type.value_type == pa.float16()
    assert json.dumps(engine.provenance)
