"""Posterior summaries against formulas, scipy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import beta

from surveyproc.inference.posterior import keyed_dropout, matched_concentration, mixture_interval

TOLERANCE = 2e-3
concentration = st.floats(1.0, 101.0)


def exact(a: np.ndarray, b: np.ndarray, quantile: float) -> float:
    """Quantile of an equal-weight mixture of Beta(a, b) by root finding on its CDF."""
    return brentq(lambda x: beta.cdf(x, a, b).mean() - quantile, 0.0, 1.0, xtol=1e-10)


@given(
    st.lists(st.tuples(concentration, concentration), min_size=1, max_size=8),
    st.sampled_from([0.5, 0.9, 0.99]),
)
@settings(max_examples=80, deadline=None)
def test_the_interval_inverts_the_cdf_of_the_mixture(components, level):
    a, b = (np.array(values) for values in zip(*components))
    bounds = mixture_interval(torch.tensor(a)[:, None], torch.tensor(a + b)[:, None], level)
    for bound, quantile in zip(bounds, ((1 - level) / 2, (1 + level) / 2)):
        found = bound.item()
        # Between two far components the CDF is flat, and every value there is the quantile.
        flat = abs(beta.cdf(found, a, b).mean() - quantile) < 2e-4
        assert flat or found == pytest.approx(exact(a, b, quantile), abs=TOLERANCE)


@pytest.mark.parametrize("a", [1e-5, 0.002, 0.05, 0.2, 0.5, 0.9])
def test_a_fraction_that_is_almost_surely_0_or_1_has_the_interval_of_its_beta(a):
    """Heads of fractions have concentrations far below 1, whose densities have a pole at the end."""
    alpha, total = torch.tensor([[a, 20 - a, a, 0.3]]), torch.tensor([[20.0, 20.0, 2 * a, 0.3 + a]])
    lower, upper = mixture_interval(alpha.double(), total.double())
    for k, (first, second) in enumerate([(a, 20 - a), (20 - a, a), (a, a), (0.3, a)]):
        expected = beta.ppf([0.05, 0.95], first, second)
        np.testing.assert_allclose([lower[k], upper[k]], expected, atol=TOLERANCE)


def test_a_fraction_of_1_in_float32_has_an_interval_at_1():
    lower, upper = mixture_interval(torch.tensor([[20.0]]), torch.tensor([[20.0]]))
    assert lower == pytest.approx(1.0, abs=TOLERANCE)
    assert upper == pytest.approx(1.0, abs=TOLERANCE)


def test_components_far_apart_give_a_wide_interval():
    """The mean of the components' quantiles would be near 0.5: it loses the spread between them."""
    alpha, total = torch.tensor([[5.0], [95.0]]), torch.tensor([[100.0], [100.0]])
    lower, upper = mixture_interval(alpha, total)
    assert lower < 0.08
    assert upper > 0.92


def test_the_interval_covers_at_its_level():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(1, 60, (2, 6, 400))
    which = rng.integers(0, 6, 400)
    drawn = rng.beta(a[which, np.arange(400)], b[which, np.arange(400)])
    lower, upper = mixture_interval(torch.tensor(a), torch.tensor(a + b), 0.9)
    inside = ((drawn >= lower.numpy()) & (drawn <= upper.numpy())).mean()
    assert inside == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 400))


def test_the_interval_does_not_depend_on_what_else_is_asked():
    rng = np.random.default_rng(2)
    a, b = torch.tensor(rng.uniform(1, 101, (2, 4, 50)))
    together = mixture_interval(a, a + b)
    for row in range(0, 50, 7):
        alone = mixture_interval(a[:, row : row + 1], (a + b)[:, row : row + 1])
        assert torch.equal(alone[0][0], together[0][row])
        assert torch.equal(alone[1][0], together[1][row])


def test_one_dirichlet_is_matched_by_itself():
    means = torch.tensor([[[0.2, 0.3, 0.5]]])
    assert matched_concentration(means, torch.tensor([[37.0]]))[0] == pytest.approx(37.0, rel=1e-4)


def test_the_matched_dirichlet_has_the_variance_of_the_mixture():
    rng = np.random.default_rng(3)
    alphas = rng.uniform(1, 40, (4, 3))
    draws = np.concatenate([rng.dirichlet(a, 100_000) for a in alphas])
    total = alphas.sum(1)
    found = matched_concentration(
        torch.tensor(alphas / total[:, None])[:, None].float(), torch.tensor(total)[:, None].float()
    )
    p = draws.mean(0)
    expected = (p * (1 - p)).sum() / draws.var(0).sum() - 1
    assert found[0].item() == pytest.approx(expected, rel=0.02)


def keys(number: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 2**64, number, dtype=np.uint64)


def test_dropout_keeps_features_at_its_rate_and_their_mean():
    masks = keyed_dropout(keys(500), draws=4, size=64, rate=0.25)
    assert masks.shape == (4, 500, 64)
    assert masks.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    error = 4 * np.sqrt(0.25 / 0.75 / masks.numel())
    assert masks.mean().item() == pytest.approx(1.0, abs=error)
    assert (masks == 0).float().mean((0, 1)).max() < 0.35


def test_dropout_of_an_object_does_not_depend_on_the_batch():
    batch = keys(64)
    together = keyed_dropout(batch, 3, 32, 0.2)
    shuffled = np.random.default_rng(0).permutation(64)
    assert torch.equal(keyed_dropout(batch[shuffled], 3, 32, 0.2), together[:, shuffled])
    assert torch.equal(keyed_dropout(batch[9:10], 3, 32, 0.2), together[:, 9:10])


def test_draws_features_and_objects_drop_independently():
    dropped = (keyed_dropout(keys(400), 4, 64, 0.5) == 0).float().numpy()
    flat = dropped.reshape(4, -1)
    between_draws = np.corrcoef(flat)[np.triu_indices(4, 1)]
    assert np.abs(between_draws).max() < 0.03
    between_features = np.corrcoef(dropped.transpose(2, 0, 1).reshape(64, -1))[np.triu_indices(64, 1)]
    assert np.abs(between_features).max() < 0.15
    neighbours = np.corrcoef(dropped[:, :-1].reshape(-1), dropped[:, 1:].reshape(-1))[0, 1]
    assert abs(neighbours) < 0.03


def test_more_draws_begin_with_the_same_ones():
    batch = keys(5)
    assert torch.equal(keyed_dropout(batch, 6, 16, 0.2)[:2], keyed_dropout(batch, 2, 16, 0.2))
