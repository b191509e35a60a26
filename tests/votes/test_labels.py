import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from surveyproc.errors import InputError, UsageError
from surveyproc.votes import Question, VoteSchema, load_schema
from surveyproc.votes.labels import join_ids, read_labels

SCHEMA = VoteSchema("t", (Question("odd", ("yes", "no")),), {"odd_yes": "Class6.1", "odd_no": "Class6.2"})
TREE = VoteSchema(
    "two", (Question("disc", ("yes", "no", "star")), Question("bar", ("yes", "no"), ("disc_yes",)))
)
HEAD = "object_id,disc_yes,disc_no,disc_star,bar_yes,bar_no\n"
DEEP = VoteSchema("deep", (*TREE.questions, Question("ring", ("yes", "no"), ("bar_no",))))


def write(path, text):
    path.write_text(text)
    return str(path)


def read(tmp_path, rows, values=None, schema=TREE, head=HEAD, say=lambda line: None):
    return read_labels(
        write(tmp_path / "l.csv", head + "\n".join(rows) + "\n"), schema, values=values, say=say
    )


def complaint(tmp_path, rows, values=None, schema=TREE, head=HEAD):
    with pytest.raises(InputError) as caught:
        read(tmp_path, rows, values, schema, head)
    return caught.value


def test_kaggle_columns_are_read_in_the_order_of_the_tree(tmp_path):
    labels = read_labels(write(tmp_path / "l.csv", "Class6.2,GalaxyID,Class6.1\n0.25,7,0.75\n"), SCHEMA)
    assert labels.ids == ["7"]
    assert labels.counts is None
    np.testing.assert_array_equal(labels.joint, [[0.75, 0.25]])


def test_answer_names_serve_as_columns_too_and_large_ids_stay_exact(tmp_path):
    path = str(tmp_path / "l.parquet")
    pq.write_table(
        pa.table({"object_id": [-(2**62) - 1, 2**53 + 1], "odd_yes": [0.0, 1.0], "odd_no": [1.0, 0.0]}), path
    )
    assert read_labels(path, SCHEMA).ids == [str(-(2**62) - 1), str(2**53 + 1)]


def test_ids_in_csv_keep_their_leading_zeros(tmp_path):
    path = write(tmp_path / "l.csv", "name,Class6.1,Class6.2\n007,0.5,0.5\n")
    assert read_labels(path, SCHEMA, "name").ids == ["007"]


def test_joint_values_are_taken_as_they_are(tmp_path):
    labels = read(tmp_path, ["1,0.4,0.5,0.1,0.1,0.3", "2,0,1,0,,"])
    np.testing.assert_allclose(labels.joint, [[0.4, 0.5, 0.1, 0.1, 0.3], [0, 1, 0, 0, 0]])


def test_conditional_fractions_are_multiplied_down_the_tree(tmp_path):
    labels = read(tmp_path, ["1,0.4,0.5,0.1,0.25,0.75", "2,0,1,0,,", "3,0,1,0,0,0"], "fractions")
    np.testing.assert_allclose(labels.joint, [[0.4, 0.5, 0.1, 0.1, 0.3], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0]])
    assert labels.counts is None


def test_votes_become_joint_values_and_are_kept(tmp_path):
    """4 of 10 saw a disc, and of these 3 answered on the bar, 1 yes: 0.4 x 1/3 of all."""
    labels = read(tmp_path, ["1,4,5,1,1,2", "2,0,3,0,0,0"], "counts")
    np.testing.assert_allclose(labels.joint, [[0.4, 0.5, 0.1, 0.4 / 3, 0.8 / 3], [0, 1, 0, 0, 0]])
    np.testing.assert_array_equal(labels.counts, [[4, 5, 1, 1, 2], [0, 3, 0, 0, 0]])


def test_a_schema_says_what_its_columns_hold(tmp_path):
    schema = VoteSchema("two", TREE.questions, values="counts")
    assert read(tmp_path, ["1,4,5,1,1,2"], schema=schema).counts is not None


