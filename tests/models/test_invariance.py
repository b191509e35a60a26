"""Averaged over the eight symmetries of the square, no table value changes when the cutout is turned or mirrored."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toy_bundle, toy_pixels

from surveyproc.cutouts import ImageSpec, InputContract
from surveyproc.errors import ResourceError
from surveyproc.images.views import D4_ORDER, d4, prepare
from surveyproc.inference.engine import Engine
from surveyproc.inference.settings import EngineSettings, resolve_precision
from surveyproc.models.bundle import open_bundle

pytestmark = pytest.mark.usefixtures("one_thread")

KEYS = pa.schema([("object_id", pa.int64())])
TABLES = ("morphology", "morphology_posterior")
symmetry = st.integers(1, D4_ORDER - 1)
sides = st.integers(9, 40)
seeds = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return open_bundle(str(toy_bundle(tmp_path_factory.mktemp("bundle") / "toy")))


def turned(pixels: np.ndarray, k: int) -> np.ndarray:
    """Symmetry k of ``(N, H, W, C)`` pixels."""
    return d4(torch.from_numpy(pixels).permute(0, 3, 1, 2), k).permute(0, 2, 3, 1).contiguous().numpy()


def predict(bundle, pixels, precision, views, draws=1):
    """Table values of ``(N, H, W, C)`` cutouts, ids 0 to N - 1; nulls are NaN."""
    options = EngineSettings(batch_size=len(pixels), precision=precision, views=views, draws=draws)
    engine = Engine([bundle], options, ImageSpec("raw", pixels.shape[1:], "uint8"), KEYS)
    found = engine(pa.record_batch({"object_id": pa.array(range(len(pixels)))}), pixels, {})
    assert not len(found["rejects"])
    return {
        (table, column): found[table][column].to_numpy(zero_copy_only=False).astype(np.float64)
        for table in TABLES
        for column in found[table].column_names
        if column not in ("_row", "object_id", "quality")
    }


def difference(one, other):
    """Largest change of a value; concentrations are compared by their logarithm."""
    largest = 0.0
    for name, values in one.items():
        a, b = values, other[name]
        if name[1].endswith("_concentration"):
            a, b = np.log(a), np.log(b)
        # A fraction is null where the question is asked by less than half; both sides of one half are alike.
        both = ~np.isnan(a) & ~np.isnan(b)
        largest = max(largest, np.abs(a - b)[both].max(initial=0.0))
    return largest


@given(seeds, sides, st.booleans(), st.sampled_from([0.3, 0.5, 0.7, 1.0]), st.integers(4, 30), symmetry)
@settings(max_examples=200, deadline=None)
def test_preparing_pixels_commutes_with_the_symmetries_for_even_and_odd_sizes(
    seed, side, oblong, crop, size, k
):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (1, side, side + 3 * oblong, 3)).astype(np.uint8)
    contract = InputContract(("R", "G", "B"), size=size, crop=crop, mean=0.1, std=0.2)
    first = prepare(torch.from_numpy(turned(pixels, k)), contract)
    after = d4(prepare(torch.from_numpy(pixels), contract), k)
    assert (first - after).abs().max() < 1e-5


@given(seed=seeds, side=sides, k=symmetry, draws=st.sampled_from([1, 3]))
@settings(max_examples=40, deadline=None)
def test_eight_views_do_not_see_a_symmetry_in_float32(toy, seed, side, k, draws):
    pixels = np.random.default_rng(seed).integers(0, 255, (2, side, side, 3)).astype(np.uint8)
    plain, other = (predict(toy, p, "fp32", D4_ORDER, draws) for p in (pixels, turned(pixels, k)))
    assert difference(plain, other) < 1e-4


@pytest.mark.parametrize("draws", [1, 3])
def test_eight_views_change_by_less_than_rounding_and_one_view_by_more(toy, precision, draws):
    pixels = toy_pixels(8)
    plain, one = (predict(toy, pixels, precision, views, draws) for views in (D4_ORDER, 1))
    for k in range(1, D4_ORDER):
        again = turned(pixels, k)
        assert difference(predict(toy, again, precision, D4_ORDER, draws), plain) < 1e-3, k
        assert difference(predict(toy, again, precision, 1, draws), one) > 1e-2, k


def test_gz2_in_bf16_turns_a_galaxy_without_moving_its_values():
    """What a symmetry changes is below what bf16 changes; a single view's values change by far more."""
    try:
        resolve_precision("bf16", "cpu")
    except ResourceError as error:
        pytest.skip(str(error))
    bundle = open_bundle("gz2")
    grid = np.linspace(0, 1, 13)
    pixels = (
        toy_pixels(4)[:, (grid * 15).astype(int)][:, :, (grid * 15).astype(int)].repeat(9, 1).repeat(9, 2)
    )
    exact = predict(bundle, pixels, "fp32", D4_ORDER)
    plain, one = (predict(bundle, pixels, "bf16", views) for views in (D4_ORDER, 1))
    noise = difference(exact, plain)
    assert 0 < noise < 0.2
    for k in range(1, D4_ORDER):
        assert difference(predict(bundle, turned(pixels, k), "bf16", D4_ORDER), plain) < noise, k
    changes = [difference(predict(bundle, turned(pixels, k), "bf16", 1), one) for k in range(1, D4_ORDER)]
    assert min(changes) > noise


def test_masks_are_the_object_s_own_and_so_the_same_in_every_view(toy):
    """With one mask for each object and draw, the set of views times draws is the same whatever turned first."""
    pixels = toy_pixels(2)
    eight = predict(toy, pixels, "fp32", D4_ORDER, 4)
    renamed = predict(toy, pixels[::-1].copy(), "fp32", D4_ORDER, 4)
    swapped = {name: values[::-1] for name, values in renamed.items()}
    assert difference(eight, swapped) > 1e-3, "another id draws other masks"
    assert difference(predict(toy, turned(pixels, 5), "fp32", D4_ORDER, 4), eight) < 1e-4
