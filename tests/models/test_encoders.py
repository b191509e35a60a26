"""Any timm encoder, other people's weights in it, and first layers for other bands."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import adapt_input_conv, save_for_hf
from torch import nn

from surveyproc.errors import InputError, UsageError
from surveyproc.models.bundle import build_architecture, open_bundle
from surveyproc.models.encoders import build_encoder, load_pretrained_into, pretrained
from surveyproc.models.first_layer import adapt_first_layer

NARROW = {"channels": [8, 8, 16, 16], "stem_width": 8}
ARGUMENTS = {"encoder": "resnet10t", "encoder_arguments": NARROW, "answers": [3, 2]}


def seeded(seed: int, in_chans: int = 3, **changes) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model("resnet10t", in_chans=in_chans, **NARROW | {"num_classes": 0} | changes).eval()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder in the hub's layout, with a classifier of ten classes."""
    folder = tmp_path_factory.mktemp("hub") / "published"
    save_for_hf(seeded(1, num_classes=10), folder, model_args=NARROW)
    return folder


def trunk_of_published() -> nn.Module:
    model = seeded(1, num_classes=10)
    model.reset_classifier(0)
    return model


def morphology(**changes) -> nn.Module:
    torch.manual_seed(5)
    return build_architecture("morphology", ARGUMENTS | changes).eval()


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'resnet18'"):
        build_encoder("resnet_18")


@pytest.mark.parametrize("arguments", [{"colour": 1}, {"block": "BasicBlock"}, {"in_chans": 3}])
def test_a_wrong_argument_is_explained(arguments):
    with pytest.raises(
        UsageError, match=f"timm cannot build resnet10t with 3 channels.*{next(iter(arguments))}"
    ):
        build_encoder("resnet10t", 3, arguments)


@torch.inference_mode()
def test_weights_go_into_the_encoder_and_the_classifier_stays_out(published):
    module = morphology()
    head = {k: v.clone() for k, v in module.state_dict().items() if not k.startswith("encoder.")}
    record = load_pretrained_into(module, str(published))
    images = torch.rand(2, 3, 32, 32)
    reference = timm.create_model(f"local-dir:{published}", pretrained=True, num_classes=0).eval()
    assert torch.equal(module.encode(images), reference(images))
    assert all(torch.equal(module.state_dict()[k], v) for k, v in head.items())
    assert record["encoder"] == "resnet10t"
    assert record["origin"] == str(published)
    assert record["first_layer"] == "as in the file"


def test_a_single_file_needs_the_name_that_the_model_has(published, tmp_path):
    file = tmp_path / "plain.safetensors"
    save_file(seeded(2).state_dict(), file)
    module = seeded(3)
    load_pretrained_into(module, str(file))
    assert torch.equal(module.conv1[0].weight, seeded(2).conv1[0].weight)
    with pytest.raises(InputError, match="which encoder"):
        pretrained(str(file))


def test_a_bundle_is_a_source_too():
    module = build_architecture(
        "morphology",
        {"encoder": "resnet18", "encoder_arguments": {"channels": [48, 96, 192, 384]}, "answers": [2]},
    )
    assert load_pretrained_into(module, "gz2-fast")["origin"].endswith("gz2-fast")
    expected = open_bundle("gz2-fast").tensors["encoder.conv1.weight"].float()
    assert torch.equal(module.encoder.conv1.weight, expected)


def test_of_an_ensemble_the_member_of_that_name_is_taken():
    arguments = {"encoder": "tf_efficientnet_lite0", "answers": [2]}
    module = build_architecture("morphology", arguments)
    load_pretrained_into(module, "gz2")
    expected = open_bundle("gz2").tensors["encoder.members.0.encoder.conv_stem.weight"].float()
    assert torch.equal(module.encoder.conv_stem.weight, expected)
    with pytest.raises(InputError, match=r"of tf_efficientnet_lite0, the encoder is resnet18"):
        load_pretrained_into(build_architecture("morphology", {"encoder": "resnet18", "answers": [2]}), "gz2")


