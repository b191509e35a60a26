import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from surveyproc.errors import InputError
from surveyproc.training.losses import (
    check_targets,
    class_cross_entropy,
    class_weights,
    dirichlet_multinomial_nll,
    joint_means,
    mean_fractions,
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


def random_joint(seed, rows=6):
    rng = np.random.default_rng(seed)
    return SCHEMA.joint(
        np.concatenate([rng.dirichlet(np.ones(len(q.answers)), rows) for q in SCHEMA.questions], axis=1)
    )


@pytest.mark.parametrize("scale", [0.05, 1.0, 100.0])
@given(st.integers(0, 2**31))
def test_the_likelihood_is_scipys(scale, seed):
    concentrations, counts = random_votes(seed)
    concentrations = (scale * concentrations).astype(np.float32)
    loss = dirichlet_multinomial_nll(torch.tensor(concentrations), torch.tensor(counts).float(), SCHEMA)
    assert loss.dtype == torch.float32
    expected = -sum(
        stats.dirichlet_multinomial.logpmf(
            counts[:, s], concentrations[:, s].astype(np.float64), counts[:, s].sum(1)
        )
        for s in SCHEMA.slices.values()
    )
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5)


@given(st.floats(0.001, 101), st.floats(0.001, 101), st.integers(0, 60), st.integers(0, 60))
def test_a_two_answer_question_is_beta_binomial(a, b, yes, no):
    schema = VoteSchema("t", (Question("a", ("yes", "no")),))
    votes = torch.tensor([[yes, no]], dtype=torch.float64)
    loss = dirichlet_multinomial_nll(torch.tensor([[a, b]], dtype=torch.float64), votes, schema)
    expected = -stats.betabinom(yes + no, a, b).logpmf(yes)
    assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("weights", [None, torch.linspace(0.5, 3.0, 17)])
@pytest.mark.parametrize("level", [0.002, 1.0, 40.0, 1e4])
def test_a_question_nobody_was_asked_gives_no_loss_and_no_gradient(level, weights):
    concentrations = torch.full((2, 17), level, requires_grad=True)
    counts = torch.zeros(2, 17)
    counts[1, SCHEMA.slices["smooth-or-featured"]] = torch.tensor([10.0, 20.0, 5.0])
    loss = dirichlet_multinomial_nll(concentrations, counts, SCHEMA, weights)
    loss.sum().backward()
    assert float(loss[0].detach()) == 0.0
    assert torch.equal(concentrations.grad[0], torch.zeros(17))
    assert torch.equal(concentrations.grad[1, 3:], torch.zeros(14))
    assert (concentrations.grad[1, :3] != 0).all()


LOSSES = [(squared_error, "joint"), (dirichlet_multinomial_nll, "counts"), (class_cross_entropy, "joint")]
loss_and_target = pytest.mark.parametrize(("loss", "kind"), LOSSES, ids=[f.__name__ for f, _ in LOSSES])


def target_of(kind, seed=3, rows=6):
    values = random_joint(seed, rows) if kind == "joint" else random_votes(seed, rows)[1]
    return torch.tensor(np.asarray(values, dtype=np.float64))


@loss_and_target
@pytest.mark.parametrize("weights", [None, torch.linspace(0.5, 3.0, 17)])
def test_gradients_are_those_of_the_formula(loss, kind, weights):
    concentrations = torch.tensor(random_votes(1, rows=3)[0], requires_grad=True)
    target = target_of(kind, rows=3)
    assert torch.autograd.gradcheck(lambda a: loss(a, target, SCHEMA, weights), (concentrations,))


@loss_and_target
def test_an_autocast_around_it_changes_nothing(loss, kind):
    concentrations, target = torch.tensor(random_votes(1)[0]).float(), target_of(kind).float()
    expected = loss(concentrations, target, SCHEMA)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(concentrations, target, SCHEMA)
        coarse = loss(concentrations.bfloat16(), target, SCHEMA)
    assert torch.equal(found, expected)
    assert coarse.dtype == torch.float32
    np.testing.assert_allclose(coarse.numpy(), expected.numpy(), rtol=0.1, atol=0.01)


