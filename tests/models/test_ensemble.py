"""An ensemble is the mixture of its members: each sees its own input, none changes what another says."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from toys import SIZE, toy_bundle

from surveyproc.cutouts import ImageSpec, InputContract
from surveyproc.errors import InputError
from surveyproc.images.views import d4, prepare
from surveyproc.inference.components import mixture_components
from surveyproc.inference.engine import Engine
from surveyproc.inference.settings import EngineSettings
from surveyproc.inference.symmetries import encode_views
from surveyproc.models.bundle import open_bundle, write_bundle
from surveyproc.models.ensemble import build
from surveyproc.training.ensemble import combine, shared_contract, write_ensemble
from surveyproc.training.examples import Examples
from surveyproc.training.predict import predict
from surveyproc.votes import VoteSchema

ROWS, PX = 6, 2 * SIZE
RNG = np.random.default_rng(2)
CONTRACT = InputContract(("R", "G", "B"), SIZE)


@pytest.fixture
def members(tmp_path, one_thread):
    return [open_bundle(str(toy_bundle(tmp_path / name, name, seed))) for seed, name in enumerate("ab")]


@pytest.fixture
def pixels():
    return np.random.default_rng(1).integers(0, 255, (ROWS, PX, PX, 3)).astype(np.uint8)


def with_input(bundle, folder, **changes):
    contract = replace(bundle.contract, **changes)
    return write_bundle(folder, bundle.record | {"input": contract.to_dict()}, bundle.tensors)


def examples_of(pixels, contract, schema):
    rng = np.random.default_rng(0)
    fractions = [rng.dirichlet(np.ones(len(q.answers)), len(pixels)) for q in schema.questions]
    joint = torch.from_numpy(schema.joint(np.concatenate(fractions, axis=1))).float()
    prepared = prepare(torch.from_numpy(pixels), contract).numpy()
    return Examples(prepared, joint, keys=np.arange(len(pixels), dtype=np.uint64))


def means_of(bundle, pixels):
    settings = EngineSettings(ROWS, "cpu", "fp32", 1, views=2, draws=1)
    spec = ImageSpec("raw", pixels.shape[1:], "uint8")
    engine = Engine([bundle], settings, spec, pa.schema([("object_id", pa.int64())]))
    table = engine(pa.table({"object_id": pa.array(range(ROWS))}), pixels, {})["morphology_posterior"]
    names = [name for name in table.column_names if name.endswith("_mean")]
    return np.stack([table[name].to_numpy() for name in names], axis=1)


def test_the_engine_gives_the_mean_of_what_members_that_see_the_same_say(tmp_path, members, pixels):
    schema = VoteSchema.from_dict(members[0].record["outputs"]["vote_schema"])
    contract = shared_contract(members, oversample=1.0)
    assert contract == CONTRACT
    data = {split: examples_of(pixels, contract, schema) for split in ("validation", "calibration", "test")}
    canvases = Examples(pixels, data["test"].joint, keys=data["test"].keys)
    for member in members:
        member.record.update(licence="none", citation=["one", member.name], training=TRAINED)
    both = write_ensemble(tmp_path / "both", members, contract, data | {"train": canvases}, schema, views=2)
    apart = [means_of(member, pixels) for member in members]
    assert np.abs(apart[0] - apart[1]).max() > 0.01
    np.testing.assert_allclose(means_of(both, pixels), np.mean(apart, axis=0), atol=2e-6)
    assert both.record["citation"] == ["one", "a", "b"]
    card = (tmp_path / "both" / "README.md").read_text()
    assert all(member.sha256[:12] in card for member in members)


TRAINED = {
    "data": "noise",
    "split": "none",
    "galaxies": {"train": 1, "test": 1},
    "images_seen": 7,
    "seconds": 1,
    "recipe": {"seed": 3},
    "versions": {},
}


def test_every_view_draw_and_member_is_a_component_of_its_own(members):
    ensemble, _ = combine(members, CONTRACT, Examples(RNG.random((9, 3, SIZE, SIZE), np.float32), None))
    ensemble.dropout = 0.5
    features = torch.randn(3, ROWS, ensemble.embedding_size)
    keys = np.arange(ROWS, dtype=np.uint64)
    found = mixture_components(ensemble, features, keys, draws=4)
    assert found.shape == (3 * 4 * 2, ROWS, sum(ensemble.answers))
    assert len(torch.unique(found[:, 0, 0])) == 3 * 4 * 2
    whole = mixture_components(ensemble, features)
    for view in range(3):
        for member in range(2):
            expected = ensemble.head(features[view])[:, member]
            torch.testing.assert_close(whole[2 * view + member], expected, rtol=1e-6, atol=1e-6)


def test_gains_bring_members_to_one_spread_and_change_no_prediction(tmp_path, members, pixels):
    schema = VoteSchema.from_dict(members[0].record["outputs"]["vote_schema"])
    quiet = dict(members[1].tensors)
    for name in [n for n in quiet if n.endswith("bn2.weight") or n.endswith("bn2.bias")]:
        quiet[name] = quiet[name] / 64
    members[1] = write_bundle(tmp_path / "quiet", members[1].record, quiet)
    data = examples_of(pixels, CONTRACT, schema)
    ensemble, arguments = combine(members, CONTRACT, data)
    gains = [member["input"]["gain"] for member in arguments["members"]]
    assert all(np.log2(gain) == round(np.log2(gain)) for gain in gains)
    size = members[0].record["outputs"]["embedding_size"]
    spread = ensemble.encode(torch.from_numpy(data.pixels)).detach().var(0)
    assert 0.25 <= float(spread[:size].mean() / spread[size:].mean()) <= 4
    plain = build([m | {"input": m["input"] | {"gain": 1.0}} for m in arguments["members"]])
    plain.load_state_dict(ensemble.state_dict())
    said = [predict(model.eval(), data.pixels, schema, views=2) for model in (ensemble, plain)]
    torch.testing.assert_close(said[0], said[1], rtol=0, atol=1e-6)


def test_members_with_other_crops_and_sizes_see_their_own_part(tmp_path, members, pixels):
    near = with_input(members[0], tmp_path / "near", crop=0.5, mean=0.2, std=0.5)
    far = with_input(members[1], tmp_path / "far", size=24, mean=0.1, std=0.3)
    contract = shared_contract([near, far], oversample=1.0)
    assert (contract.crop, contract.size, contract.mean, contract.std) == (1.0, PX, 0.0, 1.0)
    batch = torch.from_numpy(pixels)
    shared = prepare(batch, contract)
    ensemble, _ = combine([near, far], contract, Examples(shared.numpy(), None))
    for member, bundle in zip(ensemble.encoder.members, (near, far)):
        torch.testing.assert_close(member.see(shared), prepare(batch, bundle.contract), rtol=1e-4, atol=1e-4)


def test_turning_the_image_only_permutes_the_views(tmp_path, members, pixels):
    near = with_input(members[0], tmp_path / "near", crop=0.5)
    contract = shared_contract([near, members[1]])
    shared = prepare(torch.from_numpy(pixels), contract)
    ensemble, _ = combine([near, members[1]], contract, Examples(shared.numpy(), None))
    with torch.inference_mode():
        upright, turned = (encode_views(ensemble, x, 8).mean(0) for x in (shared, d4(shared, 5)))
    torch.testing.assert_close(upright, turned, rtol=1e-4, atol=1e-4)


def test_bundles_of_other_bands_trees_or_dropout_are_refused_by_name(tmp_path, members):
    grey = with_input(members[1], tmp_path / "grey", greyscale=True)
    with pytest.raises(InputError, match="differ in greyscale"):
        shared_contract([members[0], grey])
    other = members[1].record["outputs"]["vote_schema"] | {"name": "other"}
    members[1].record["outputs"] = members[1].record["outputs"] | {"vote_schema": other}
    with pytest.raises(InputError, match="differ in vote_schema"):
        shared_contract(members)
    wet = dict(members[0].record["arguments"], dropout=0.4)
    shared = {"size": SIZE, "crop": 1.0, "mean": 0.0, "std": 1.0, "gain": 1.0}
    entries = [
        {"architecture": "morphology", "arguments": a, "input": shared}
        for a in (wet, members[1].record["arguments"])
    ]
    with pytest.raises(InputError, match=r"differ in dropout: 0.4, 0.2"):
        build(entries)