def test_a_question_that_is_empty_has_no_votes_and_that_is_said(tmp_path):
    said = []
    labels = read(tmp_path, ["1,4,5,1,,", "2,4,0,0,,", "3,2,0,0,1,1"], "counts", say=said.append)
    assert labels.counts[0].tolist() == [4, 5, 1, 0, 0]
    assert labels.joint[0].tolist() == [0.4, 0.5, 0.1, 0, 0]
    assert TREE.known(labels.joint).tolist() == [[True, False], [True, False], [True, True]]
    assert [line for line in said if "empty" in line] == [
        "labels: empty cells are no votes: bar (2 galaxies)"
    ]


def test_what_hangs_on_a_question_nobody_answered_is_0_and_that_is_said(tmp_path):
    said = []
    head = HEAD.strip() + ",ring_yes,ring_no\n"
    labels = read(tmp_path, ["1,4,5,1,,,1,1"], "counts", DEEP, head, said.append)
    assert np.isfinite(labels.joint).all()
    assert labels.joint[0, 3:].tolist() == [0, 0, 0, 0]
    assert (
        said[-1]
        == "labels: votes on questions whose parents nobody gave have joint value 0: ring (1 galaxies)"
    )


@pytest.mark.parametrize("values", ["joint", "fractions", "counts"])
@pytest.mark.parametrize("empty", ["7,0,0,0,0,0", "7,,,,,"])
def test_a_galaxy_without_a_vote_is_left_out_and_that_is_said(tmp_path, values, empty):
    said = []
    labels = read(tmp_path, ["1,0,1,0,0,0", empty, "8,0,0,0,0,0"], values, say=said.append)
    assert labels.ids == ["1"]
    assert len(labels.joint) == 1
    assert "labels: 2 galaxies without any vote are left out" in said


def test_labels_without_any_vote_are_refused(tmp_path):
    error = complaint(tmp_path, ["1,0,0,0,0,0", "2,,,,,"], "counts")
    assert error.what == "none of the 2 galaxies of the labels has a vote"


def test_columns_that_are_not_read_are_named(tmp_path):
    said = []
    read(tmp_path, ["1,0,1,0,0,0,17.5"], head=HEAD.strip() + ",mag\n", say=said.append)
    assert said == [
        "labels: 1 galaxies, joint of the 5 answers of two",
        "labels: 1 columns are not used: mag",
    ]


