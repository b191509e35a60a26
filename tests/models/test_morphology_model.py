import pytest
import torch

from surveyproc.errors import InputError
from surveyproc.models.bundle import build_architecture

ARGUMENTS = {
    "encoder": "resnet18",
    "encoder_arguments": {"channels": [8, 8, 16, 16]},
    "answers": [3, 2],
    "dropout": 0.5,
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_architecture("morphology", ARGUMENTS)


def test_concentrations_lie_between_1_and_101(model):
    with torch.no_grad():
        for scale in (0.0, 1.0, 1e4):
            a = model.head(scale * torch.randn(64, 16))
            assert a.shape == (64, 5)
            assert a.min() >= 1
            assert a.max() <= 101


def test_zero_weights_say_that_nothing_is_known_beyond_the_middle(model):
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    assert torch.equal(model.head(torch.randn(2, 16)), torch.full((2, 5), 51.0))


def test_the_head_answers_in_float32_whatever_surrounds_it(model):
    features = torch.randn(4, 16)
    expected = model.head(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.head(features), expected)
        assert model.head(features.bfloat16()).dtype == torch.float32


def test_the_head_drops_nothing_even_while_training(model):
    features = torch.randn(4, 16)
    assert torch.equal(model.train().head(features), model.eval().head(features))


@pytest.mark.parametrize(("head", "total"), [("fractions", 20.0), ("classes", 20.0)])
def test_a_head_of_fractions_has_a_fixed_total(head, total):
    torch.manual_seed(0)
    model = build_architecture("morphology", ARGUMENTS | {"head": head})
    with torch.no_grad():
        a = model.head(torch.randn(9, 16))
    for question in (slice(0, 3), slice(3, 5)):
        assert torch.allclose(a[:, question].sum(1), torch.full((9,), total))


@pytest.mark.parametrize("head", ["dirichlet", "fractions", "classes"])
def test_calibration_moves_the_certainty_and_no_fraction(head):
    torch.manual_seed(0)
    model = build_architecture("morphology", ARGUMENTS | {"head": head})
    features = torch.randn(9, 16)
    scale = torch.tensor([0.5, 0.5, 0.5, 3.0, 3.0])
    with torch.no_grad():
        before = model.head(features)
        model.concentration_scale *= scale
        after = model.head(features)
    assert torch.allclose(after, before * scale)
    for question in (slice(0, 3), slice(3, 5)):
        old, new = (a[:, question] / a[:, question].sum(1, keepdim=True) for a in (before, after))
        assert torch.allclose(old, new)


def test_the_scale_is_a_tensor_of_the_bundle_and_nothing_trains_it(model):
    assert model.state_dict()["concentration_scale"].shape == (5,)
    assert "concentration_scale" not in dict(model.named_parameters())


def test_an_unknown_head_is_refused():
    with pytest.raises(InputError, match="unknown head 'softmax'"):
        build_architecture("morphology", ARGUMENTS | {"head": "softmax"})


def test_an_unknown_architecture_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'morphology'"):
        build_architecture("morfology", ARGUMENTS)
