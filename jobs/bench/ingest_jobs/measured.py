"""Time, processor time and memory of a contender's work, in the form that ingest.py reads."""

import json
import resource
import time
from collections.abc import Callable

WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, WHO))


def report(work: Callable[[], int]) -> None:
    """Do the work, which returns how many rows it made, and print what it took."""
    start, before = time.perf_counter(), cpu_seconds()
    rows = work()
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - before
    peak = max(resource.getrusage(who).ru_maxrss for who in WHO) / 1024
    print(json.dumps({"rows": rows, "seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}))
