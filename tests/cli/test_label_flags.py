import argparse

import pytest

from surveyproc.cli._labels import add_label_arguments, read_labels_of


def parse(*words):
    parser = argparse.ArgumentParser()
    add_label_arguments(parser)
    return parser.parse_args(words)


def test_the_flags_choose_tree_ids_and_kind_of_values(tmp_path):
    (tmp_path / "t.yaml").write_text("name: t\nquestions: [{name: odd, answers: [yes, no]}]\n")
    (tmp_path / "l.csv").write_text("name,odd_yes,odd_no\na,3,1\n")
    said = []
    args = parse(
        *("--labels", str(tmp_path / "l.csv"), "--schema", str(tmp_path / "t.yaml")),
        *("--id", "name", "--values", "counts"),
    )
    schema, labels = read_labels_of(args, said.append)
    assert schema.name == "t"
    assert labels.ids == ["a"]
    assert labels.joint.tolist() == [[0.75, 0.25]]
    assert labels.counts.tolist() == [[3, 1]]
    assert said == ["labels: 1 galaxies, counts of the 2 answers of t"]


def test_without_a_flag_the_schema_says_what_its_labels_hold():
    assert parse("--labels", "l.csv").values is None


def test_a_kind_of_values_that_is_none_is_refused():
    with pytest.raises(SystemExit):
        parse("--values", "votes")
