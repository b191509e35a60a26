import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from surveyproc.training.losses import (
    dirichlet_multinomial_nll,
    joint_means,
    mean_fractions,
    pseudo_counts,
    squared_error,
)
from surveyproc.votes import Question, VoteSchema, load_schema

SCHEMA = load_schema("galaxy-challenge")
ANY_OF = VoteSchema(
    "t",
    (
        Question("c", ("yes", "no"), ("b_yes",)),
        Question("a", ("x", "y", "z")),
        Question("b", ("yes", "no"), ("a_x", "a_y")),
    ),
)


def random_votes(seed, rows=6):
    rng = np.random.default_rng(seed)
    concentrations = 1 + 100 * rng.random((rows, len(SCHEMA.columns)))
    counts = rng.integers(0, 20, concentrations.shape)
    return concentrations, counts


@given(st.integers(0, 2**31))
def test_the_likelihood_is_scipys(seed):
    concentrations, counts = random_votes(seed)
    loss = dirichlet_multinomial_nll(
        torch.tensor(concentrations).float(), torch.tensor(counts).float(), SCHEMA
    )
    expected = -sum(
        stats.dirichlet_multinomial(concentrations[:, s], counts[:, s].sum(1)).logpmf(counts[:, s])
        for s in SCHEMA.slices.values()
    )
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-4, atol=2e-4)


def test_a_two_answer_question_is_beta_binomial():
    schema = VoteSchema("t", (Question("a", ("yes", "no")),))
    loss = dirichlet_multinomial_nll(torch.tensor([[3.0, 7.0]]), torch.tensor([[12.0, 8.0]]), schema)
    assert float(loss) == pytest.approx(-stats.betabinom(20, 3, 7).logpmf(12), rel=1e-5)


def test_a_question_nobody_was_asked_gives_no_loss_and_no_gradient():
    concentrations = torch.full((2, 17), 40.0, requires_grad=True)
    counts = torch.zeros(2, 17)
    counts[1, SCHEMA.slices["smooth-or-featured"]] = torch.tensor([10.0, 20.0, 5.0])
    loss = dirichlet_multinomial_nll(concentrations, counts, SCHEMA)
    loss.sum().backward()
    assert float(loss[0].detach()) == 0.0
    assert torch.equal(concentrations.grad[0], torch.zeros(17))
    assert torch.equal(concentrations.grad[1, 3:], torch.zeros(14))
    assert (concentrations.grad[1, :3] != 0).all()


def test_pseudo_counts_are_whole_numbers_of_volunteers_by_question():
    joint = torch.tensor([[0.5, 0.5, 0.0, 0.2, 0.3, 0.009, 0.991, 0.5, 0.0, 0.0, *[0.009 / 7] * 7]])
    counts = pseudo_counts(joint, SCHEMA)
    totals = [float(counts[:, s].sum()) for s in SCHEMA.slices.values()]
    np.testing.assert_allclose(totals, [44, 22, 44, 22, 0], atol=1e-4)
    assert torch.equal(counts[:, 10:], torch.zeros(1, 7))
    np.testing.assert_allclose(counts[0, 3:5], [22 * 0.4, 22 * 0.6], rtol=1e-5)


@pytest.mark.parametrize("schema", [SCHEMA, ANY_OF], ids=["challenge", "any-of"])
def test_joint_means_in_torch_are_the_schemas(schema):
    concentrations = 1 + 100 * torch.rand(5, len(schema.columns), generator=torch.Generator().manual_seed(0))
    fractions = mean_fractions(concentrations, schema)
    np.testing.assert_allclose(
        joint_means(fractions, schema).numpy(), schema.joint(fractions.double().numpy()), rtol=1e-5
    )


def test_the_squared_error_is_0_at_the_target():
    concentrations = 1 + 100 * torch.rand(5, 17, generator=torch.Generator().manual_seed(0))
    joint = joint_means(mean_fractions(concentrations, SCHEMA), SCHEMA)
    assert float(squared_error(concentrations, joint, SCHEMA).max()) < 1e-12
    off = joint.clone()
    off[0, 0] += 0.5
    assert float(squared_error(concentrations, off, SCHEMA)[0]) == pytest.approx(0.25, rel=1e-4)
