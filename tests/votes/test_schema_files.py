"""A user's own VoteSchema file, good and bad."""

import json

import pytest

from surveyproc.errors import InputError
from surveyproc.votes import Question, load_schema

GOOD = """
name: tidal
questions:
  - name: tidal-feature
    answers: [yes, no]
  - name: how-many
    answers: [1, 2, more]
    parents: [tidal-feature_yes]
"""


def load(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_schema(str(path))


def complaint(tmp_path, text):
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert str(tmp_path / "mine.yaml") in lines[1]
    assert lines[2].strip().startswith("fix:")
    return lines[0]


def test_answers_are_the_text_that_was_written(tmp_path):
    """In YAML 1.1 a bare yes is true and a bare 1 a number; volunteers clicked on words."""
    assert load(tmp_path, GOOD).questions == (
        Question("tidal-feature", ("yes", "no")),
        Question("how-many", ("1", "2", "more"), ("tidal-feature_yes",)),
    )


def test_what_is_left_out_takes_the_defaults(tmp_path):
    schema = load(tmp_path, GOOD)
    assert (schema.values, schema.labels, schema.votes_per_galaxy, schema.version) == ("joint", {}, 44, 1)


def test_json_is_yaml_too(tmp_path):
    schema = load_schema("galaxy-challenge")
    assert load(tmp_path, json.dumps(schema.to_dict())) == schema


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("parents: [tidal-feature_yes]", "parents: [how-many_1]", "in a circle: how-many"),
        (
            "parents: [tidal-feature_yes]",
            "parents: [tidal-feature_yeah]",
            "Did you mean 'tidal-feature_yes'?",
        ),
        (
            "parents: [tidal-feature_yes]",
            "parents: tidal-feature_yes",
            "parents of question 'how-many' is text",
        ),
        ("parents: [tidal-feature_yes]", "parents:", "parents of question 'how-many' is text"),
        ("parents: [tidal-feature_yes]", "parent: [tidal-feature_yes]", "Did you mean 'parents'?"),
        ("name: how-many", "name: tidal-feature", "question 'tidal-feature' appears twice"),
        ("[1, 2, more]", "[1, 2, 1]", "answer '1' of 'how-many' appears twice"),
        ("[1, 2, more]", "[1]", "question 'how-many' has fewer than two answers"),
        ("[1, 2, more]", "[]", "question 'how-many' has fewer than two answers"),
        ("[1, 2, more]", "[1, [2]]", "an entry of answers of question 'how-many' is a list, not text"),
        ("[1, 2, more]", "[1, '']", "an entry of answers of question 'how-many' is empty"),
        ("    answers: [1, 2, more]\n", "", "question 'how-many' has no answers"),
        ("name: how-many", "title: how-many", "question 2 has no name"),
        ("name: tidal\n", "", "it has no name"),
        ("name: tidal\n", "name: [tidal]\n", "name is a list, not text"),
        ("questions:", "question:", "unknown key 'question'. Did you mean 'questions'?; it has no questions"),
        (
            "name: tidal\n",
            "name: tidal\nvalues: count\n",
            "not one of joint, fractions, counts. Did you mean 'counts'?",
        ),
        ("name: tidal\n", "name: tidal\nvotes_per_galaxy: many\n", "votes_per_galaxy is 'many', not a whole"),
        ("name: tidal\n", "name: tidal\nversion: 0\n", "version is '0', not a whole number from 1"),
        ("name: tidal\n", "name: tidal\nlabels: [a]\n", "labels is a list, not a mapping"),
        ("name: tidal\n", "name: tidal\nlabels: {how-many_3: c}\n", "label of unknown answer 'how-many_3'"),
        (
            "name: tidal\n",
            "name: tidal\nlabels: {tidal-feature_yes: c, tidal-feature_no: c}\n",
            "two answers read the label column 'c'",
        ),
        ("name: tidal\n", "name: tidal\nname: wave\n", "not YAML: the key 'name' appears twice, line 3"),
        ("name: tidal\n", "name: [tidal\n", "is not YAML: expected ',' or ']'"),
        ("questions:", "questions: 3\nsource:", "questions is text ('3'), not a list"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path, old, new, message):
    assert old in GOOD
    assert message in complaint(tmp_path, GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# only a remark\n", "is empty"),
        ("- a\n- b\n", "it is a list, not a mapping"),
        ("just words\n", "it is text"),
        ("a: !!python/object:os.system [x]\n", "unknown key 'a'"),
        ("\x00", "is not YAML"),
    ],
)
def test_what_is_no_schema_at_all_is_refused(tmp_path, text, message):
    assert message in complaint(tmp_path, text)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"PAR1\xff\xfe\x80")
    with pytest.raises(InputError, match="is not YAML"):
        load_schema(str(path))


def test_a_folder_is_no_schema(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_schema(str(tmp_path))


def test_all_mistakes_are_told_at_once(tmp_path):
    text = (
        GOOD.replace("[1, 2, more]", "[1]").replace("tidal-feature_yes", "tidal_yes")
        + "sorce: me\nversion: x\n"
    )
    line = complaint(tmp_path, text)
    for part in ("fewer than two", "unknown parent 'tidal_yes'", "Did you mean 'source'", "version is 'x'"):
        assert part in line


def test_parents_that_one_volunteer_may_both_give_are_refused(tmp_path):
    """P(asked) is a sum over parents: it needs answers that exclude each other."""
    text = GOOD + "  - name: blue\n    answers: [yes, no]\n"
    line = complaint(tmp_path, text.replace("[tidal-feature_yes]", "[tidal-feature_yes, blue_no]"))
    assert "parents 'tidal-feature_yes' and 'blue_no', which one volunteer may both give" in line


def test_parents_on_branches_that_exclude_each_other_are_fine(tmp_path):
    text = GOOD + "  - name: blue\n    answers: [yes, no]\n    parents: [tidal-feature_no]\n"
    text += "  - name: last\n    answers: [yes, no]\n    parents: [how-many_1, blue_no]\n"
    assert load(tmp_path, text).questions[-1].parents == ("how-many_1", "blue_no")
