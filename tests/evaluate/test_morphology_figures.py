import numpy as np
import pytest

from surveyproc.errors import InputError
from surveyproc.evaluate.morphology import evaluate_morphology, kaggle_rmse, question_figures
from surveyproc.votes import Question, VoteSchema

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
    figures = evaluate_morphology(fractions, joint, SCHEMA)
    assert figures["n"] == 1
    assert figures["rmse"] == pytest.approx(np.sqrt(2 * 0.25**2 / 5))
    assert figures["questions"]["a"]["rmse"] == 0
    assert figures["questions"]["b"]["rmse"] == pytest.approx(np.sqrt(2 * 0.25**2 / 3))


def test_a_perfect_prediction_beats_the_mean_of_the_labels():
    joint = SCHEMA.joint(np.array([[0.9, 0.1, 0.8, 0.1, 0.1], [0.2, 0.8, 0.1, 0.8, 0.1]]))
    figures = evaluate_morphology(SCHEMA.conditional(joint), joint, SCHEMA)
    assert figures["rmse"] == pytest.approx(0, abs=1e-12)
    spread = (joint - joint.mean(0)) ** 2
    assert figures["constant_rmse"] == pytest.approx(np.sqrt(spread.mean()))


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
    figures = question_figures(guess, SCHEMA.joint(truth), SCHEMA)["b"]
    assert figures["n"] == 3
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["n_high_agreement"] == 2
    assert figures["accuracy_high_agreement"] == 0.5
    assert figures["constant_high_agreement"] == 0.5
    assert figures["fraction_mae"] == pytest.approx((0.55 + 0.6 + 0.05) / 9)


def test_a_question_nobody_was_asked_has_no_accuracy():
    joint = np.array([[0.0, 1.0, 0.0, 0.0, 0.0]])
    figures = question_figures(np.full((1, 5), 0.4), joint, SCHEMA)["b"]
    assert (figures["n"], figures["accuracy"], figures["accuracy_high_agreement"]) == (0, None, None)
