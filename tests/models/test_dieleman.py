"""The geometry of the sixteen parts, and the network on them."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from surveyproc.errors import InputError
from surveyproc.images.views import d4
from surveyproc.inference.symmetries import encode_views
from surveyproc.models.bundle import build_architecture
from surveyproc.models.dieleman import factor, make_parts, make_views, part_orders, smallest_input

VIEW, PART = 21, 14
SIDE = smallest_input(VIEW)
ANSWERS = [3, 2]
SMALL = {"answers": ANSWERS, "encoder": "test_resnet", "width": 8, "view": VIEW, "part": PART}


def noise(count=2, side=SIDE, smooth=0.0):
    images = np.random.default_rng(0).random((count, 3, side, side), dtype=np.float32)
    return torch.from_numpy(ndimage.gaussian_filter(images, (0, 0, smooth, smooth)) if smooth else images)


def parts_of(images):
    return make_parts(images, VIEW, PART).unflatten(0, (16, len(images)))


def matches(one, other, tolerance=2e-5):
    """For each part of one the parts of the other with the same pixels."""
    return [[j for j in range(16) if (one[i] - other[j]).abs().max() < tolerance] for i in range(16)]


@pytest.mark.parametrize("view", [20, 21, 45, 69])
def test_the_smallest_input_is_the_smallest_whose_turned_view_has_no_empty_corner(view):
    side = smallest_input(view)
    assert (side - view) % 2 == 0
    for empty, border in ((False, side), (True, side - 2)):
        ones = torch.ones(1, 1, side, side)
        margin = (side - border) // 2
        framed = torch.zeros_like(ones)
        framed[..., margin : side - margin, margin : side - margin] = 1
        turned = make_views(framed, view)[2]
        assert bool((turned < 1 - 1e-4).any()) is empty


def test_the_paper_s_views_need_99_pixels():
    assert smallest_input(69) == 99


def test_the_upright_view_is_the_centre():
    images = noise()
    margin = (SIDE - VIEW) // 2
    upright, mirrored, _, _ = make_views(images, VIEW)
    assert torch.equal(upright, images[..., margin:-margin, margin:-margin])
    assert torch.equal(mirrored, upright.flip(-1))


@pytest.mark.parametrize("side", [SIDE, SIDE + 6])
def test_the_turned_view_is_scipy_s(side):
    images = noise(side=side, smooth=1.5)
    margin = (side - VIEW) // 2
    expected = ndimage.rotate(images.numpy(), 45, axes=(3, 2), reshape=False, order=1)
    _, _, turned, mirrored = make_views(images, VIEW)
    inside = slice(margin, side - margin)
    difference = np.abs(turned.numpy() - expected[..., inside, inside]).max()
    assert difference < 1e-5
    assert torch.equal(mirrored, turned.flip(-1))


def test_a_bright_centre_is_in_the_same_place_of_every_part():
    image = torch.zeros(1, 3, SIDE, SIDE)
    image[..., SIDE // 2, SIDE // 2] = 1.0
    parts = parts_of(image)[:, 0, 0]
    for part in parts:
        row, column = divmod(int(part.argmax()), PART)
        assert (row, column) == (VIEW // 2, VIEW // 2)
    assert VIEW // 2 > PART / 2, "the centre is at the lower right"


def test_a_pixel_beside_the_centre_is_near_the_same_corner_of_every_part():
    image = torch.zeros(1, 3, SIDE, SIDE)
    image[..., SIDE // 2 - 2, SIDE // 2 + 1] = 1.0
    for part in parts_of(image)[:, 0, 0]:
        weights = part / part.sum()
        place = torch.stack([(weights.sum(1 - k) * torch.arange(PART)).sum() for k in (0, 1)])
        distance = (place - VIEW // 2).norm()
        assert distance == pytest.approx(5**0.5, abs=0.1)


def test_the_four_corners_overlap_and_cover_the_view():
    covered = torch.zeros(VIEW, VIEW)
    for quarter in range(4):
        corner = torch.zeros(VIEW, VIEW)
        corner[:PART, :PART] = 1
        covered += torch.rot90(corner, -quarter)
    assert covered.min() == 1
    assert covered[VIEW // 2, VIEW // 2] == 4
    upright = make_views(noise(), VIEW)[0]
    for quarter, part in enumerate(parts_of(noise())[:4]):
        assert torch.equal(part, torch.rot90(upright, quarter, (-2, -1))[..., :PART, :PART])


@pytest.mark.parametrize("k", range(8))
def test_symmetries_of_the_square_permute_the_parts(k):
    images = noise()
    parts, turned = parts_of(images), parts_of(d4(images, k).contiguous())
    found = matches(turned, parts)
    assert all(len(one) == 1 for one in found)
    order = [one[0] for one in found]
    assert sorted(order) == list(range(16))
    assert (order == list(range(16))) is (k == 0)


def test_another_turn_does_not_permute_the_parts():
    images = noise(smooth=1.5)
    turned = ndimage.rotate(images.numpy(), 20, axes=(3, 2), reshape=False, order=1)
    assert not any(matches(parts_of(torch.from_numpy(turned)), parts_of(images), 1e-3))


@pytest.mark.parametrize("side", [SIDE - 2, SIDE + 1])
def test_an_input_the_views_do_not_fit_is_refused(side):
    with pytest.raises(InputError, match=f"views of {VIEW} px cannot be cut") as caught:
        make_views(torch.zeros(1, 3, side, side), VIEW)
    assert f"{SIDE} px" in caught.value.fix


@pytest.mark.parametrize("encoder", [None, "test_resnet"])
def test_any_trunk_gives_embeddings_and_concentrations(encoder):
    model = build_architecture(
        "dieleman",
        {"answers": ANSWERS, "encoder": encoder, "width": 8, "view": 45, "part": 37, "in_chans": 4},
    ).eval()
    with torch.no_grad():
        features = model.encode(torch.randn(2, 4, 65, 65))
        found = model.head(features)
    assert model.product == "morphology"
    assert features.shape == (2, model.embedding_size) == (2, 8)
    assert found.shape == (2, 5)
    assert torch.allclose(found[:, :3].sum(1), torch.full((2,), 20.0)), "divisive normalisation by default"


def test_all_parts_go_through_the_trunk_at_once():
    model = build_architecture("dieleman", SMALL).eval()
    shapes = []
    model.encoder.trunk.register_forward_hook(lambda module, given, made: shapes.append(given[0].shape))
    model.encode(noise(3))
    assert shapes == [(48, 3, PART, PART)]


@torch.inference_mode()
def test_an_image_has_its_own_parts_whatever_is_beside_it():
    torch.manual_seed(0)
    model = build_architecture("dieleman", SMALL).eval()
    images = noise(3)
    together = model.encode(images)
    for i in range(3):
        np.testing.assert_allclose(model.encode(images[i : i + 1])[0].numpy(), together[i].numpy(), atol=1e-5)


def test_every_feature_is_the_encoder_s_so_that_its_hash_tells_networks_apart():
    model = build_architecture("dieleman", SMALL)
    others = {k for k in model.state_dict() if not k.startswith("encoder.")}
    assert others == {"classifier.weight", "classifier.bias", "concentration_scale"}


def test_the_paper_s_width_has_the_paper_s_42_million_weights():
    answers = [3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6]
    with torch.device("meta"):
        model = build_architecture("dieleman", {"answers": answers, "width": 2048})
        default = build_architecture("dieleman", {"answers": answers})
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 42
    assert 2 * sum(p.numel() for p in default.parameters()) < 15e6, "a bundle of 16 MB holds the default"


def test_training_reaches_every_weight():
    torch.manual_seed(0)
    arguments = {"answers": ANSWERS, "width": 16, "view": 45, "part": 37, "dropout": 0.1}
    model = build_architecture("dieleman", arguments).train()
    with torch.autocast("cpu", torch.bfloat16):
        found = model(torch.randn(4, 3, 65, 65))
    assert found.dtype == torch.float32
    (found * torch.rand(5)).sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": 10}, "do not overlap"),
        ({"part": 22}, "do not overlap"),
        ({"encoder": None}, "too small for the four convolutions"),
    ],
)
def test_impossible_parts_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        build_architecture("dieleman", SMALL | change)


@pytest.mark.parametrize("k", range(8))
def test_the_parts_of_a_symmetry_are_parts_of_the_image(k):
    images = noise()
    found = parts_of(d4(images, k))
    torch.testing.assert_close(found, parts_of(images)[part_orders(8)[k]], rtol=0, atol=2e-5)


@pytest.mark.parametrize("encoder", [None, "test_resnet"])
def test_features_of_shared_parts_are_those_of_each_symmetry(encoder):
    view, part = (69, 45) if encoder is None else (VIEW, PART)
    model = build_architecture("dieleman", {**SMALL, "encoder": encoder, "view": view, "part": part}).eval()
    images = noise(side=smallest_input(view))
    with torch.inference_mode():
        shared = encode_views(model, images, 8)
        each = torch.stack([model.encode(d4(images, k)) for k in range(8)])
    torch.testing.assert_close(shared, each, rtol=1e-4, atol=1e-4)
    assert (each[0] - each[1]).abs().max() > 1e-3


def test_a_factored_layer_is_the_nearest_of_its_rank_and_at_full_rank_the_same_network():
    torch.manual_seed(0)
    whole = build_architecture("dieleman", SMALL).eval()
    matrix = whole.encoder.dense[1].linear.weight.detach().clone()
    values = np.linalg.svd(matrix.numpy(), compute_uv=False)
    for rank in (5, len(values)):
        small = build_architecture("dieleman", SMALL | {"rank": rank}).eval()
        small.load_state_dict(factor(whole.state_dict(), rank))
        layer = small.encoder.dense[1]
        error = torch.linalg.norm(layer.linear.weight @ layer.project.weight - matrix).detach()
        # Eckart, Young and Mirsky: the nearest matrix of a rank is as far as the singular values left out.
        assert float(error) == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), abs=1e-5)
    images = torch.randn(3, 3, SIDE, SIDE)
    torch.testing.assert_close(small(images), whole(images), rtol=1e-4, atol=1e-4)