def test_weights_of_the_first_convnext_code_come_under_their_present_names(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("test_convnext", num_classes=0)
    words = {
        "conv_dw": "dwconv",
        "mlp.fc1": "pwconv1",
        "mlp.fc2": "pwconv2",
        ".blocks.": ".",
        "head.norm": "norm",
    }
    old = {}
    for key, value in model.state_dict().items():
        for new, before in words.items():
            key = key.replace(new, before)
        key = key.replace("stem.", "downsample_layers.0.")
        if ".downsample." in key:
            stage, _, rest = key.removeprefix("stages.").partition(".downsample.")
            key = f"downsample_layers.{stage}.{rest}"
        old[key] = value
    assert old.keys() != model.state_dict().keys()
    save_file(old, tmp_path / "old.safetensors")
    fresh = timm.create_model("test_convnext", num_classes=0)
    load_pretrained_into(fresh, str(tmp_path / "old.safetensors"))
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in fresh.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), "missing tensor layer1.0.conv1.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected tensor extra"),
        (
            lambda s: s.update({"layer4.0.conv1.weight": torch.zeros(9, 16, 3, 3)}),
            r"layer4.0.conv1.weight is \(9, 16, 3, 3\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_loaded(change, message, tmp_path):
    state = dict(seeded(2).state_dict())
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    module = seeded(3)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(InputError, match=message):
        load_pretrained_into(module, str(tmp_path / "w.safetensors"))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_all_misfits_are_counted(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"and \d+ more"):
        load_pretrained_into(seeded(3), str(tmp_path / "w.safetensors"))


def test_weights_of_another_encoder_are_refused(published):
    with pytest.raises(InputError, match="the weights are of resnet10t, the encoder is test_resnet"):
        load_pretrained_into(timm.create_model("test_resnet", num_classes=0), str(published))


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 6])
@torch.inference_mode()
def test_an_image_equal_in_all_bands_gives_the_features_it_gave_in_three(published, bands):
    module = morphology(in_chans=bands)
    record = load_pretrained_into(module, str(published))
    assert record["first_layer"] == ("as in the file" if bands == 3 else "adapted")
    assert record["in_chans"] == 3
    grey = torch.rand(4, 1, 32, 32)
    expected = trunk_of_published()(grey.expand(-1, 3, -1, -1))
    found = module.encode(grey.expand(-1, bands, -1, -1))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bands", [1, 6])
def test_one_band_and_multiples_of_three_are_adapted_as_timm_does(bands):
    state, key = seeded(1).state_dict(), "conv1.0.weight"
    adapted = adapt_first_layer(state, seeded(2, in_chans=bands), bands)
    torch.testing.assert_close(adapted[key], adapt_input_conv(bands, state[key]))
    assert all(torch.equal(adapted[k], v) for k, v in state.items() if k != key)


@pytest.mark.parametrize("bands", [1, 4, 6])
def test_a_stem_that_folds_pixels_into_channels_keeps_its_response_to_grey(bands):
    class Folded(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.pretrained_cfg = {"first_conv": "stem"}
            self.stem = nn.Conv2d(16 * channels, 5, 3, bias=False)

    state = Folded(3).state_dict()
    adapted = adapt_first_layer(state, Folded(bands), bands)["stem.weight"]
    expected = state["stem.weight"].reshape(5, 16, 3, 3, 3).sum(2)
    torch.testing.assert_close(adapted.reshape(5, 16, bands, 3, 3).sum(2), expected)


def test_a_fresh_first_layer_keeps_its_own_weights(published):
    module = morphology(in_chans=6)
    before = module.encoder.conv1[0].weight.clone()
    record = load_pretrained_into(module, str(published), first_layer="fresh")
    assert record["first_layer"] == "fresh"
    assert torch.equal(module.encoder.conv1[0].weight, before)
    assert torch.equal(module.encoder.layer1[0].conv1.weight, trunk_of_published().layer1[0].conv1.weight)


def test_a_first_layer_in_an_unknown_way_is_refused(published):
    with pytest.raises(UsageError, match="Did you mean 'adapt'"):
        load_pretrained_into(morphology(), str(published), first_layer="adopt")


def test_a_first_layer_that_timm_does_not_name_is_not_called_fresh(tmp_path):
    plain = {"stem_type": "", "stem_width": 64}
    model = timm.create_model("resnet10t", num_classes=0, **NARROW | plain)
    assert "conv1.weight" in model.state_dict()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="which layer of this resnet10t comes first"):
        load_pretrained_into(model, str(tmp_path / "w.safetensors"), first_layer="fresh")
