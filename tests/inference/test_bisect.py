"""Finding the rows of a batch that make a model raise."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surveyproc.errors import InputError
from surveyproc.inference.bisect import EngineBroken, describe, is_memory_error, isolate, predict

ROWS = 32
COLUMNS = pa.record_batch({"object_id": pa.array(range(ROWS))})
PIXELS = np.zeros((ROWS, 2, 2, 1), np.uint8)
row_sets = st.sets(st.integers(0, ROWS - 1))


class FakeEngine:
    """Raises when ``trouble(shown rows, number of the call)`` is an exception; returns the condemned rows."""

    def __init__(self, trouble):
        self.trouble, self.calls = trouble, []

    def __call__(self, columns, pixels, failures, first_row, condemned):
        shown = set(range(len(pixels))) - failures.keys() - condemned.keys()
        self.calls.append(shown)
        error = self.trouble(shown, len(self.calls))
        if error is not None:
            raise error
        return {"rejects": pa.table({"row": sorted(condemned)}), "condemned": condemned}


def bad_rows(bad):
    return FakeEngine(lambda shown, call: ValueError("bad\nrow") if shown & bad else None)


@given(row_sets)
def test_any_set_of_bad_rows_is_found_exactly(bad):
    asked = []

    def fails(rows):
        asked.append(tuple(rows))
        return bool(bad & set(rows))

    found = isolate(range(ROWS), fails) if bad else []
    assert found == sorted(bad)
    assert all(asked.count((row,)) == 2 for row in bad), "a row is condemned by two calls with it alone"
    assert len(asked) <= len(bad) * (2 + 2 * math.log2(ROWS))
    assert len(asked) <= 3 * ROWS


@given(row_sets, st.randoms(use_true_random=False))
def test_a_row_that_never_fails_alone_is_never_condemned(bad, random):
    def fails(rows):
        return random.random() < 0.5 and (len(rows) > 1 or rows[0] in bad)

    assert set(isolate(range(ROWS), fails)) <= bad


@given(row_sets, row_sets, row_sets)
def test_the_bad_rows_become_rejects_and_no_others(bad, undecodable, known):
    engine = bad_rows(bad)
    failures = dict.fromkeys(undecodable - known, ("unreadable_image", ""))
    tables = predict(engine, COLUMNS, PIXELS, failures, 0, dict.fromkeys(known, ("killed_engine", "")))
    found = {row: why for row, why in tables["condemned"].items() if row not in known}
    assert found == dict.fromkeys(bad - undecodable - known, ("model_error", "ValueError: bad"))
    assert {why for row, why in tables["condemned"].items() if row in known} <= {("killed_engine", "")}


def test_a_good_batch_is_run_once():
    engine = bad_rows(set())
    predict(engine, COLUMNS, PIXELS, {})
    assert len(engine.calls) == 1


@pytest.mark.parametrize("error", [OSError("trouble"), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_passing_trouble_rejects_nothing(error):
    engine = FakeEngine(lambda shown, call: error if call == 1 else None)
    assert predict(engine, COLUMNS, PIXELS, {})["condemned"] == {}
    assert len(engine.calls) == 2


def test_a_model_that_always_raises_is_broken_after_three_calls():
    engine = FakeEngine(lambda shown, call: RuntimeError("no kernel"))
    with pytest.raises(EngineBroken) as caught:
        predict(engine, COLUMNS, PIXELS, {})
    assert caught.value.detail == "RuntimeError: no kernel, on a blank batch too"
    assert len(engine.calls) == 3


def test_a_model_that_one_row_breaks_for_good_condemns_nothing():
    broken = []

    def trouble(shown, call):
        if 5 in shown:
            broken.append(True)
        return RuntimeError("device-side assert") if broken else None

    with pytest.raises(EngineBroken):
        predict(FakeEngine(trouble), COLUMNS, PIXELS, {})


def test_rows_that_fail_only_together_are_not_condemned():
    engine = FakeEngine(lambda shown, call: ValueError("pair") if {3, 20} <= shown else None)
    with pytest.raises(EngineBroken, match="no row alone"):
        predict(engine, COLUMNS, PIXELS, {})


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory"),
        pa.ArrowMemoryError("malloc of size 5 failed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_short_memory_is_never_held_against_a_row(error):
    assert is_memory_error(error)
    engine = FakeEngine(lambda shown, call: error if 4 in shown else None)
    with pytest.raises(EngineBroken) as caught:
        predict(engine, COLUMNS, PIXELS, {})
    assert caught.value.reason == "out_of_memory"
    assert len(engine.calls) == 2


def test_memory_that_runs_short_while_a_row_is_sought_ends_the_search():
    def trouble(shown, call):
        return MemoryError() if call == 6 else ValueError("bad") if 9 in shown else None

    with pytest.raises(EngineBroken) as caught:
        predict(FakeEngine(trouble), COLUMNS, PIXELS, {})
    assert caught.value.reason == "out_of_memory"


@pytest.mark.parametrize("error", [InputError("wrong"), KeyboardInterrupt(), SystemExit(3)])
def test_what_is_no_rows_fault_passes_through(error):
    engine = FakeEngine(lambda shown, call: error)
    with pytest.raises(type(error)):
        predict(engine, COLUMNS, PIXELS, {})
    assert len(engine.calls) == 1


def test_an_exception_is_described_by_its_type_and_first_line():
    assert describe(ValueError("one\ntwo")) == "ValueError: one"
    assert describe(KeyError()) == "KeyError"
    assert len(describe(ValueError("x" * 10_000))) == 200
