"""Progress that people expect: rows/s, shards committed, time left, rejects."""

from __future__ import annotations

import sys
import time
from typing import TextIO

PLAIN_EVERY_S = 30.0
TERMINAL_EVERY_S = 0.2


class Progress:
    """Counts rows as they are committed and says so on stderr.

    A terminal gets one line that is rewritten; anything else one plain line every 30 s, the first and
    the last included.

    Parameters
    ----------
    what : str
        What is being done, first on the line.
    rows : int
        Rows in all.
    done : int
        Rows that were done before this process; they do not count for the rate.
    units : int
        Shards (or files) in all; 0 leaves them out.
    unit : str
        What they are called.
    """

    def __init__(
        self,
        what: str,
        rows: int,
        done: int = 0,
        units: int = 0,
        units_done: int = 0,
        unit: str = "shards",
        stream: TextIO | None = None,
    ) -> None:
        self.rows, self.done, self.rejects = rows, done, 0
        self.units, self.units_done = units, units_done
        self._what, self._before, self._unit = what, done, unit
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._started = time.monotonic()
        self._said = 0.0

    def begin(self, rows: int, done: int, units: int, units_done: int) -> None:
        """Set what there is to do, once it is known, and what of it was done before."""
        self.rows, self.done, self.units, self.units_done = rows, done, units, units_done
        self._before = done
        self.tick()

    def advance(self, rows: int, rejects: int = 0, units: int = 1) -> None:
        """Count rows that were committed."""
        self.done += rows
        self.rejects += rejects
        self.units_done += units
        self.tick()

    def set(self, done: int, rows: int) -> None:
        """Set the absolute count; fits ``progress(done, total)`` callbacks."""
        self.done, self.rows = done, rows
        self.tick()

    def tick(self) -> None:
        """Say where things stand, when it is time to."""
        now = time.monotonic()
        if now - self._said >= (TERMINAL_EVERY_S if self._terminal else PLAIN_EVERY_S):
            self._said = now
            self._write()

    def close(self) -> None:
        """Say the last word."""
        self._write(last=True)

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started

    def line(self) -> str:
        """Describe the state in one line."""
        rate = (self.done - self._before) / max(self.seconds, 1e-9)
        parts = [f"{self._what}: {self.done:,} of {self.rows:,} rows"]
        if self.units:
            parts.append(f"{self.units_done:,}/{self.units:,} {self._unit} committed")
        if self.done > self._before:
            parts.append(f"{rate:,.0f} rows/s")
            if self.done < self.rows:
                parts.append(f"{_duration((self.rows - self.done) / rate)} left")
        parts.append(f"{self.rejects:,} rejects")
        return ", ".join(parts)

    def _write(self, last: bool = False) -> None:
        if self._terminal:
            self._stream.write(f"\r\x1b[K{self.line()}" + ("\n" if last else ""))
        else:
            self._stream.write(self.line() + "\n")
        self._stream.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
