"""Do many small waits at once, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

IN = TypeVar("IN")
OUT = TypeVar("OUT")


def map_ahead(
    function: Callable[[IN], OUT], items: Iterable[IN], threads: int, ahead: int | None = None
) -> Iterator[OUT]:
    """Apply a function to items in threads; results come in the order of the items.

    Parameters
    ----------
    function : callable
        What it raises is raised when its turn comes; nothing further is begun then.
    items : iterable
        Drawn lazily, in the thread that iterates.
    threads : int
        Calls at once.
    ahead : int, optional
        Results held or under way at once; twice the threads by default.

    Yields
    ------
    object
        ``function(item)`` for each item.
    """
    ahead = ahead or 2 * threads
    waiting: deque[Future[OUT]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
