"""Somebody's encoder as a bundle: the pixels it wants, and runs that write embeddings only."""

import json
import math

import numpy as np
import pytest
import timm
import torch
from timm.models import save_for_hf
from torchvision.transforms import functional as tv
from toys import SPEC, toy_catalog

from surveyproc.cli.main import main
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError
from surveyproc.images.views import prepare, select_bands
from surveyproc.inference.engine import check_domain
from surveyproc.inference.passes import group_passes
from surveyproc.inference.settings import EngineSettings
from surveyproc.models.bundle import build_architecture, open_bundle
from surveyproc.models.encoders import load_pretrained_into
from surveyproc.runs import open_run

NARROW = {"channels": [8, 8, 16, 16], "stem_width": 8}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def publish(folder, in_chans=3, name="resnet10t", arguments=NARROW, config=None, **cfg):
    """Write an encoder as timm does, with ImageNet's mean and std in its config.json as Zoobot's have."""
    torch.manual_seed(3)
    model = timm.create_model(name, num_classes=0, in_chans=in_chans, **arguments)
    save_for_hf(model, folder, model_args=arguments)
    told = json.loads((folder / "config.json").read_text())
    told["pretrained_cfg"] |= {"mean": IMAGENET[0], "std": IMAGENET[1], "input_size": [3, 96, 96], **cfg}
    (folder / "config.json").write_text(json.dumps(told | (config or {})))
    return str(folder)


