"""Step hooks that do to a run what the world does: change its input, fill its disk."""

from __future__ import annotations

import json
import os
import random
import resource
import time
from pathlib import Path

STEP, FILE = "SURVEYPROC_MEDDLE_STEP", "SURVEYPROC_MEDDLE_FILE"


def _now(name: str, subject: str) -> bool:
    """Whether this is the step the environment names, as ``[step, subject]``."""
    step, where = json.loads(os.environ[STEP])
    return name == step and subject.startswith(where)


def touch(name: str, subject: str) -> None:
    """Make a file look written again."""
    if _now(name, subject):
        os.utime(os.environ[FILE], ns=(1, 1))


def remove(name: str, subject: str) -> None:
    """Move a file away."""
    if _now(name, subject) and Path(os.environ[FILE]).exists():
        os.rename(os.environ[FILE], os.environ[FILE] + ".away")


def fill(name: str, subject: str) -> None:
    """Fill the disk that a file is on, once."""
    if _now(name, subject) and not Path(os.environ[FILE]).exists():
        with Path(os.environ[FILE]).open("wb", buffering=0) as file:
            for size in (2**16, 2**12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue


def limit(name: str, subject: str) -> None:
    """Forbid this process files of more than 2,000 bytes."""
    if _now(name, subject):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def slow(name: str, subject: str) -> None:
    """Take a tenth of a second."""
    if _now(name, subject):
        time.sleep(0.1)


def meet(name: str, subject: str) -> None:
    """Wait, half a second at most, until two processes are at the same step of the same unit."""
    if not _now(name, subject):
        return
    mine = Path(os.environ[FILE], f"{subject}.{os.getpid()}")
    mine.touch()
    until = time.monotonic() + 0.5
    while len(list(mine.parent.glob(f"{subject}.*"))) < 2 and time.monotonic() < until:
        time.sleep(0.002)


def clock(name: str, subject: str) -> None:
    """Make the clock of this process jump by up to a month, either way, at every step."""
    jump = random.uniform(-30, 30) * 86_400
    time.time = lambda: _TIME() + jump
    time.time_ns = lambda: int(time.time() * 1e9)


_TIME = time.time
