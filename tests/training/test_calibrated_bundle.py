"""A bundle is calibrated on galaxies that trained nothing, as the engine will predict, and its card says so."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from toys import SIZE, toy_bundle, toy_catalog

from surveyproc.catalog import open_catalog, read_batches
from surveyproc.cutouts import InputContract
from surveyproc.identifiers import hash_ids, splitmix64
from surveyproc.images.decode import decode_batch
from surveyproc.images.views import prepare
from surveyproc.inference.calibration import coverage
from surveyproc.inference.engine import Engine
from surveyproc.inference.settings import EngineSettings
from surveyproc.models.bundle import build_architecture, open_bundle
from surveyproc.training.bundle import write_morphology_bundle
from surveyproc.training.card import card
from surveyproc.training.examples import Examples
from surveyproc.training.judge import predict_components
from surveyproc.training.loop import Recipe, model_arguments
from surveyproc.training.predict import predict
from surveyproc.votes import Question, VoteSchema

SCHEMA = VoteSchema("t", (Question("a", ("x", "y")), Question("b", ("p", "q", "r"), ("a_x",))))
RECIPE = Recipe(
    encoder="resnet10t", encoder_arguments={"channels": [8, 8, 16, 16], "stem_width": 8}, dropout=0.3
)
ROWS = {"train": 30, "validation": 60, "calibration": 60, "test": 80}
LOG = {"images_seen": 1, "seconds": 1, "recipe": {"seed": 1}}


def examples(counted):
    """Votes that have nothing to do with the pixels, spread as a Dirichlet of 4: an untrained model is too sure."""
    rng = np.random.default_rng(0)
    found = {}
    for split, rows in ROWS.items():
        shape = (rows, 24, 24, 3) if split == "train" else (rows, 3, SIZE, SIZE)
        pixels = rng.integers(0, 255, shape).astype(np.uint8 if split == "train" else np.float32) // 50
        fractions = np.concatenate(
            [rng.dirichlet(np.full(len(q.answers), 2.0), rows) for q in SCHEMA.questions], axis=1
        )
        if split in ("calibration", "validation"):  # b is asked of few: it must take the scale of all
            fractions[10:, 0] *= 0.12
            fractions[10:, 1] = 1 - fractions[10:, 0]
        joint = SCHEMA.joint(fractions)
        counts = torch.from_numpy(np.round(joint * 40)).float() if counted else None
        keys = splitmix64(np.arange(rows, dtype=np.uint64))
        found[split] = Examples(pixels, torch.from_numpy(joint).float(), counts=counts, keys=keys)
    return found


def write(path, data):
    torch.manual_seed(0)
    contract = InputContract(bands=("R", "G", "B"), size=SIZE)
    model = build_architecture("morphology", model_arguments(RECIPE, SCHEMA, contract)).eval()
    return write_morphology_bundle(
        path, model, data, SCHEMA, contract, RECIPE, LOG, views=2, draws=2, data="noise", citation=["none"]
    )


def test_the_scale_comes_from_calibration_and_validation_and_holds_there(tmp_path):
    data = examples(counted=True)
    bundle = write(tmp_path / "mine", data)
    fitted = bundle.record["calibration"]
    assert fitted["votes"] == "counts"
    assert fitted["questions"]["a"]["galaxies"] == 120
    assert fitted["questions"]["b"]["galaxies"] < 30
    assert "too few galaxies" in fitted["questions"]["b"]["note"]
    scales = np.array([fitted["questions"][q]["scale"] for q in "ab"])
    stored = bundle.tensors["concentration_scale"].float().numpy()
    assert stored == pytest.approx(scales[SCHEMA.question_of], rel=2e-3)
    # Read back what was stored and measure again, on exactly those two splits.
    model, found = bundle.build(), []
    for split in ("calibration", "validation"):
        found.append(predict_components(model, data[split].pixels, data[split].keys, SCHEMA, 2, 2)[0])
    votes = np.concatenate([data[s].counts.numpy() for s in ("calibration", "validation")])
    keys = np.concatenate([data[s].keys for s in ("calibration", "validation")])
    again = coverage(np.concatenate(found, axis=1), votes, SCHEMA, keys)["questions"]["a"]["coverage"]
    assert again == pytest.approx(0.9, abs=3e-3)
    assert again == pytest.approx(fitted["questions"]["a"]["coverage"], abs=3e-3)
    assert fitted["questions"]["a"]["coverage_raw"] < again - 0.02


def test_the_record_and_the_card_judge_test_ids_only(tmp_path):
    bundle = write(tmp_path / "mine", examples(counted=False))
    metrics, card = bundle.record["metrics"], (tmp_path / "mine" / "README.md").read_text()
    assert metrics["n"] == metrics["questions"]["a"]["n"] == ROWS["test"]
    assert metrics["coverage"]["calibrated"]["pooled"]["galaxies"] == ROWS["test"]
    assert metrics["coverage"]["raw"]["questions"]["a"] != metrics["coverage"]["calibrated"]["questions"]["a"]
    assert metrics["questions"]["a"]["rmse"] == metrics["rmse_by_question"]["a"]
    assert "Votes are pseudo-counts: the labels are fractions; round(44 x proportion asked)" in card
    assert f"| a | {bundle.record['calibration']['questions']['a']['scale']:.3f} | 120 |" in card
    assert "`b`: too few galaxies" in card


def test_the_card_of_a_network_without_a_timm_trunk_and_of_borrowed_weights(tmp_path):
    record = write(tmp_path / "mine", examples(counted=True)).record
    assert "encoder `resnet10t`" in card(record)
    assert "fresh weights" in card(record)
    record["arguments"] = {"answers": [2, 3], "head": "fractions"}
    record["training"]["weights"] = {"origin": "somebody", "sha256": "abc"}
    text = card(record)
    assert "its own trunk, head `fractions`" in text
    assert "| started from | origin somebody, sha256 abc |" in text


def test_components_are_those_of_the_engine(tmp_path):
    catalog = open_catalog(str(toy_catalog(tmp_path / "c", rows=12, group_rows=12)))
    bundle = open_bundle(str(toy_bundle(tmp_path / "toy", draws=3)))
    engine = Engine(
        [bundle], EngineSettings(batch_size=16), catalog.image, pa.schema([("object_id", pa.int64())])
    )
    batch = next(iter(read_batches(catalog.uri, catalog.files[0].path, [0], 12, ["object_id", "image"])))
    pixels, _ = decode_batch(batch["image"], catalog.image)
    table = engine(batch, pixels, {})["morphology_posterior"]
    prepared = prepare(torch.from_numpy(np.array(pixels)), bundle.contract).numpy()
    schema, keys = VoteSchema.from_dict(bundle.record["outputs"]["vote_schema"]), hash_ids(batch["object_id"])
    components, joint = predict_components(bundle.build(), prepared, keys, schema, 2, 3, batch=5)
    assert components.shape == (6, 12, 17)
    assert np.allclose(joint, predict(bundle.build(), prepared, schema, 2).numpy(), atol=1e-6)
    rows = np.array([1, 4, 5, 11])
    some, all_joint = predict_components(bundle.build(), prepared, keys, schema, 2, 3, rows, batch=5)
    assert np.array_equal(some, components[:, rows])
    assert np.array_equal(all_joint, joint)
    means = components[..., :3] / components[..., :3].sum(-1, keepdims=True)
    assert means.std(0).max() > 1e-3
    for k, answer in enumerate(("smooth", "featured-or-disk", "artifact")):
        said = table[f"smooth-or-featured_{answer}_mean"].to_numpy()
        assert said == pytest.approx(means.mean(0)[:, k], abs=1e-5)
