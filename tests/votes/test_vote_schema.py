import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from surveyproc.errors import InputError
from surveyproc.votes import Question, VoteSchema, load_schema

CHALLENGE = load_schema("galaxy-challenge")
FULL = load_schema("galaxy-challenge-full")
GZ2 = load_schema("gz2")


def tree(*questions):
    return VoteSchema("t", tuple(Question(*q) for q in questions))


ANY_OF = tree(
    ("a", ("x", "y", "z")),
    ("b", ("yes", "no"), ("a_x", "a_y")),
    ("c", ("yes", "no"), ("b_yes",)),
)


def dirichlet_fractions(schema):
    shape = (5, len(schema.columns))
    weights = hnp.arrays(np.float64, shape, elements=st.floats(0.01, 1.0))

    def normalise(array):
        return np.concatenate(
            [array[:, s] / array[:, s].sum(1, keepdims=True) for s in schema.slices.values()], axis=1
        )

    return weights.map(normalise)


def test_the_challenge_tree_has_the_labelled_answers_in_the_order_of_the_kaggle_columns():
    assert list(CHALLENGE.slices) == [
        "smooth-or-featured",
        "disk-edge-on",
        "something-odd",
        "how-rounded",
        "odd-feature",
    ]
    assert len(CHALLENGE.columns) == 17
    assert [CHALLENGE.labels[c] for c in CHALLENGE.columns] == [
        *("Class1.1", "Class1.2", "Class1.3", "Class2.1", "Class2.2", "Class6.1", "Class6.2"),
        *("Class7.1", "Class7.2", "Class7.3"),
        *(f"Class8.{i}" for i in range(1, 8)),
    ]
    odd = CHALLENGE.questions[2]
    assert odd.name == "something-odd"
    assert odd.parents == ()


def test_a_schema_survives_its_json_form():
    assert VoteSchema.from_dict(CHALLENGE.to_dict()).to_dict() == CHALLENGE.to_dict()
    assert VoteSchema.from_dict(CHALLENGE.to_dict()) == CHALLENGE


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([("a", ("x", "y"), ("b_x",)), ("b", ("x", "y"), ("a_x",))], "circle: a, b"),
        ([("a", ("x", "y"), ("a_x",))], "circle: a"),
        ([("a", ("x", "y")), ("b", ("x", "y"), ("a_q",))], "unknown parent 'a_q'"),
        ([("a", ("x", "y")), ("a", ("u", "v"))], "question 'a' appears twice"),
        ([("a", ("x", "x"))], "answer 'x' of 'a' appears twice"),
        ([("a", ("x",))], "fewer than two answers"),
        ([("a", ("b_x", "y")), ("a_b", ("x", "y"))], "same column name"),
        ([], "no questions"),
    ],
)
def test_what_is_not_a_decision_tree_is_refused_with_the_reason(questions, message):
    with pytest.raises(InputError, match=message):
        tree(*questions)


def test_all_problems_of_a_tree_are_told_at_once():
    with pytest.raises(InputError) as caught:
        tree(("a", ("x",)), ("b", ("x", "y"), ("a_q",)))
    assert "fewer than two" in str(caught.value)
    assert "unknown parent" in str(caught.value)


def test_labels_of_unknown_answers_are_refused():
    with pytest.raises(InputError, match="label of unknown answer 'a_q'"):
        VoteSchema("t", (Question("a", ("x", "y")),), {"a_q": "Class1.1"})


def test_an_unknown_schema_is_answered_with_the_nearest_name():
    with pytest.raises(InputError, match="Did you mean 'galaxy-challenge'"):
        load_schema("galaxy-chalenge")


def test_a_schema_without_questions_key_is_refused():
    with pytest.raises(InputError, match="it has no questions"):
        VoteSchema.from_dict({"name": "t"})


def test_values_of_an_unknown_kind_are_refused():
    with pytest.raises(InputError, match="values is 'votes', not one of"):
        VoteSchema("t", (Question("a", ("x", "y")),), values="votes")


def test_proportion_asked_multiplies_down_the_path_and_sums_over_parents():
    fractions = np.array([[0.5, 0.3, 0.2, 0.25, 0.75, 0.9, 0.1]])
    np.testing.assert_allclose(ANY_OF.proportion_asked(fractions), [[1.0, 0.8, 0.2]])
    np.testing.assert_allclose(ANY_OF.joint(fractions), [[0.5, 0.3, 0.2, 0.2, 0.6, 0.18, 0.02]])


def test_questions_may_be_listed_before_their_parents():
    backwards = tree(("c", ("yes", "no"), ("a_x",)), ("a", ("x", "y")))
    np.testing.assert_allclose(backwards.proportion_asked(np.array([[0.5, 0.5, 0.25, 0.75]])), [[0.25, 1.0]])


