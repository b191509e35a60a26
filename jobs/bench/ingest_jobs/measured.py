"""Time, processor time and memory of a contender's work, in the form that ingest.py reads."""

import json
import resource
import shutil
import time
from collections.abc import Callable

WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, WHO))


def report(work: Callable[[], int], repeats: int, output: str | None = None) -> None:
    """Do the work, which returns how many rows it made, and print the least of what it took.

    Parameters
    ----------
    work : callable
    repeats : int
        Times that count; one before does not: a new process has to get its memory from the system, and a
        virtual machine from its host, at some 0.5 GB/s. With 0 the first time counts.
    output : str, optional
        Folder to remove before each time.
    """
    found = [measured(work, output) for _ in range(repeats + 1)]
    best = {key: min(one[key] for one in found[min(1, repeats) :]) for key in found[0]}
    peak = max(resource.getrusage(who).ru_maxrss for who in WHO) / 1024
    print(json.dumps(best | {"peak_mb": peak}))


def measured(work: Callable[[], int], output: str | None) -> dict[str, float]:
    """Do the work once."""
    if output:
        shutil.rmtree(output, ignore_errors=True)
    start, before = time.perf_counter(), cpu_seconds()
    rows = work()
    return {"rows": rows, "seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - before}
