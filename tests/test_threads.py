"""Work in threads comes back in order, and never runs far ahead."""

from __future__ import annotations

import threading
import time

import pytest

from surveyproc.threads import map_ahead


def test_results_come_in_order_and_at_once():
    together = threading.Barrier(4)

    def slow_first(number: int) -> int:
        together.wait(timeout=10)
        time.sleep(0.01 if number % 4 == 0 else 0)
        return number * number

    assert list(map_ahead(slow_first, range(40), threads=4)) == [n * n for n in range(40)]


def test_items_are_drawn_no_further_ahead_than_asked():
    drawn = []

    def items():
        for number in range(100):
            drawn.append(number)
            yield number

    results = map_ahead(lambda number: number, items(), threads=2, ahead=5)
    for taken in range(10):
        assert next(results) == taken
        assert len(drawn) <= taken + 5
    results.close()
    assert len(drawn) < 20


def test_an_error_is_raised_in_its_turn_and_ends_the_work():
    begun = []

    def fail_at_three(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    results = map_ahead(fail_at_three, range(1000), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(begun) < 20
    assert list(map_ahead(fail_at_three, [], threads=2)) == []
