"""The local executor: one engine for each core, in threads of this process, without Ray."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import torch

from surveyproc.distributed.worker import Cancelled, Outcome, RunTask, ShardWorker
from surveyproc.runs.plan import Shard


def run_shards(task: RunTask, shards: list[Shard], actors: int) -> Iterator[Outcome]:
    """Work through shards with ``actors`` engines.

    Torch and pyarrow release the interpreter lock, so that threads with one torch thread each use as
    many cores as processes would.

    Yields
    ------
    Outcome
        As shards are committed. Leaving the loop early, by an error or Ctrl-C, stops the engines
        between two batches and abandons their attempts.
    """
    waiting: queue.SimpleQueue[Shard] = queue.SimpleQueue()
    for shard in shards:
        waiting.put(shard)
    finished: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        try:
            worker = ShardWorker(task, stop)
            while not stop.is_set():
                try:
                    shard = waiting.get_nowait()
                except queue.Empty:
                    break
                finished.put(worker(shard))
        except Cancelled:
            pass
        except BaseException as error:
            finished.put(error)
        finished.put(None)

    torch_threads = torch.get_num_threads()
    threads = [threading.Thread(target=work, name=f"engine-{n}", daemon=True) for n in range(actors)]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            item = finished.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        torch.set_num_threads(torch_threads)
