import numpy as np
import pytest
import torch

from surveyproc.cutouts import InputContract
from surveyproc.images.views import d4, prepare
from surveyproc.training.augment import Augmentation, random_views
from surveyproc.training.bundle import central_views
from surveyproc.training.examples import make_canvases

STILL = Augmentation(zoom=1.0, shift=0.0, rotate=False)


def smooth_pixels(count=2, side=424):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    images = [
        sum(
            200 * np.exp(-(((x - a) ** 2 + (y - b) ** 2) / 400.0))
            for a, b in rng.uniform(110, 310, size=(5, 2))
        )
        for _ in range(3 * count)
    ]
    stacked = np.clip(np.stack(images), 0, 255).reshape(count, 3, side, side)
    return torch.from_numpy(stacked.transpose(0, 2, 3, 1).astype(np.uint8))


@pytest.mark.parametrize("side", [424, 200, 128])
def test_an_unmoved_view_of_the_canvas_is_what_prepare_gives(side):
    contract = InputContract(("R", "G", "B"), size=64, crop=0.5, mean=0.1, std=0.2)
    pixels = smooth_pixels(side=424)[:, : side + 0, : side + 0]
    canvases = make_canvases(pixels, contract)
    assert canvases.dtype == torch.uint8
    assert canvases.shape == (2, 192, 192, 3)
    views = central_views(canvases.numpy(), contract)
    expected = prepare(pixels, contract).numpy()
    assert np.abs(views - expected).max() < 0.15
    assert np.sqrt(((views - expected) ** 2).mean()) < 0.02


def test_a_crop_without_room_for_the_margin_still_keeps_the_scale():
    contract = InputContract(("R", "G", "B"), size=64, crop=1.0)
    pixels = smooth_pixels(side=256)
    assert make_canvases(pixels, contract).shape == (2, 128, 128, 3)
    views = central_views(make_canvases(pixels, contract).numpy(), contract)
    assert np.sqrt(((views - prepare(pixels, contract).numpy()) ** 2).mean()) < 0.02


def test_random_views_are_the_same_for_the_same_generator_and_differ_otherwise():
    canvases = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    a, b, c = (
        random_views(canvases, 16, Augmentation(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert a.shape == (3, 3, 16, 16)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_rotating_keeps_a_round_galaxy_and_moves_a_long_one():
    y, x = torch.meshgrid(torch.arange(48) - 23.5, torch.arange(48) - 23.5, indexing="ij")
    round_one = torch.exp(-(x**2 + y**2) / 72).expand(1, 3, 48, 48)
    long_one = torch.exp(-(x**2 / 150 + y**2 / 20)).expand(1, 3, 48, 48)
    turning = Augmentation(zoom=1.0, shift=0.0, rotate=True)
    generator = torch.Generator().manual_seed(3)
    turned = random_views(torch.cat([round_one, long_one]), 16, turning, generator)
    still = random_views(torch.cat([round_one, long_one]), 16, STILL, generator)
    assert (turned[0] - still[0]).abs().max() < 0.02
    assert (turned[1] - still[1]).abs().max() > 0.1


def test_an_unmoved_view_has_the_symmetry_of_its_canvas():
    canvases = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator()
    for k in range(8):
        one = random_views(d4(canvases, k).contiguous(), 16, STILL, generator)
        other = d4(random_views(canvases, 16, STILL, generator), k)
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-5)
