"""Coverage and calibration against scipy and on simulated votes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import betabinom, binom, kstest

from surveyproc.identifiers import splitmix64
from surveyproc.inference.calibration import (
    binomial_range,
    coverage,
    fit_scale,
    inside,
    randomised_pit,
    scaled,
    vote_tails,
    whole_counts,
)
from surveyproc.votes import Question, VoteSchema

SCHEMA = VoteSchema(
    "t", (Question("a", ("x", "y")), Question("b", ("p", "q", "r"), ("a_x",)), Question("c", ("m", "n")))
)
GALAXIES = 1500


def keys(number: int) -> np.ndarray:
    return splitmix64(np.arange(number, dtype=np.uint64))


@pytest.fixture(scope="module")
def simulated():
    """Mixtures of 6 Dirichlets whose means differ by much, and votes drawn from them."""
    rng = np.random.default_rng(7)
    components = np.empty((6, GALAXIES, 7))
    counts = np.zeros((GALAXIES, 7))
    which = rng.integers(0, 6, GALAXIES)
    for s in SCHEMA.slices.values():
        width = s.stop - s.start
        means = rng.dirichlet(np.full(width, 2.0), (6, GALAXIES))
        components[..., s] = means * rng.uniform(10, 90, (6, GALAXIES, 1))
        drawn = components[which, np.arange(GALAXIES), s]
        number = rng.integers(5, 60, GALAXIES)
        fractions = np.stack([rng.dirichlet(a) for a in drawn])
        counts[:, s] = rng.multinomial(number, fractions)
    return components, counts


def votes_at(levels, components, number):
    """``(levels, M, N, K)`` quantiles of each component's beta-binomial."""
    total = components.sum(-1, keepdims=True)
    votes = np.arange(number.max() + 1)[:, None, None, None]
    cdf = betabinom.pmf(votes, number[:, None].astype(int), components, total - components).cumsum(0)
    return np.stack([(cdf < level).sum(0) for level in levels])


def test_the_tails_are_those_of_scipys_beta_binomial():
    rng = np.random.default_rng(1)
    components = rng.uniform(0.05, 120, (4, 300, 7))
    counts = rng.integers(0, 30, (300, 7))
    below, at = vote_tails(components, counts, SCHEMA)
    for s in SCHEMA.slices.values():
        total, number = components[..., s].sum(-1), counts[:, s].sum(1)
        for k in range(s.start, s.stop):
            said = betabinom(number, components[..., k], total - components[..., k])
            assert at[:, k] == pytest.approx(said.pmf(counts[:, k]).mean(0), rel=1e-8, abs=1e-14)
            assert below[:, k] == pytest.approx(said.cdf(counts[:, k] - 1).mean(0), abs=1e-9)


def test_no_votes_are_certain():
    below, at = vote_tails(np.full((2, 1, 7), 3.0), np.zeros((1, 7), int), SCHEMA)
    assert (below == 0).all()
    assert (at == 1).all()


def test_the_share_inside_is_the_overlap_of_the_step_with_the_interval():
    below = np.array([0.0, 0.04, 0.2, 0.9, 0.96])
    at = np.array([0.1, 0.02, 0.3, 0.1, 0.04])
    assert inside(below, at) == pytest.approx([0.5, 0.5, 1.0, 0.5, 0.0])
    assert inside(np.array([0.5, 0.01]), np.zeros(2)).tolist() == [1.0, 0.0]


def test_the_randomised_pit_of_drawn_votes_is_uniform_and_repeats(simulated):
    components, counts = simulated
    below, at = vote_tails(components, counts.astype(int), SCHEMA)
    u = randomised_pit(below, at, keys(GALAXIES))
    for k in range(7):
        assert kstest(u[:, k], "uniform").pvalue > 1e-3
    order = np.random.default_rng(0).permutation(GALAXIES)
    assert (randomised_pit(below[order], at[order], keys(GALAXIES)[order]) == u[order]).all()


def test_our_interval_covers_at_its_level_and_the_mean_or_median_of_quantiles_does_not(simulated):
    components, counts = simulated
    figures = coverage(components, counts, SCHEMA, keys(GALAXIES))
    for name, s in SCHEMA.slices.items():
        allowed = binom.ppf([0.0005, 0.9995], GALAXIES, 0.9) / GALAXIES
        found = figures["questions"][name]
        assert allowed[0] <= found["coverage"] <= allowed[1]
        assert allowed[0] <= found["randomised"] <= allowed[1]
        # The same check of the intervals that lose the spread between components; being intervals of whole
        # votes they hold at least 90 % of each component.
        quantiles = votes_at((0.05, 0.95), components[..., s], counts[:, s].sum(1))
        for average in (np.mean, np.median):
            low, high = average(quantiles, axis=1)
            hits = (counts[:, s] >= low) & (counts[:, s] <= high)
            assert hits.mean() < allowed[0] - 0.1


