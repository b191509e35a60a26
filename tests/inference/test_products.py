"""From concentrations to the columns astronomers read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from toys import toy_bundle

from surveyproc.inference.products import MorphologyProduct
from surveyproc.models.bundle import open_bundle


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    return MorphologyProduct(open_bundle(str(toy_bundle(tmp_path_factory.mktemp("b") / "toy"))))


@pytest.fixture(scope="module")
def components(product):
    rng = np.random.default_rng(0)
    return torch.tensor(rng.uniform(1, 101, (6, 40, len(product.votes.columns))), dtype=torch.float32)


@pytest.fixture(scope="module")
def columns(product, components):
    rows = components.shape[1]
    return product.columns(components, np.linspace(0, 1, rows), np.zeros(rows, np.int32))


def test_the_columns_are_those_that_were_declared(product, columns):
    for table, fields in product.fields.items():
        assert [f.name for f in fields] == [f.name for f in fields if f.name in columns[table]]
        assert {f.name for f in fields} == columns[table].keys()


def test_means_are_those_of_the_mixture_and_sum_to_one_over_a_question(product, components, columns):
    posterior = columns["morphology_posterior"]
    for question in product.votes.questions:
        shares = components[..., product.votes.slices[question.name]].double()
        expected = (shares / shares.sum(-1, keepdim=True)).mean(0).numpy()
        means = np.stack([posterior[f"{c}_mean"] for c in question.columns], 1)
        np.testing.assert_allclose(means, expected, rtol=1e-5)
        np.testing.assert_allclose(means.sum(1), 1, atol=1e-5)


def test_concentrations_have_the_means_of_the_fractions(product, columns):
    posterior = columns["morphology_posterior"]
    for question in product.votes.questions:
        alpha = np.stack([posterior[f"{c}_concentration"] for c in question.columns], 1)
        means = np.stack([posterior[f"{c}_mean"] for c in question.columns], 1)
        assert (alpha > 0).all()
        np.testing.assert_allclose(alpha / alpha.sum(1, keepdims=True), means, rtol=1e-4)


def test_a_fraction_is_null_exactly_where_less_than_half_is_asked(product, columns):
    morphology = columns["morphology"]
    hidden_somewhere = False
    for question in product.votes.questions:
        hidden = np.asarray(morphology[f"{question.name}_proportion_asked"]) < 0.5
        hidden_somewhere |= bool(hidden.any())
        for column in question.columns:
            for suffix in ("fraction", "fraction_lower", "fraction_upper"):
                values = pa.array(morphology[f"{column}_{suffix}"])
                assert (values.is_null().to_numpy(zero_copy_only=False) == hidden).all(), column
        if not question.parents:
            assert not hidden.any()
    assert hidden_somewhere


def test_the_proportion_asked_is_the_mean_of_the_components(product, components, columns):
    shares = np.empty(components.shape, dtype=np.float64)
    for answers in product.votes.slices.values():
        part = components[..., answers].double().numpy()
        shares[..., answers] = part / part.sum(-1, keepdims=True)
    names = product.votes.columns
    edge_on = shares[..., names.index("smooth-or-featured_featured-or-disk")].mean(0)
    np.testing.assert_allclose(columns["morphology"]["disk-edge-on_proportion_asked"], edge_on, rtol=1e-4)
    np.testing.assert_allclose(columns["morphology"]["smooth-or-featured_proportion_asked"], 1)


def test_bounds_enclose_the_expected_fraction(product, columns):
    morphology = columns["morphology"]
    for column in product.votes.columns:
        lower, middle, upper = (
            pa.array(morphology[f"{column}_fraction{s}"]).drop_null().to_numpy()
            for s in ("_lower", "", "_upper")
        )
        assert ((lower >= 0) & (lower < middle) & (middle < upper) & (upper <= 1)).all()


def test_difficulty_is_one_for_a_coin_toss_and_small_for_unanimity(product):
    size = len(product.votes.columns)
    even = torch.full((1, 1, size), 50.0)
    sure = torch.full((1, 1, size), 1.0)
    for answers in product.votes.slices.values():
        sure[..., answers.start] = 1e6
    zeros = np.zeros(1, np.int32)
    assert product.columns(even, zeros, zeros)["morphology"]["difficulty"][0] == pytest.approx(1, abs=1e-4)
    assert product.columns(sure, zeros, zeros)["morphology"]["difficulty"][0] < 1e-3
