"""The far side of `surveyproc.distributed.parent`: a process that forks engines, and the engines.

``python -m surveyproc.distributed.child DESCRIPTOR MODULE...`` loads everything, then forks a child for each
request: what costs seconds is done once, however many children are lost. Requests to a child are ``(number,
hidden, condemned)``: the batch of the shard, the rows of it to leave out, and those to reject. It answers
``("done", Prediction or None)``, ``("lost", reason, detail)`` when its engine is of no more use, or ``("error",
exception)`` for what is no row's fault.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

from surveyproc.distributed.task import Prediction, predict_batch
from surveyproc.errors import SurveyprocError
from surveyproc.inference.bisect import MODEL_ERROR, OUT_OF_MEMORY, EngineBroken, describe, is_memory_error

CGROUP = Path("/sys/fs/cgroup")
SHARE_OF_MEMORY = 0.8


def main(descriptor: int, modules: Sequence[str]) -> None:
    """Load modules, and fork children for the process at the other end of a socket until it closes.

    A request is None for a new child, whose own socket follows and whose process id is the answer, or the
    process id of a child, whose exit status is the answer.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for module in modules:
        importlib.import_module(module)
    control = Connection(descriptor)
    with suppress(EOFError, ConnectionError):
        while True:
            lost = control.recv()
            if lost is not None:
                control.send(os.waitpid(lost, 0)[1])
                continue
            handle = recv_handle(control)
            child = os.fork()
            if child == 0:
                control.close()
                serve(Connection(handle))
            os.close(handle)
            control.send(child)


def serve(connection: Connection) -> None:
    """Be a child: answer requests until the socket closes, then end this process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    reply: tuple[Any, ...]
    try:
        for reply in _answers(connection):
            _send(connection, reply)
        os._exit(0)
    except EngineBroken as broken:
        reply = ("lost", broken.reason, broken.detail)
    except SurveyprocError as error:
        reply = ("error", error)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException as error:
        said = describe(error)
        reply = ("lost", OUT_OF_MEMORY, said) if is_memory_error(error) else ("error", RuntimeError(said))
    _send(connection, reply)
    os._exit(0)


def _answers(connection: Connection) -> Iterator[tuple[str, Prediction | None]]:
    task, shard = _receive(connection)
    task.use_threads()
    engine = task.open_engine()
    if task.settings.device == "cpu":
        _limit_memory()
    at, batch = -1, None
    batches = task.read(shard)
    while True:
        number, hidden, condemned = _receive(connection)
        while at < number:
            at, batch = at + 1, next(batches, None)
        if batch is None:
            yield "done", None
            continue
        out = dict.fromkeys(hidden, (MODEL_ERROR, "hidden")) | condemned
        pixels, failures = task.decode(batch, out)
        first_row = number * task.settings.batch_size
        yield "done", predict_batch(engine, batch, pixels, failures, first_row, out)


def _receive(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, ConnectionError):
        os._exit(0)


def _send(connection: Connection, reply: tuple[Any, ...]) -> None:
    try:
        connection.send(reply)
    except ConnectionError:
        os._exit(0)


def _end_with_parent() -> None:
    """Die when standard input closes: the process that asks is gone."""
    os.read(0, 1)
    os._exit(1)


def _limit_memory() -> None:
    """Let an allocation fail before memory runs out: another process could be killed for it (Linux only)."""
    try:
        import resource

        used = _value("/proc/self/status", "VmData:") * 1024
        limit = int(used + SHARE_OF_MEMORY * _available_memory())
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
    except (ImportError, OSError, StopIteration):
        return


def _available_memory() -> int:
    """Bytes that this process can still have: of the machine, and of its container."""
    machine = _value("/proc/meminfo", "MemAvailable:") * 1024
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if not limit.exists() or limit.read_text().strip() == "max":
        return machine
    cache = _value(CGROUP / "memory.stat", "inactive_file")
    return min(machine, int(limit.read_text()) - int(used.read_text()) + cache)


def _value(file: str | Path, name: str) -> int:
    lines = (line.split() for line in Path(file).read_text().splitlines())
    return next(int(words[1]) for words in lines if words and words[0] == name)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
