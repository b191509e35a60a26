"""The accounts: every row and id that came in is in each table or in the rejects, or nothing is published."""

from __future__ import annotations

import pyarrow as pa
import pytest
from drive import run_here
from hypothesis import given
from hypothesis import strategies as st

from surveyproc.errors import SurveyprocError
from surveyproc.identifiers import id_sum
from surveyproc.runs import merge
from surveyproc.runs.accounts import Count, account_checks, some, total
from surveyproc.search import flat


def count(ids: list[int]) -> Count:
    return Count(len(ids), id_sum(pa.array(ids, pa.int64())))


ids = st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=20)


@given(ids, st.data())
def test_accounts_balance_when_each_id_is_in_one_place_and_never_otherwise(came_in, data):
    rejected = [i for i in came_in if data.draw(st.booleans())]
    kept = [i for i in came_in if i not in rejected]
    (check,) = account_checks({"t": count(kept)}, count(rejected), count(came_in))
    assert check.passed
    for wrong in (kept[1:], [*kept, *kept[:1]], [i + 1 if i < 0 else i - 1 for i in kept]):
        (check,) = account_checks({"t": count(wrong)}, count(rejected), count(came_in))
        assert check.passed == (sorted(wrong) == sorted(kept))


@given(st.lists(ids, max_size=5))
def test_counts_add_up_in_any_order(parts):
    assert total(count(p) for p in parts) == total(count(p) for p in reversed(parts))
    assert total(count(p) for p in parts).rows == sum(map(len, parts))


def test_the_first_few_of_many_are_named():
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some(list("abcde")) == "a, b, c and 2 more"


@pytest.mark.parametrize("change", ["doubled", "lost", "replaced"])
def test_finalise_publishes_no_manifest_over_rows_that_do_not_balance(survey, tmp_path, monkeypatch, change):
    real = merge._content

    def wrong(storage, winners, unit, *rest):
        for table in real(storage, winners, unit, *rest):
            if unit.table == "embeddings" and table.num_rows > 1:
                first, others = table.slice(0, 1), table.slice(1)
                pieces = {
                    "doubled": [first, table],
                    "lost": [others],
                    "replaced": [others, others.slice(0, 1)],
                }
                table = pa.concat_tables(pieces[change])
            yield table

    monkeypatch.setattr(merge, "_content", wrong)
    with pytest.raises(SurveyprocError, match="embeddings: accounts: ") as caught:
        run_here(survey[0], tmp_path / "out.run", survey[1])
    assert "morphology" not in caught.value.what
    assert not (tmp_path / "out.run" / "_manifests").exists()
    assert not list((tmp_path / "out.run").rglob("hats.properties"))


def test_finalise_publishes_no_manifest_over_an_index_that_lacks_a_vector(survey, tmp_path, monkeypatch):
    real = flat.index_units
    monkeypatch.setattr("surveyproc.distributed.finalise.index_units", lambda *args: real(*args)[1:])
    with pytest.raises(SurveyprocError, match=r"index: accounts: \d+ vectors for 59 embeddings"):
        run_here(survey[0], tmp_path / "out.run", survey[1])
    assert not (tmp_path / "out.run" / "_manifests").exists()