def test_a_fraction_whose_parent_is_0_is_missing_and_its_joint_value_is_0():
    joint = np.array([[1.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.9, 0.4, 0.6, 0.0, *([0.0] * 7)]])
    joint[0, CHALLENGE.slices["odd-feature"].start] = 0.1
    fractions = CHALLENGE.conditional(joint)
    assert np.isnan(fractions[0, CHALLENGE.slices["disk-edge-on"]]).all()
    assert np.isfinite(np.delete(fractions, [3, 4], axis=1)).all()
    np.testing.assert_allclose(CHALLENGE.joint(fractions), joint)


@pytest.mark.parametrize("schema", [CHALLENGE, FULL, GZ2, ANY_OF], ids=["challenge", "full", "gz2", "any-of"])
def test_conversions_invert_each_other(schema):
    @given(dirichlet_fractions(schema))
    def inverts(fractions):
        np.testing.assert_allclose(schema.conditional(schema.joint(fractions)), fractions, rtol=1e-9)

    inverts()


@pytest.mark.parametrize("schema", [CHALLENGE, FULL, GZ2, ANY_OF], ids=["challenge", "full", "gz2", "any-of"])
def test_joint_values_of_a_question_sum_to_the_proportion_asked(schema):
    @given(dirichlet_fractions(schema))
    def sums(fractions):
        joint, asked = schema.joint(fractions), schema.proportion_asked(fractions)
        for q, s in enumerate(schema.slices.values()):
            np.testing.assert_allclose(joint[:, s].sum(1), asked[:, q], rtol=1e-9)
        np.testing.assert_allclose(schema.asked_of_joint(joint), asked, rtol=1e-9)

    sums()


def kaggle_targets(p):
    """Weight per-question probabilities as the Galaxy Challenge did, in its order; columns Class1.1 to Class11.6."""
    t = p.copy()
    t[:, 3:5] *= t[:, 1:2]
    t[:, 5:13] *= t[:, 4:5]
    t[:, 15:18] *= t[:, 0:1]
    t[:, 18:25] *= t[:, 13:14]
    t[:, 25:28] *= t[:, 3:4]
    t[:, 28:37] *= t[:, 7:8]
    return t


@given(dirichlet_fractions(FULL))
def test_joint_values_of_the_full_challenge_tree_are_the_kaggle_targets(fractions):
    targets = kaggle_targets(fractions)
    np.testing.assert_allclose(FULL.joint(fractions), targets, rtol=1e-12)
    np.testing.assert_allclose(FULL.conditional(targets), fractions, rtol=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_answers_nobody_gave_survive_both_conversions(seed):
    """With hard zeros the fractions below are missing, and come back as missing; joint values are exact."""
    rng = np.random.default_rng(seed)
    weights = rng.random((6, 37)) * (rng.random((6, 37)) < 0.5)
    for s in FULL.slices.values():
        weights[weights[:, s].sum(1) == 0, s.start] = 1
        weights[:, s] /= weights[:, s].sum(1, keepdims=True)
    targets = kaggle_targets(weights)
    fractions = FULL.conditional(targets)
    np.testing.assert_array_equal(np.isnan(fractions), FULL.asked_of_joint(targets)[:, FULL.question_of] == 0)
    np.testing.assert_allclose(fractions[np.isfinite(fractions)], weights[np.isfinite(fractions)], rtol=1e-9)
    np.testing.assert_allclose(FULL.joint(fractions), targets, atol=1e-15)


def test_odd_is_asked_of_all_but_artifacts_in_galaxy_zoo_2():
    fractions = np.full((1, 37), 0.5)
    fractions[0, :3] = 0.6, 0.3, 0.1
    asked = dict(zip(GZ2.slices, GZ2.proportion_asked(fractions)[0]))
    assert asked["something-odd"] == pytest.approx(0.9)
    assert asked["odd-feature"] == pytest.approx(0.45)
    assert asked["bar"] == asked["bulge-size"] == pytest.approx(0.15)
    assert asked["spiral-arm-count"] == pytest.approx(0.075)


def test_parents_on_two_questions_add_up():
    """A question after either end of two branches: 0.4 x 0.1 + 0.6 x 0.2 of all volunteers."""
    two = tree(
        ("a", ("x", "y")),
        ("b", ("yes", "no"), ("a_x",)),
        ("c", ("yes", "no"), ("a_y",)),
        ("d", ("yes", "no"), ("b_yes", "c_no")),
    )
    fractions = np.array(
        [[0.4, 0.6, 0.1, 0.9, 0.8, 0.2, 0.25, 0.75], [1.0, 0.0, 0.5, 0.5, np.nan, np.nan, 1.0, 0.0]]
    )
    np.testing.assert_allclose(two.proportion_asked(fractions), [[1, 0.4, 0.6, 0.16], [1, 1, 0, 0.5]])
    np.testing.assert_allclose(two.joint(fractions)[:, 6:], [[0.04, 0.12], [0.5, 0.0]])
    np.testing.assert_allclose(two.conditional(two.joint(fractions)), fractions)


def test_a_question_that_was_asked_and_not_answered_is_missing_not_0():
    joint = np.array([[0.5, 0.3, 0.2, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    assert np.isnan(ANY_OF.conditional(joint)[0, 3:]).all()
    assert ANY_OF.known(joint).tolist() == [[True, False, False], [True, True, True]]
