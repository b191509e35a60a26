import numpy as np
import pytest
import torch

from surveyproc.cutouts import InputContract
from surveyproc.errors import InputError
from surveyproc.images.views import d4, prepare

IMAGES = torch.arange(2 * 3 * 5 * 5, dtype=torch.float32).reshape(2, 3, 5, 5)


def contract(**changes):
    return InputContract(**{"bands": ("R", "G", "B"), "size": 8, **changes})


def test_the_eight_symmetries_differ_and_the_first_changes_nothing():
    views = [d4(IMAGES, k) for k in range(8)]
    assert torch.equal(views[0], IMAGES)
    assert len({v.numpy().tobytes() for v in views}) == 8


def test_the_symmetries_are_a_group():
    views = {d4(IMAGES, k).contiguous().numpy().tobytes() for k in range(8)}
    for j in range(8):
        assert {d4(d4(IMAGES, j), k).contiguous().numpy().tobytes() for k in range(8)} == views


def test_a_ninth_symmetry_is_refused():
    with pytest.raises(ValueError, match="8 symmetries"):
        d4(IMAGES, 8)


def test_uint8_becomes_0_to_1_and_is_normalised():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 2, 1).expand(1, 2, 2, 3)
    out = prepare(pixels, contract(size=2, mean=0.5, std=0.25))
    assert out.dtype == torch.float32
    assert out.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(out[0, 0].numpy(), [[-2, 2], [-2, 2]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_floats_keep_their_scale(dtype):
    out = prepare(torch.full((1, 8, 8, 3), 0.5, dtype=dtype), contract())
    assert out.dtype == torch.float32
    assert torch.equal(out, torch.full((1, 3, 8, 8), 0.5))


@pytest.mark.parametrize(("side", "kept"), [(424, 212), (128, 64), (63, 31), (1, 1)])
def test_the_crop_is_central_and_exact(side, kept):
    pixels = torch.zeros(1, side, side, 3)
    margin = (side - kept) // 2
    pixels[:, margin : margin + kept, margin : margin + kept] = 1.0
    assert prepare(pixels, contract(crop=0.5)).min() == pytest.approx(1.0, abs=1e-6)


def test_preparing_commutes_with_the_symmetries():
    pixels = torch.rand(1, 424, 424, 3, generator=torch.Generator().manual_seed(0))
    for k in range(8):
        turned = d4(pixels.permute(0, 3, 1, 2), k).permute(0, 2, 3, 1)
        a, b = (
            prepare(turned, contract(crop=0.5, size=64)),
            d4(prepare(pixels, contract(crop=0.5, size=64)), k),
        )
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


def test_a_batch_of_one_is_prepared_as_in_a_batch():
    pixels = (torch.rand(5, 100, 100, 3, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    together = prepare(pixels, contract(crop=0.7, size=32))
    for i in range(5):
        assert torch.equal(prepare(pixels[i : i + 1], contract(crop=0.7, size=32))[0], together[i])


def test_bands_have_their_own_mean_and_std():
    pixels = torch.tensor([1.0, 2.0, 3.0]).expand(1, 4, 4, 3)
    out = prepare(pixels, contract(size=4, mean=(1.0, 1.0, 1.0), std=(1.0, 0.5, 2.0)))
    assert out[0, :, 0, 0].tolist() == [0.0, 2.0, 1.0]


def test_greyscale_is_the_mean_of_the_bands():
    pixels = torch.tensor([1.0, 2.0, 6.0]).expand(1, 4, 4, 3)
    out = prepare(pixels, contract(size=4, greyscale=True, mean=1.0))
    assert out.shape == (1, 1, 4, 4)
    assert torch.equal(out, torch.full((1, 1, 4, 4), 2.0))


def test_flux_is_stretched_after_resizing_and_before_normalising():
    flux = 0.5 * np.sinh(np.array([1.0, 2.0, 3.0], dtype=np.float32))
    pixels = torch.from_numpy(flux).expand(1, 4, 4, 3)
    out = prepare(pixels, contract(size=4, softening=0.5, mean=1.0))
    np.testing.assert_allclose(out[0, :, 0, 0].numpy(), [0.0, 1.0, 2.0], atol=1e-6)
    checks = torch.tensor([0.0, 2.0]).repeat(2).reshape(1, 2, 2, 1).expand(-1, -1, -1, 3)
    out = prepare(checks, contract(size=1, softening=(1.0, 2.0, 4.0)))
    np.testing.assert_allclose(out[0, :, 0, 0].numpy(), np.arcsinh([1.0, 0.5, 0.25]), rtol=1e-5)


def test_values_for_another_number_of_channels_are_refused():
    with pytest.raises(InputError, match=r"input\.std has 2 values for 3 channels"):
        contract(std=(1.0, 2.0))
    with pytest.raises(InputError, match=r"input\.mean has 3 values for 1 channels"):
        contract(mean=(1.0, 2.0, 3.0), greyscale=True)
