"""The local executor: one engine for each core, in threads of this process, without Ray."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import torch

from surveyproc.distributed.pool import run_threads
from surveyproc.distributed.task import RunTask
from surveyproc.distributed.units import Outcome
from surveyproc.distributed.worker import LANES, ShardWorker
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
    stop = threading.Event()
    torch_threads = torch.get_num_threads()
    try:
        workers = [ShardWorker(task, stop) for _ in range(actors)]
        yield from run_threads(workers * min(LANES, -(-len(shards) // actors)), shards, stop)
    finally:
        torch.set_num_threads(torch_threads)