def test_questions_with_few_votes_do_not_count(simulated):
    components, counts = simulated
    counts = counts.copy()
    counts[:1000, SCHEMA.slices["c"]] = [2, 2]
    counts[:, SCHEMA.slices["a"]] = 0
    figures = coverage(components, counts, SCHEMA, keys(GALAXIES))
    assert figures["questions"]["c"]["galaxies"] == 500
    assert figures["questions"]["c"]["n"] == 1000
    assert figures["questions"]["a"]["coverage"] is None
    assert figures["pooled"]["n"] == 3 * GALAXIES + 1000


@pytest.mark.parametrize("factor", [4.0, 0.5])
def test_the_fit_undoes_a_known_over_or_under_confidence(simulated, factor):
    components, counts = simulated
    wrong = components * factor
    fit = fit_scale(wrong, counts, SCHEMA)
    if factor > 1:
        before = coverage(wrong, counts, SCHEMA, keys(GALAXIES))
        assert before["questions"]["a"]["coverage"] < 0.89
    # Between components the spread stays, so that coverage alone says less about the factor than one Dirichlet.
    assert fit.scale == pytest.approx(1 / factor, rel=0.35)
    assert fit.pooled == fit.out_of_reach == ()
    after = coverage(scaled(wrong, fit.scale, SCHEMA), counts, SCHEMA, keys(GALAXIES))
    for figures in after["questions"].values():
        assert figures["coverage"] == pytest.approx(0.9, abs=1e-3)


def test_one_dirichlet_four_times_too_sure_is_scaled_to_a_quarter():
    rng = np.random.default_rng(3)
    means = np.concatenate([rng.dirichlet(np.full(n, 2.0), 3000) for n in (2, 3, 2)], axis=1)
    truth = means * 30
    counts = np.concatenate(
        [
            np.stack([rng.multinomial(44, rng.dirichlet(a)) for a in truth[:, s]])
            for s in SCHEMA.slices.values()
        ],
        axis=1,
    )
    fit = fit_scale(truth[None] * 4, counts, SCHEMA)
    assert fit.scale == pytest.approx(0.25, rel=0.12)
    assert fit.galaxies.tolist() == [3000] * 3


def test_a_question_with_few_galaxies_takes_the_scale_of_all(simulated):
    components, counts = simulated
    counts = counts.copy()
    counts[29:, SCHEMA.slices["c"]] = 0
    wrong = components.copy()
    wrong[..., SCHEMA.slices["c"]] *= 16
    fit = fit_scale(wrong, counts, SCHEMA)
    assert fit.pooled == ("c",)
    assert fit.galaxies.tolist() == [GALAXIES, GALAXIES, 29]
    assert fit.scale[2] == pytest.approx(1, rel=0.4)


def test_without_any_votes_nothing_is_scaled():
    fit = fit_scale(np.ones((1, 5, 7)), np.zeros((5, 7)), SCHEMA)
    assert fit.scale.tolist() == [1, 1, 1]
    assert fit.pooled == ("a", "b", "c")


def test_a_level_no_scale_reaches_is_said():
    counts = np.zeros((50, 7))
    counts[:, 0] = 44  # all volunteers give the answer that the model excludes
    components = np.full((1, 50, 7), 1e-6)
    components[..., 1] = 1e6
    assert fit_scale(components, counts, SCHEMA).out_of_reach[0] == "a"


def test_the_root_nearest_to_1_is_taken_where_tiny_scales_cover_too_little_again():
    """A rare answer that most galaxies get some votes for: at tiny scales either all or no votes are predicted."""
    rng = np.random.default_rng(5)
    means = rng.uniform(0.02, 0.045, 2000)
    components = np.ones((1, 2000, 7))
    components[0, :, :2] = 40 * np.stack([means, 1 - means], axis=1)
    counts = np.zeros((2000, 7))
    counts[:, 0] = rng.binomial(44, rng.beta(10 * means, 10 * (1 - means)))
    counts[:, 1] = 44 - counts[:, 0]
    tiny = coverage(components * 2.0**-7, counts, SCHEMA, keys(2000))["questions"]["a"]["coverage"]
    assert tiny < 0.9
    fit = fit_scale(components, counts, SCHEMA)
    assert "a" not in fit.out_of_reach
    assert fit.scale[0] == pytest.approx(0.25, rel=0.25)


def test_rounded_votes_add_up_and_the_largest_remainders_go_up():
    counts = np.array([[2.5, 2.5, 1.4, 1.3, 1.3, 0.0, 0.0], [0.2, 8.8, 4.0, 0.0, 3.0, 0.4, 0.0]])
    assert whole_counts(counts, SCHEMA).tolist() == [[3, 2, 2, 1, 1, 0, 0], [0, 9, 4, 0, 3, 0, 0]]


@pytest.mark.parametrize("n", [1, 30, 406])
def test_the_range_is_that_of_the_binomial(n):
    assert binomial_range(n, 0.9) == pytest.approx((binom.ppf([0.005, 0.995], n, 0.9) / n).tolist())
