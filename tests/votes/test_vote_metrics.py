import numpy as np
import pytest

from surveyproc.errors import InputError
from surveyproc.votes import Question, VoteSchema
from surveyproc.votes.metrics import compare, kaggle_rmse, question_figures, reliability

SCHEMA = VoteSchema("t", (Question("a", ("x", "y")), Question("b", ("p", "q", "r"), ("a_x",))))


def test_the_rmse_has_one_root_over_galaxies_and_answers():
    assert kaggle_rmse([[0.0, 0.0], [0.0, 0.0]], [[0.3, 0.0], [0.0, 0.4]]) == pytest.approx(0.25)


@pytest.mark.parametrize(("a", "b"), [([[0.0]], [[0.0, 1.0]]), (np.empty((0, 2)), np.empty((0, 2)))])
def test_an_rmse_of_nothing_or_of_other_shapes_is_refused(a, b):
    with pytest.raises(InputError, match="cannot compare"):
        kaggle_rmse(a, b)


def test_the_rmse_compares_joint_values():
    fractions = np.array([[0.5, 0.5, 1.0, 0.0, 0.0]])
    joint = np.array([[0.5, 0.5, 0.25, 0.25, 0.0]])
    both = compare(fractions, joint, SCHEMA)
    assert kaggle_rmse(both.joint, both.said_joint) == pytest.approx(np.sqrt(2 * 0.25**2 / 5))
    figures = question_figures(both)
    assert figures["a"]["rmse"] == 0
    assert figures["b"]["rmse"] == pytest.approx(np.sqrt(2 * 0.25**2 / 3))


def test_a_perfect_prediction_beats_the_mean_of_the_labels():
    joint = SCHEMA.joint(np.array([[0.9, 0.1, 0.8, 0.1, 0.1], [0.2, 0.8, 0.1, 0.8, 0.1]]))
    figures = question_figures(compare(SCHEMA.conditional(joint), joint, SCHEMA))
    assert figures["a"]["rmse"] == pytest.approx(0, abs=1e-12)
    assert figures["a"]["constant_rmse"] == pytest.approx(0.35)


def test_accuracies_count_only_galaxies_whose_volunteers_were_asked():
    # b is asked of half or more in the first three; they agree (above 0.8) in the first two of those
    truth = np.array(
        [
            [1.0, 0.0, 0.9, 0.1, 0.0],
            [0.9, 0.1, 0.05, 0.9, 0.05],
            [0.5, 0.5, 0.6, 0.4, 0.0],
            [0.2, 0.8, 1.0, 0.0, 0.0],
        ]
    )
    guess = truth.copy()
    guess[1, 2:] = [0.6, 0.3, 0.1]
    figures = question_figures(compare(guess, SCHEMA.joint(truth), SCHEMA))["b"]
    assert figures["n"] == 3
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["n_high_agreement"] == 2
    assert figures["accuracy_high_agreement"] == 0.5
    assert figures["constant_high_agreement"] == 0.5
    assert figures["fraction_mae"] == pytest.approx((0.55 + 0.6 + 0.05) / 9)


def test_a_question_nobody_was_asked_has_no_accuracy():
    joint = np.array([[0.0, 1.0, 0.0, 0.0, 0.0]])
    figures = question_figures(compare(np.full((1, 5), 0.4), joint, SCHEMA))["b"]
    assert (figures["n"], figures["accuracy"], figures["accuracy_high_agreement"]) == (0, None, None)


def test_balanced_accuracy_weighs_the_answers_that_occur_alike():
    # 8 times x (6 right), 2 times y (1 right); above 0.8 agree: 4 of x (all right), 1 of y (wrong)
    says = [0.9] * 4 + [0.7] * 4 + [0.1] + [0.3]
    guess = [0.6] * 6 + [0.4] * 2 + [0.6] + [0.4]
    truth = np.array([[p, 1 - p, 0.3, 0.3, 0.4] for p in says])
    said = np.array([[p, 1 - p, 0.3, 0.3, 0.4] for p in guess])
    figures = question_figures(compare(said, SCHEMA.joint(truth), SCHEMA))["a"]
    assert figures["accuracy"] == pytest.approx(0.7)
    assert figures["balanced_accuracy"] == pytest.approx((6 / 8 + 1 / 2) / 2)
    assert figures["constant_accuracy"] == pytest.approx(0.8)
    assert figures["constant_balanced_accuracy"] == 0.5
    assert figures["n_high_agreement"] == 5
    assert figures["accuracy_high_agreement"] == pytest.approx(0.8)
    assert figures["balanced_accuracy_high_agreement"] == pytest.approx(0.5)
    assert figures["constant_balanced_high_agreement"] == 0.5


def test_with_counts_a_question_with_too_few_votes_is_not_scored():
    joint = SCHEMA.joint(np.tile([0.8, 0.2, 1.0, 0.0, 0.0], (3, 1)))
    counts = joint * np.array([[50], [20], [5]])
    both = compare(SCHEMA.conditional(joint), joint, SCHEMA, counts, min_votes=10)
    assert both.scored.tolist() == [[True, True], [True, True], [False, False]]
    assert compare(SCHEMA.conditional(joint), joint, SCHEMA, counts, 17).scored[1].tolist() == [True, False]


def test_reliability_bins_hold_the_means_of_both_sides():
    truth = np.array([[0.9, 0.1, 0.5, 0.5, 0.0], [0.7, 0.3, 0.2, 0.2, 0.6], [1.0, 0.0, 1.0, 0.0, 0.0]])
    said = np.array([[0.82, 0.18, 0.4, 0.4, 0.2], [0.88, 0.12, 0.4, 0.4, 0.2], [1.0, 0.0, 0.4, 0.4, 0.2]])
    bins = reliability(compare(said, SCHEMA.joint(truth), SCHEMA))["a"]
    assert [(b["low"], b["high"], b["n"]) for b in bins] == [
        (0, 0.1, 1),
        (0.1, 0.2, 2),
        (0.8, 0.9, 2),
        (0.9, 1, 1),
    ]
    assert bins[1]["predicted"] == pytest.approx(0.15)
    assert bins[1]["observed"] == pytest.approx(0.2)
    assert sum(b["n"] for b in bins) == 6