@pytest.fixture(scope="module")
def zoobot(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("hub") / "zoobot-encoder-toy")


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(
        0, 256, (2, 424, 424, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@torch.inference_mode()
def features(uri, pixels):
    opened = open_bundle(uri)
    return opened.build().encode(prepare(pixels, opened.contract))


@torch.inference_mode()
def reference(uri, pixels, side, crop, mean, std, **changes):
    """timm's own model, fed by torchvision with the central ``crop`` pixels at ``side``."""
    model = timm.create_model(f"local-dir:{uri}", pretrained=True, num_classes=0, **changes).eval()
    images = tv.resize(
        tv.center_crop(pixels.permute(0, 3, 1, 2) / 255.0, [crop, crop]), [side, side], antialias=True
    )
    if changes.get("in_chans") == 1:
        images = images.mean(1, keepdim=True)
    return model(tv.normalize(images, mean, std))


def test_zoobot_sees_plain_pixels_of_the_centre_whatever_its_config_says(zoobot, pixels):
    found = features(zoobot, pixels)
    crop = 354  # 424 / 1.2 is 353.3; the centre stays where it is
    plain = reference(zoobot, pixels, 224, crop, (0.0,) * 3, (1.0,) * 3)
    np.testing.assert_allclose(found.numpy(), plain.numpy(), rtol=1e-4, atol=1e-5)
    trap = reference(zoobot, pixels, 224, crop, *IMAGENET)
    assert (found - trap).norm() > 0.1 * found.norm()
    note = open_bundle(zoobot).record["note"]
    assert "plain [0, 1] pixels" in note
    assert "config.json" in note


def test_a_greyscale_zoobot_sees_the_mean_of_the_bands(tmp_path, pixels):
    uri = publish(tmp_path / "zoobot-encoder-greyscale-toy", in_chans=1)
    assert json.loads((tmp_path / "zoobot-encoder-greyscale-toy/config.json").read_text())["pretrained_cfg"][
        "input_size"
    ] == [3, 96, 96]
    assert open_bundle(uri).contract.greyscale
    # timm believes the 3 channels of the card, so that its weights are loaded by hand
    model = timm.create_model("resnet10t", num_classes=0, in_chans=1, **NARROW).eval()
    load_pretrained_into(model, uri)
    grey = tv.center_crop(pixels.permute(0, 3, 1, 2) / 255.0, [354, 354]).mean(1, keepdim=True)
    with torch.inference_mode():
        plain = model(tv.resize(grey, [224, 224], antialias=True))
    np.testing.assert_allclose(features(uri, pixels).numpy(), plain.numpy(), rtol=1e-4, atol=1e-5)


def test_other_encoders_see_what_their_config_says(tmp_path, pixels):
    uri = publish(tmp_path / "small", crop_pct=0.5)
    expected = reference(uri, pixels, 96, 212, *IMAGENET)
    np.testing.assert_allclose(features(uri, pixels).numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_the_config_can_state_the_input(tmp_path):
    bands = ["u", "g", "r", "i", "z", "y"]
    own = {"bands": bands, "stretch": "none", "size": 32, "softening": 0.1, "mean": 0, "std": 1}
    uri = publish(tmp_path / "lsst", in_chans=6, config={"surveyproc": {"input": own}})
    contract = open_bundle(uri).contract
    assert contract.bands == tuple(bands)
    assert (contract.size, contract.stretch, contract.mean) == (32, "none", 0)
    assert open_bundle(uri).record["note"].endswith("by its surveyproc.input")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (None, "does not say which bands"),
        ({"band": ["VIS"]}, "Did you mean 'bands'"),
        ({"bands": ["u", "g", "r", "i"], "mean": [0, 1]}, "2 values for 4 channels"),
    ],
)
def test_an_input_that_cannot_be_known_is_refused(tmp_path, own, message):
    uri = publish(tmp_path / "four", in_chans=4, config={"surveyproc": {"input": own}} if own else {})
    with pytest.raises(InputError, match=message):
        open_bundle(uri)


def test_a_size_that_the_encoder_does_not_take_is_refused(tmp_path):
    small = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    config = {"surveyproc": {"input": {"size": 100}}}
    uri = publish(tmp_path / "vit", name="vit_tiny_patch16_224", arguments=small, config=config)
    with pytest.raises(InputError, match="does not take images of 100 px"):
        open_bundle(uri)


def test_weights_that_are_not_those_of_the_config_are_refused(tmp_path):
    uri = publish(tmp_path / "zoobot-wrong")
    config = json.loads((tmp_path / "zoobot-wrong/config.json").read_text())
    config["model_args"] = {"channels": [8, 8, 16, 32], "stem_width": 8}
    (tmp_path / "zoobot-wrong/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="do not fit the encoder"):
        open_bundle(uri)


def test_bundles_of_the_same_weights_and_other_arguments_share_no_pass(tmp_path):
    plain, sharp = publish(tmp_path / "zoobot-a"), publish(tmp_path / "zoobot-b")
    config = json.loads((tmp_path / "zoobot-b/config.json").read_text())
    config["model_args"]["global_pool"] = "max"
    (tmp_path / "zoobot-b/config.json").write_text(json.dumps(config))
    a, b = open_bundle(plain), open_bundle(sharp)
    assert a.sha256 == b.sha256
    assert len(group_passes([a, b], EngineSettings(), SPEC)) == 2
    assert len(group_passes([a, open_bundle(plain)], EngineSettings(), SPEC)) == 1


def spec(*bands, stretch="display"):
    return ImageSpec("raw", (16, 16, len(bands)), "uint8", bands=bands, stretch=stretch)


def test_bands_are_found_by_name_and_missing_ones_are_named(zoobot):
    opened = open_bundle(zoobot)
    more = spec("UV", "B", "G", "R")
    check_domain([opened], more, None)
    positions = opened.contract.band_positions(more.bands)
    assert positions == [3, 2, 1]
    pixels = torch.arange(4).repeat(1, 1, 1, 1)
    assert select_bands(pixels, positions).tolist() == [[[[3, 2, 1]]]]
    with pytest.raises(InputError, match="there is no band G, B: bands are R, X"):
        check_domain([opened], spec("R", "X"), None)
    with pytest.raises(InputError, match="no band G, B, which the bundle needs"):
        group_passes([opened], EngineSettings(), spec("R", "X"))
    assert opened.contract.band_positions(("i", "r", "g")) == [0, 1, 2]


def test_a_greyscale_encoder_takes_one_band_as_it_is(tmp_path):
    opened = open_bundle(publish(tmp_path / "zoobot-grey", in_chans=1))
    check_domain([opened], spec("L"), None)
    pixels = torch.randint(0, 256, (1, 30, 30, 1), dtype=torch.uint8)
    one = prepare(select_bands(pixels, opened.contract.band_positions(("L",))), opened.contract)
    torch.testing.assert_close(one, prepare(pixels.expand(-1, -1, -1, 3), opened.contract))


def test_an_encoder_has_no_head_to_run_or_build():
    model = build_architecture("encoder", {"encoder": "resnet10t", "encoder_arguments": NARROW})
    assert model.product is None
    assert not hasattr(model, "head")


def test_a_run_of_an_encoder_writes_embeddings_only(zoobot, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy_catalog(tmp_path / "toy.cat", rows=12)
    where = ["--input", "toy.cat", "--output", "out.run", "--bundle", zoobot]
    assert main(["plan", *where]) == 0
    assert main(["run", *where, "cluster=none", "engine.precision=fp32"]) == 0
    out = capsys.readouterr()
    assert "a Zoobot encoder: plain [0, 1] pixels" in out.err
    assert "SELECT * FROM embeddings" in out.out
    opened = open_run("out.run")
    assert sorted(opened.tables) == ["embeddings", "rejects"]
    table = opened.table("embeddings")
    found = np.stack(table["embedding"].to_numpy())
    from toys import toy_pixels

    rows = [i - 1000 for i in table["object_id"].to_pylist()]
    expected = features(zoobot, torch.from_numpy(toy_pixels(12)[rows]))
    np.testing.assert_allclose(found.astype(np.float32), expected.numpy(), rtol=2e-3, atol=1e-4)
    assert math.isclose(opened.manifest["tables"]["embeddings"]["rows"], 12)
    for command in (["status", "out.run"], ["verify", "out.run"], ["report", "out.run"]):
        assert main(command) == 0
    assert main(["similar", "out.run", "--id", "1003", "-k", "3"]) == 0
    assert main(["run", *where, "cluster=none", "engine.precision=fp32"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    names = [
        f"Class{q}.{a + 1}" for q, n in zip(range(1, 12), (3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6)) for a in range(n)
    ]
    labels = {"object_id": 1003} | dict.fromkeys(names, 0.0)
    labels |= dict.fromkeys(["Class1.1", "Class6.2", "Class7.1"], 1.0)
    lines = [",".join(map(str, labels)), ",".join(map(str, labels.values()))]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    assert main(["evaluate", "morphology", "--run", "out.run", "--labels", "labels.csv"]) == 3
    assert "morphology_posterior" in capsys.readouterr().err


def test_carried_columns_go_with_the_embeddings(zoobot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import pyarrow as pa
    from toys import toy_pixels

    from surveyproc.catalog import CatalogWriter

    columns = {"object_id": pa.array([1, 2]), "z": pa.array([0.1, 0.2])}
    schema = pa.schema([(k, v.type) for k, v in columns.items()])
    with CatalogWriter(tmp_path / "z.cat", SPEC, schema) as writer:
        writer.write_pixels(toy_pixels(2), columns)
    where = ["--input", "z.cat", "--output", "out.run", "--bundle", zoobot]
    assert main(["run", *where, "cluster=none", "output.carry=[z]"]) == 0
    assert open_run("out.run").table("embeddings", ["z"])["z"].to_pylist() == [0.1, 0.2]
