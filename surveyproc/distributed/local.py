"""The local executor: one engine for each core, in threads of this process, without Ray."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

import torch

from surveyproc.distributed.task import RunTask
from surveyproc.distributed.worker import LANES, Cancelled, Outcome, ShardWorker
from surveyproc.runs.plan import Shard


def run_shards(task: RunTask, shards: Sequence[Shard], actors: int) -> Iterator[Outcome]:
    """Work through shards with ``actors`` engines.

    Torch and pyarrow release the interpreter lock, so that threads with one torch thread each use as
    many cores as processes would. Every engine is fed by `LANES` threads with a shard each.

    Yields
    ------
    Outcome
        As shards are committed. Leaving the loop early, by an error or Ctrl-C, stops the engines
        between two batches and abandons their attempts.
    """
    waiting, drawing = iter(shards), threading.Lock()
    finished: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()

    def work(worker: ShardWorker) -> None:
        try:
            while not stop.is_set():
                with drawing:
                    shard = next(waiting, None)
                if shard is None:
                    break
                finished.put(worker(shard))
        except Cancelled:
            pass
        except BaseException as error:
            finished.put(error)
        finished.put(None)

    torch_threads = torch.get_num_threads()
    workers = [ShardWorker(task, stop) for _ in range(actors)]
    lanes = workers * min(LANES, -(-len(shards) // actors))
    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in lanes]
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
