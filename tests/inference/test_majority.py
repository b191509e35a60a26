"""The probability of a majority against scipy and simulation."""

import numpy as np
import pytest
from scipy.stats import beta

from surveyproc.inference.majority import majority_probability


def test_of_two_answers_it_is_the_tail_of_a_beta_distribution():
    rng = np.random.default_rng(0)
    a = np.exp(rng.uniform(np.log(0.02), np.log(5000), (1500, 2)))
    a[:500] = a[:500, :1] * np.exp(rng.normal(0, 0.1, (500, 2)))
    for answer in (0, 1):
        found = majority_probability(a, np.full(1500, answer))
        assert found == pytest.approx(beta.sf(0.5, a[:, answer], a[:, 1 - answer]), abs=2e-3)


def test_of_many_answers_it_is_the_share_of_draws_they_win():
    rng = np.random.default_rng(1)
    a = np.exp(rng.uniform(np.log(0.05), np.log(60), (8, 5)))
    wins = np.stack([np.bincount(rng.dirichlet(row, 40_000).argmax(1), minlength=5) / 40_000 for row in a])
    found = np.stack([majority_probability(a, np.full(8, k)) for k in range(5)], axis=1)
    assert found == pytest.approx(wins, abs=5 * np.sqrt(0.25 / 40_000))
    assert found.sum(1) == pytest.approx(1, abs=2e-3)


def test_no_galaxies_have_no_probabilities():
    assert majority_probability(np.empty((0, 3)), np.empty(0, int)).shape == (0,)