@loss_and_target
@given(st.permutations(range(len(SCHEMA.questions))))
def test_the_order_of_the_questions_does_not_matter(loss, kind, order):
    other = VoteSchema("turned", tuple(SCHEMA.questions[i] for i in order))
    columns = [SCHEMA.columns.index(c) for c in other.columns]
    concentrations, target = torch.tensor(random_votes(1)[0]), target_of(kind)
    found = loss(concentrations[:, columns], target[:, columns], other)
    np.testing.assert_allclose(found.numpy(), loss(concentrations, target, SCHEMA).numpy(), rtol=1e-12)


@loss_and_target
def test_weights_of_1_change_nothing_and_a_factor_passes_through(loss, kind):
    concentrations, target = torch.tensor(random_votes(1)[0]), target_of(kind)
    plain = loss(concentrations, target, SCHEMA)
    ones = torch.ones(17, dtype=torch.float64)
    np.testing.assert_allclose(loss(concentrations, target, SCHEMA, ones).numpy(), plain.numpy())
    np.testing.assert_allclose(loss(concentrations, target, SCHEMA, 3 * ones).numpy(), 3 * plain.numpy())


def test_cross_entropy_with_one_hot_labels_is_the_usual_one():
    schema = VoteSchema("t", (Question("a", ("x", "y", "z")),))
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 2, 1, 1, 0])
    weights = torch.tensor([1.0, 2.0, 5.0])
    found = class_cross_entropy(logits.softmax(1), torch.eye(3)[label], schema, weights)
    expected = torch.nn.functional.cross_entropy(logits, label, weights, reduction="none")
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5)


def test_cross_entropy_counts_a_question_as_far_as_it_was_asked():
    fractions, asked = np.array([0.25, 0.75]), 0.4
    joint = torch.tensor([[0.6, 0.4, *(asked * fractions)], [1.0, 0.0, 0.0, 0.0]])
    schema = VoteSchema("t", (Question("a", ("x", "y")), Question("b", ("yes", "no"), ("a_y",))))
    concentrations = torch.tensor([[5.0, 5.0, 8.0, 2.0]]).expand(2, 4).clone().requires_grad_()
    loss = class_cross_entropy(concentrations, joint, schema)
    expected = np.log(2) - asked * (fractions * np.log([0.8, 0.2])).sum()
    np.testing.assert_allclose(loss.detach().numpy(), [expected, np.log(2)], rtol=1e-6)
    loss.sum().backward()
    assert torch.equal(concentrations.grad[1, 2:], torch.zeros(2))


def test_class_weights_are_inverse_shares_with_a_cap():
    schema = VoteSchema("t", (Question("a", ("x", "y", "z")), Question("b", ("yes", "no"), ("a_z",))))
    joint = np.array([[0.7, 0.29, 0.01, 0, 0], [0.9, 0.09, 0.01, 0, 0]])
    found = class_weights(joint, schema, cap=10.0)
    np.testing.assert_allclose(found.numpy(), [1 / (3 * 0.8), 1 / (3 * 0.19), 10.0, 1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(class_weights(joint, schema, cap=1e9)[2].item(), 1 / (3 * 0.01), rtol=1e-6)


def test_class_weights_keep_the_mean_over_the_votes():
    joint = random_joint(0, 50)
    weights = class_weights(joint, SCHEMA, cap=1e9).double().numpy()
    for s in SCHEMA.slices.values():
        assert (joint * weights)[:, s].sum() == pytest.approx(joint[:, s].sum(), rel=1e-6)


def test_good_targets_pass():
    check_targets(random_joint(0), random_votes(0)[1], SCHEMA)
    check_targets(random_joint(0), None, SCHEMA)


def test_bad_targets_are_all_named_with_their_columns():
    joint, counts = random_joint(0), random_votes(0)[1].astype(float)
    joint[4, 0], counts[2, 3], counts[3, 3], counts[1, 5] = 1.5, np.nan, np.nan, -1
    with pytest.raises(InputError) as caught:
        check_targets(joint, counts, SCHEMA)
    text = str(caught.value)
    assert "smooth-or-featured_smooth: 1 joint values are above 1, first in row 4" in text
    assert "disk-edge-on_yes: 2 vote counts are not finite, first in row 2" in text
    assert "something-odd_yes: 1 vote counts are negative, first in row 1" in text


def test_targets_of_another_tree_are_refused():
    with pytest.raises(InputError, match="'galaxy-challenge' has 17 answers"):
        check_targets(np.zeros((4, 16)), None, SCHEMA)


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
