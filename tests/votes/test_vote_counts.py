import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from surveyproc.votes import Question, VoteSchema, load_schema, pseudo_counts
from surveyproc.votes.counts import joint_of_counts

TREE = VoteSchema(
    "t",
    (Question("disc", ("yes", "no", "star")), Question("bar", ("yes", "no"), ("disc_yes",))),
    votes_per_galaxy=10,
)
GZ2 = load_schema("gz2")


def test_pseudo_counts_are_the_rounded_share_of_the_volunteers():
    """10 volunteers; 0.36 of them, 4 after rounding, are asked about the bar, and a quarter says yes."""
    counts = pseudo_counts(np.array([[0.36, 0.5, 0.14, 0.09, 0.27], [0.04, 0.96, 0.0, 0.04, 0.0]]), TREE)
    np.testing.assert_allclose(counts, [[3.6, 5.0, 1.4, 1.0, 3.0], [0.4, 9.6, 0, 0, 0]])


def test_pseudo_counts_of_a_question_nobody_answered_are_0():
    assert pseudo_counts(np.array([[1.0, 0, 0, 0, 0]]), TREE).tolist() == [[10, 0, 0, 0, 0]]


def test_pseudo_counts_of_a_question_are_a_whole_number_of_volunteers(shared_data):
    from surveyproc.votes.labels import read_labels

    schema = load_schema("galaxy-challenge")
    joint = read_labels(str(shared_data / "galaxy_zoo_challenge" / "labels.csv"), schema).joint
    counts = pseudo_counts(joint, schema)
    for q, s in enumerate(schema.slices.values()):
        n = counts[:, s].sum(axis=1)
        np.testing.assert_allclose(n, np.round(n), atol=1e-9)
        np.testing.assert_allclose(n, 44 * schema.asked_of_joint(joint)[:, q], atol=0.5 + 1e-9)


@given(hnp.arrays(np.float64, (4, 37), elements=st.integers(1, 60)))
def test_votes_of_each_question_give_back_its_fractions(counts):
    """With votes on every answer the conditional fractions of the joint values are count / N."""
    joint = joint_of_counts(counts, GZ2)
    fractions = GZ2.conditional(joint)
    for s in GZ2.slices.values():
        np.testing.assert_allclose(
            fractions[:, s], counts[:, s] / counts[:, s].sum(1, keepdims=True), rtol=1e-9
        )


@given(hnp.arrays(np.float64, (4, 37), elements=st.integers(0, 3)))
def test_joint_values_are_finite_and_sum_to_what_was_asked_or_0(counts):
    joint = joint_of_counts(counts, GZ2)
    assert np.isfinite(joint).all()
    asked = GZ2.asked_of_joint(joint)
    for q, s in enumerate(GZ2.slices.values()):
        totals = joint[:, s].sum(1)
        np.testing.assert_allclose(totals, np.where(counts[:, s].sum(1) > 0, asked[:, q], 0), atol=1e-12)


def test_volunteers_who_follow_the_tree_give_their_shares_of_all():
    """Every volunteer answers each question they are asked: then a joint value is votes over volunteers."""
    rng = np.random.default_rng(5)
    counts = np.zeros((1, 37))
    index = {c: i for i, c in enumerate(GZ2.columns)}
    for _ in range(200):
        given = set()
        for q in GZ2.asking_order:
            question = GZ2.questions[q]
            if not question.parents or given & set(question.parents):
                answer = f"{question.name}_{rng.choice(question.answers)}"
                given.add(answer)
                counts[0, index[answer]] += 1
    joint = joint_of_counts(counts, GZ2)
    assert joint == pytest.approx(counts / 200, abs=1e-12)
    assert GZ2.known(joint).all()
