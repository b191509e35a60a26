import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from surveyproc.errors import InputError, UsageError
from surveyproc.votes import Question, VoteSchema, load_schema
from surveyproc.votes.labels import join_ids, read_labels

SCHEMA = VoteSchema("t", (Question("odd", ("yes", "no")),), {"odd_yes": "Class6.1", "odd_no": "Class6.2"})


def write(path, text):
    path.write_text(text)
    return str(path)


def test_kaggle_columns_are_read_in_the_order_of_the_tree(tmp_path):
    labels = read_labels(write(tmp_path / "l.csv", "Class6.2,GalaxyID,Class6.1\n0.25,7,0.75\n"), SCHEMA)
    assert labels.ids == ["7"]
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


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("GalaxyID,Class6.1\n1,0.5\n", InputError, "lack 1 of 2 answers.*Class6.2"),
        ("name,Class6.1,Class6.2\n1,0.5,0.5\n", UsageError, "none of the id columns"),
        ("GalaxyID,Class6.1,Class6.2\n1,0.5,0.5\n1,0.5,0.5\n", InputError, "id 1 appears more than once"),
        ("GalaxyID,Class6.1,Class6.2\n1,44,0.5\n", InputError, "Class6.1 of id 1 is 44, not a fraction"),
        ("GalaxyID,Class6.1,Class6.2\n1,,0.5\n", InputError, "Class6.1 of id 1 is nan"),
        ("GalaxyID,Class6.1,Class6.2\n1,many,0.5\n", InputError, "Class6.1 of the labels is not numeric"),
        ("GalaxyID,Class6.1,Class6.2\n,0.5,0.5\n", InputError, "row 0 of the labels has no id"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_with_the_reason(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        read_labels(write(tmp_path / "l.csv", text), SCHEMA)


def test_a_mistyped_id_column_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'GalaxyID'"):
        read_labels(write(tmp_path / "l.csv", "GalaxyID,Class6.1,Class6.2\n1,0.5,0.5\n"), SCHEMA, "GalaxyId")


def test_a_missing_label_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no label file"):
        read_labels(str(tmp_path / "none.csv"), SCHEMA)


def test_a_join_counts_what_is_unmatched_on_both_sides():
    join = join_ids(["a", "b", "c"], ["c", "x", "a", "y"])
    assert join.left.tolist() == [0, 2]
    assert join.right.tolist() == [2, 0]
    assert (join.left_only, join.right_only) == (1, 2)


def test_the_real_labels_obey_the_tree(shared_data):
    schema = load_schema("galaxy-challenge")
    labels = read_labels(str(shared_data / "galaxy_zoo_challenge" / "labels.csv"), schema)
    assert labels.joint.shape == (4057, 17)
    asked = schema.asked_of_joint(labels.joint)
    for q, s in enumerate(schema.slices.values()):
        np.testing.assert_allclose(labels.joint[:, s].sum(1), asked[:, q], atol=2e-6)
    np.testing.assert_allclose(schema.joint(schema.conditional(labels.joint)), labels.joint, atol=1e-12)