@pytest.mark.parametrize(
    ("values", "rows", "problem"),
    [
        ("joint", ["1,0.4,0.5,0.1,0.1,0.3", "2,44,0,0,0,0"], "disc_yes is outside [0, 1]: 1 (id 2: 44)"),
        ("joint", ["1,-0.1,1,0.1,0,0", "2,-0.2,1,0.2,0,0"], "disc_yes is outside [0, 1]: 2 (id 1: -0.1)"),
        ("joint", ["1,0.4,0.5,0.2,0.1,0.3"], "'disc' does not sum to 1: 1 (id 1: 1.1, not 1)"),
        (
            "joint",
            ["1,0.4,0.5,0.1,0.1,0.1", "2,1,0,0,0,0.9"],
            "'bar' does not sum to the value of its parents: 2 (id 1: 0.2, not 0.4)",
        ),
        ("joint", ["1,0.4,0.5,0.1,,0.4"], "bar_yes is empty though its question was asked: 1 (id 1)"),
        ("joint", ["1,inf,0,0,0.1,0.3"], "disc_yes is infinite: 1 (id 1: inf)"),
        ("fractions", ["1,0.4,0.5,0.1,0.1,0.3"], "'bar' does not sum to 1: 1 (id 1: 0.4, not 1)"),
        ("fractions", ["1,0.4,0.5,0.1,1,"], "bar_no is empty though its question was asked: 1 (id 1)"),
        ("fractions", ["1,0.4,0.5,0.1,0,0"], "'bar' does not sum to 1: 1 (id 1: 0, not 1)"),
        ("counts", ["1,4,-5,1,1,2", "2,4,-1,1,1,2"], "disc_no is negative: 2 (id 1: -5)"),
        ("counts", ["1,4,5,1,1,"], "some answers of 'bar' are empty and others are not: 1 (id 1)"),
        ("counts", ["1,4,-inf,1,1,2"], "disc_no is infinite: 1 (id 1: -inf)"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name_and_count(tmp_path, values, rows, problem):
    error = complaint(tmp_path, rows, values)
    assert error.what == f"galaxies where {problem}"
    assert error.where.endswith("l.csv")
    assert error.fix


@pytest.mark.parametrize(
    ("head", "rows", "problem"),
    [
        (
            HEAD.replace("bar_no", "bar_noo"),
            ["1,0,1,0,0,0"],
            "missing: 1 of 5: bar_no. Did you mean 'bar_noo'?",
        ),
        (HEAD.replace(",bar_no", ""), ["1,0,1,0,0"], "columns that are missing: 1 of 5: bar_no"),
        (HEAD, ["1,many,1,0,0,0", "2,0,1,0,0,few"], "cells of disc_yes that are not numbers: 1 ('many')"),
        (HEAD, ["1,0,1,0,0,0", "1,0,1,0,0,0"], "ids that appear more than once: 1 (1)"),
        (HEAD, [",0,1,0,0,0", "4,0,1,0,0,0", ",0,1,0,0,0"], "rows without an id in object_id: 2 (row 0, 2; "),
        (HEAD, [], "the labels have no rows"),
        (HEAD.replace("bar_no", "bar_yes"), ["1,0,1,0,0,0"], "columns that appear twice: bar_yes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name_and_count(tmp_path, head, rows, problem):
    assert problem in str(complaint(tmp_path, rows, head=head))


def test_all_problems_are_told_at_once(tmp_path):
    what = complaint(tmp_path, ["1,x,1,0,0,0", "1,0,1,0,y,0", ",0,1,0,0,0"]).what
    assert what.startswith("the labels have 4 problems:\n")
    for part in ("disc_yes", "bar_yes", "appear more than once", "without an id"):
        assert part in what
    what = complaint(tmp_path, ["1,2,1,0,0,0", "2,0,0.5,0,-1,0", "3,1,0,0,0.1,0.2"]).what
    for part in ("disc_yes is outside", "bar_yes is outside", "'disc' does not sum", "'bar' does not sum"):
        assert part in what


def test_a_long_list_of_problems_ends_with_their_number(tmp_path):
    schema = load_schema("galaxy-challenge-full")
    head = "GalaxyID," + ",".join(schema.labels.values()) + "\n"
    what = complaint(tmp_path, ["1," + ",".join(["x"] * 37)], schema=schema, head=head).what
    assert what.startswith("the labels have 37 problems")
    assert what.endswith("and 17 more")


@pytest.mark.parametrize(
    ("values", "rows", "likely"),
    [
        ("joint", ["1,4,5,1,1,2"], "counts"),
        ("fractions", ["1,4,5,1,1,2"], "counts"),
        ("joint", ["1,0.4,0.5,0.1,0.25,0.75"], "fractions"),
        ("counts", ["1,0.4,0.5,0.1,0.25,0.75"], "fractions"),
        ("fractions", ["1,0.4,0.5,0.1,0.1,0.3"], "joint"),
        ("counts", ["1,0.4,0.5,0.1,0.1,0.3"], "joint"),
    ],
)
def test_values_of_another_kind_are_recognised(tmp_path, values, rows, likely):
    assert complaint(tmp_path, rows, values).fix.endswith(f"pass --values {likely}")


def test_values_of_no_kind_are_not_called_votes(tmp_path):
    assert "correct them" in complaint(tmp_path, ["1,0.4,0.5,0.1,0.1,0.3", "2,1.5,0,0,0,1.5"]).fix


def test_rounding_around_0_and_1_is_cut_off(tmp_path):
    joint = read(tmp_path, ["1,1.0000004,-0.0000004,0,1.0000004,-0.0000004"]).joint
    assert joint.tolist() == [[1, 0, 0, 1, 0]]


def test_a_file_of_another_tree_is_answered_with_that_tree(tmp_path):
    head = "GalaxyID," + ",".join(load_schema("galaxy-challenge").labels.values()) + "\n"
    row = ["1," + ",".join(["0"] * 17)]
    error = complaint(tmp_path, row, schema=load_schema("decals-dr5"), head=head)
    assert "none of the 34 columns of 'decals-dr5'" in error.what
    assert "the columns of: galaxy-challenge;" in error.fix
    error = complaint(tmp_path, row, schema=load_schema("galaxy-challenge-full"), head=head)
    assert "missing: 20 of 37: Class3.1" in error.what
    assert "the columns of: galaxy-challenge;" in error.fix


def test_an_unknown_kind_of_values_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'counts'"):
        read(tmp_path, ["1,0,1,0,0,0"], "count")


def test_labels_need_an_id_column(tmp_path):
    with pytest.raises(UsageError, match="none of the id columns"):
        read_labels(write(tmp_path / "l.csv", "name,Class6.1,Class6.2\n1,0.5,0.5\n"), SCHEMA)


def test_a_mistyped_id_column_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'GalaxyID'"):
        read_labels(write(tmp_path / "l.csv", "GalaxyID,Class6.1,Class6.2\n1,0.5,0.5\n"), SCHEMA, "GalaxyId")


def test_ids_that_lost_their_digits_are_refused(tmp_path):
    path = str(tmp_path / "l.parquet")
    pq.write_table(pa.table({"object_id": [1.0, 2.0], "odd_yes": [0.0, 1.0], "odd_no": [1.0, 0.0]}), path)
    with pytest.raises(InputError, match="object_id holds double; ids are whole numbers or text"):
        read_labels(path, SCHEMA)


def test_parquet_columns_of_other_types_are_read_or_named(tmp_path):
    path = str(tmp_path / "l.parquet")
    ids = pa.array(["a", "b"]).dictionary_encode()
    pq.write_table(pa.table({"object_id": ids, "odd_yes": ["0.25", " 1"], "odd_no": [0.75, 0.0]}), path)
    labels = read_labels(path, SCHEMA)
    assert labels.ids == ["a", "b"]
    assert labels.joint.tolist() == [[0.25, 0.75], [1, 0]]
    pq.write_table(pa.table({"object_id": ids, "odd_yes": [[0.2], [0.1]], "odd_no": [0.75, 0.0]}), path)
    with pytest.raises(InputError, match=r"cells of odd_yes that are not numbers: 2 \('\[0.2\]'"):
        read_labels(path, SCHEMA)


@pytest.mark.parametrize("name", ["none.csv", "none.parquet"])
def test_a_missing_label_file_is_an_input_error(tmp_path, name):
    with pytest.raises(InputError, match="no label file"):
        read_labels(str(tmp_path / name), SCHEMA)


@pytest.mark.parametrize("name", ["l.csv", "l.parquet"])
def test_a_file_that_is_neither_is_an_input_error(tmp_path, name):
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(write(tmp_path / name, ""), SCHEMA)


def test_a_join_counts_what_is_unmatched_on_both_sides():
    join = join_ids(["a", "b", "c"], ["c", "x", "a", "y"])
    assert join.left.tolist() == [0, 2]
    assert join.right.tolist() == [2, 0]
    assert (join.left_only, join.right_only) == (1, 2)
    assert (
        join.describe("run", "labels") == "2 ids in both, 1 only in the run (b), 2 only in the labels (x, y)"
    )


def test_a_join_names_three_of_many_unmatched_ids_and_none_of_none():
    join = join_ids(["a", "b", "c", "d", "e"], ["a"])
    assert join.describe("run", "labels") == (
        "1 ids in both, 4 only in the run (b, c, d, ...), 0 only in the labels"
    )


def test_the_real_labels_obey_the_tree(shared_data):
    """The targets are rounded: the largest departure of a question's sum is 1.0e-6."""
    schema = load_schema("galaxy-challenge")
    said = []
    labels = read_labels(str(shared_data / "galaxy_zoo_challenge" / "labels.csv"), schema, say=said.append)
    assert labels.joint.shape == (4057, 17)
    assert said == ["labels: 4057 galaxies, joint of the 17 answers of galaxy-challenge"]
    asked = schema.asked_of_joint(labels.joint)
    for q, s in enumerate(schema.slices.values()):
        np.testing.assert_allclose(labels.joint[:, s].sum(1), asked[:, q], atol=2e-6)
    np.testing.assert_allclose(schema.joint(schema.conditional(labels.joint)), labels.joint, atol=1e-12)
    assert schema.known(labels.joint).all()
