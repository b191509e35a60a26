"""Units of work to workers, whatever both are: threads of this process, or actors of a Ray cluster."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TypeVar

from surveyproc.distributed.units import Cancelled, Outcome, Task

if TYPE_CHECKING:
    from surveyproc.config.run import ClusterConfig

U = TypeVar("U")


def run_units(
    task: Task, units: Sequence[Any], actors: int, cluster: ClusterConfig, kind: str, verbose: bool = False
) -> Iterator[Outcome]:
    """Work through units with ``actors`` workers.

    Parameters
    ----------
    task : Task
    units : sequence
        Of ``task.unit``.
    actors : int
    cluster : ClusterConfig
    kind : str
        ``none`` (threads of this process), ``local`` or ``address`` (Ray).
    verbose : bool
        Let Ray talk.

    Yields
    ------
    Outcome
        As units are committed. Leaving the loop early abandons what is under way.
    """
    if kind == "none":
        stop = threading.Event()
        workers = [task.worker(stop) for _ in range(min(actors, len(units)))]
        return run_threads(workers * task.lanes, units, stop)
    from surveyproc.distributed import rays

    return rays.run_units(task, units, actors, cluster, verbose)


def run_threads(
    workers: Sequence[Callable[[U], Outcome]], units: Iterable[U], stop: threading.Event
) -> Iterator[Outcome]:
    """Call each worker in a thread of its own until no unit is left; one that is named twice gets two.

    Yields
    ------
    Outcome
        As they come. Leaving the loop early, by an error or Ctrl-C, sets ``stop`` and waits for the threads.
    """
    waiting, drawing = iter(units), threading.Lock()
    finished: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()

    def work(worker: Callable[[U], Outcome]) -> None:
        try:
            while not stop.is_set():
                with drawing:
                    unit = next(waiting, None)
                if unit is None:
                    break
                finished.put(worker(unit))
        except Cancelled:
            pass
        except BaseException as error:
            finished.put(error)
        finished.put(None)

    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in workers]
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


@contextmanager
def executor(cluster: ClusterConfig, kind: str, verbose: bool = False) -> Iterator[int]:
    """Stay connected to Ray, so that all phases of a command connect once; gives the number of workers."""
    if kind == "none":
        yield cluster.actors or cores()
        return
    from surveyproc.distributed.preflight import living, usual_actors
    from surveyproc.distributed.rays import ray_cluster

    with redirect_stdout(sys.stderr), ray_cluster(cluster, verbose) as ray:
        yield cluster.actors or max(1, usual_actors(living(ray.nodes()), cluster.cpus_per_actor, False, 1))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
