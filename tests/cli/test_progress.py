"""Progress: rows, shards, rate, time left and rejects, rarely when nobody watches."""

from __future__ import annotations

import io

import pytest

from surveyproc import progress
from surveyproc.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_has_rows_shards_rate_time_left_and_rejects(clock):
    stream = io.StringIO()
    bar = Progress("run", 10_000, done=1000, units=20, units_done=2, stream=stream)
    clock.now += 10
    bar.advance(3000, rejects=12)
    assert bar.line() == (
        "run: 4,000 of 10,000 rows, 3/20 shards committed, 300 rows/s, 20 s left, 12 rejects"
    )


def test_rows_of_earlier_commands_do_not_count_for_the_rate(clock):
    bar = Progress("run", 10_000, done=9000, stream=io.StringIO())
    clock.now += 10
    assert "rows/s" not in bar.line()
    bar.advance(100)
    assert "10 rows/s" in bar.line()
    assert "1 min 30 s left" in bar.line()


def test_off_a_terminal_there_is_one_plain_line_every_half_minute(clock):
    stream = io.StringIO()
    bar = Progress("run", 1000, units=1000, stream=stream)
    bar.tick()
    for _ in range(95):
        clock.now += 1
        bar.advance(10)
    bar.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert "\r" not in stream.getvalue()
    assert "950 of 1,000 rows" in lines[-1]


def test_a_terminal_has_its_line_rewritten(clock):
    stream = Terminal()
    bar = Progress("run", 10, stream=stream)
    for _ in range(10):
        clock.now += 1
        bar.advance(1)
    bar.close()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r") == 11


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (65, "1 min 05 s"), (3600, "1 h 00 min"), (90_061, "25 h 01 min")]
)
def test_durations_are_readable(clock, seconds, text):
    bar = Progress("run", seconds + 1, stream=io.StringIO())
    clock.now += 1
    bar.advance(1)
    assert f"{text} left" in bar.line()
