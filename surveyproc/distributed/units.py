"""Units of work and who does them: what every executor is handed, and what it hands back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Outcome:
    """What became of one unit; ``record`` is the commit, where the driver has to put it in place."""

    unit: str
    rows: int
    rejects: int
    seconds: float
    ours: bool
    record: bytes | None = None


class Cancelled(Exception):
    """The driver asked the workers to stop."""


class Task(Protocol):
    """What a worker must know, wherever it works; small and picklable."""

    @property
    def unit(self) -> type[Any]:
        """A frozen dataclass of values that JSON can hold; its attribute ``unit`` is its name in the ledger."""
        ...

    @property
    def lanes(self) -> int:
        """Threads that feed one worker; each has a unit of its own in hand."""
        ...

    @property
    def gpu(self) -> bool:
        """Whether a worker wants a GPU."""
        ...

    @property
    def uris(self) -> list[tuple[str, str]]:
        """Flags, and the addresses that every worker must be able to open."""
        ...

    def worker(self, stop: threading.Event | None = None) -> Callable[[Any], Outcome]:
        """Make what does units; ``stop`` tells it to give up what it is at, by `Cancelled`."""
        ...
