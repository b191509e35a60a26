"""Do many small waits at once, in order and in bounded memory."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

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


@contextmanager
def read_ahead(source: Iterator[Any], ahead: int) -> Iterator[Iterator[Any]]:
    """Draw from an iterator in a thread, ``ahead`` items ahead; its errors are raised where it is read."""
    end = object()
    items: queue.Queue[Any] = queue.Queue(ahead)
    closed = threading.Event()

    def put(item: Any) -> bool:
        while not closed.is_set():
            try:
                items.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def draw() -> None:
        try:
            for item in source:
                if not put(item):
                    return
            put(end)
        except BaseException as error:
            put(error)

    def drain() -> Iterator[Any]:
        while (item := items.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        yield drain()
    finally:
        closed.set()
        thread.join()
