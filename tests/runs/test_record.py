"""run.json, and the refusal that lists every difference."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surveyproc.errors import InputError, UsageError
from surveyproc.runs.record import claim, load_record, new_record, refuse_changes
from surveyproc.storage import Storage

scalars = st.one_of(st.integers(-5, 5), st.booleans(), st.none(), st.text(max_size=3))
names = st.text("abcdef", min_size=1, max_size=3)
prints = st.dictionaries(names, st.one_of(scalars, st.dictionaries(names, scalars, max_size=3)), max_size=4)


def flat(value: dict, prefix: str = "") -> dict:
    found = {}
    for key, item in value.items():
        found |= flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item}
    return found


def record(fingerprint: dict, code: str = "1") -> dict:
    return {"fingerprint": fingerprint, "code": code}


@given(prints, prints)
def test_every_difference_is_listed_and_nothing_else(before, after):
    storage = Storage("memory://record")
    one, other = flat(before), flat(after)
    different = {k for k in one.keys() | other.keys() if one.get(k) != other.get(k)}
    if not different:
        refuse_changes(record(before), record(after), storage, False, [])
        return
    with pytest.raises(UsageError) as caught:
        refuse_changes(record(before), record(after), storage, True, [])
    lines = [line.strip() for line in caught.value.what.splitlines()[1:]]
    assert {line.split(":")[0] for line in lines} == different
    assert len(lines) == len(different)


def test_changed_files_and_settings_are_told_together():
    with pytest.raises(UsageError) as caught:
        refuse_changes(
            record({"a": {"b": 1}, "input": {"digest": "x"}}),
            record({"a": {"b": 2}, "input": {"digest": "y"}}),
            Storage("memory://record"),
            False,
            ["part-1 is gone"],
        )
    assert caught.value.what.splitlines()[1:] == ["    a.b: was 1, is 2", "    input: part-1 is gone"]


def test_other_code_is_refused_unless_accepted():
    storage = Storage("memory://record")
    with pytest.raises(UsageError, match="code 1, this is 2"):
        refuse_changes(record({}), record({}, "2"), storage, False, [])
    refuse_changes(record({}), record({}, "2"), storage, True, [])


def test_the_first_claim_stands(tmp_path):
    storage = Storage(tmp_path / "out.run")
    assert claim(storage, {"number": 1}) == {"number": 1}
    assert claim(storage, {"number": 2}) == {"number": 1}


def test_a_folder_with_hidden_files_only_may_be_claimed(tmp_path):
    (tmp_path / ".DS_Store").write_text("")
    assert claim(Storage(tmp_path), {"number": 1}) == {"number": 1}


def test_a_folder_that_is_no_run_is_told(tmp_path):
    for missing in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match="not a run folder"):
            load_record(Storage(missing))


def test_the_record_says_what_made_the_run():
    made = new_record({"engine": {"views": 2}}, {"input": {"rows": 3}}, {"device": "cpu"})
    assert json.loads(json.dumps(made)) == made
    assert {
        "created",
        "host",
        "code",
        "git_commit",
        "python",
        "versions",
        "config",
        "fingerprint",
    } <= made.keys()
    assert {"ray", "torch", "pyarrow"} <= made["versions"].keys()
    assert made["code"].startswith("0.")
