"""Heads against their formulas, and what every one of them promises the engine."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surveyproc.errors import InputError
from surveyproc.models.heads import (
    FLOOR,
    HEADS,
    classes,
    dirichlet,
    fractions,
    head_function,
    initial_scale,
    make_classifier,
)

ANSWERS = [3, 2, 4]
QUESTIONS = [slice(0, 3), slice(3, 5), slice(5, 9)]


def logits(seed: int, spread: float, rows: int = 7) -> torch.Tensor:
    return torch.randn(rows, 9, generator=torch.Generator().manual_seed(seed)) * spread


@given(st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 30.0, 1e4]), st.sampled_from(sorted(HEADS)))
def test_every_head_gives_finite_positive_concentrations(seed, spread, name):
    a = HEADS[name](logits(seed, spread), ANSWERS)
    assert a.shape == (7, 9)
    assert a.dtype == torch.float32
    assert torch.isfinite(a).all()
    assert (a > 0).all()


@given(
    st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 30.0, 1e4]), st.sampled_from(["fractions", "classes"])
)
def test_fraction_heads_sum_to_1_over_each_question(seed, spread, name):
    a = HEADS[name](logits(seed, spread), ANSWERS)
    for question in QUESTIONS:
        np.testing.assert_allclose(a[:, question].sum(1).numpy(), 1.0, rtol=1e-6)


def test_dirichlet_is_1_plus_100_sigmoid():
    z = [-3.0, 0.0, 0.5]
    expected = [1 + 100 / (1 + math.exp(-v)) for v in z]
    np.testing.assert_allclose(dirichlet(torch.tensor([z]), [3])[0].numpy(), expected, rtol=1e-6)


def test_fractions_divide_by_the_sum_of_what_is_positive():
    found = fractions(torch.tensor([[3.0, 1.0, -5.0, -1.0, -2.0]]), [3, 2])[0]
    np.testing.assert_allclose(found[:3].numpy(), [0.75, 0.25, FLOOR], rtol=2 * FLOOR)
    np.testing.assert_allclose(found[3:].numpy(), [0.5, 0.5])


def test_fractions_are_the_logits_themselves_where_those_are_fractions():
    z = torch.tensor([[0.2, 0.5, 0.3]])
    np.testing.assert_allclose(fractions(z, [3]).numpy(), z.numpy(), rtol=1e-6)


def test_a_question_with_no_positive_logit_has_a_finite_gradient():
    z = torch.tensor([[-1.0, -2.0, 0.0]], requires_grad=True)
    fractions(z, [3])[0, 0].backward()
    assert torch.isfinite(z.grad).all()


def test_classes_are_the_softmax():
    z = [1.0, 2.0, -1.0]
    expected = np.exp(z) / np.exp(z).sum()
    np.testing.assert_allclose(classes(torch.tensor([z]), [3])[0].numpy(), expected, rtol=1e-5)


def test_a_class_that_underflows_still_has_a_logarithm():
    found = classes(torch.tensor([[500.0, 0.0]]), [2])[0]
    assert -20 < float(found[1].log()) < -14


@pytest.mark.parametrize("name", sorted(HEADS))
def test_questions_do_not_touch_each_other(name):
    z = logits(1, 1.0)
    other = z.clone()
    other[:, 3] += 3.0
    a, b = HEADS[name](z, ANSWERS), HEADS[name](other, ANSWERS)
    untouched = [*range(0, 3), *range(5, 9)]
    assert torch.equal(a[:, untouched], b[:, untouched])
    assert not torch.equal(a[:, QUESTIONS[1]], b[:, QUESTIONS[1]])


@pytest.mark.parametrize("name", sorted(HEADS))
def test_gradients_are_those_of_the_formula(name):
    z = (logits(2, 0.7, rows=3).double() + (2.0 if name == "fractions" else 0.0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: HEADS[name](v, ANSWERS), (z,))


def test_scales_are_1_for_a_dirichlet_and_20_for_what_knows_no_certainty():
    assert torch.equal(initial_scale("dirichlet", ANSWERS), torch.ones(9))
    assert torch.equal(initial_scale("fractions", ANSWERS), torch.full((9,), 20.0))
    assert torch.equal(initial_scale("classes", ANSWERS), torch.full((9,), 20.0))


def test_fractions_start_with_hardly_a_question_without_gradient():
    torch.manual_seed(0)
    layer = make_classifier("fractions", 512, ANSWERS)
    with torch.no_grad():
        positive = layer(torch.randn(200, 512)) > 0
    assert positive.float().mean() > 0.99


def test_an_unknown_head_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'fractions'"):
        head_function("fraction")
