"""An engine in a child process, so that this process lives on when a cutout kills it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from types import TracebackType
from typing import Any

from surveyproc.distributed.task import Prediction, RunTask
from surveyproc.errors import ResourceError
from surveyproc.inference.bisect import EngineBroken, Why
from surveyproc.runs.plan import Shard

CHILD, MODELS = "surveyproc.distributed.child", "surveyproc.models"
KILLED = "killed_engine"
_POLL_S = 0.2


class ChildEngine:
    """An engine for one shard in a process that is replaced when it is lost.

    The far side is `surveyproc.distributed.child`: a process with everything loaded, the server, forks
    the children that have engines. Close it, or use it in a ``with``: no process is left then.

    Parameters
    ----------
    task : RunTask
    shard : Shard
    check : callable
        Called several times a second while a child works; what it raises ends the wait.
    """

    def __init__(self, task: RunTask, shard: Shard, check: Callable[[], None]) -> None:
        self._first, self._check = (task, shard), check
        self._server: subprocess.Popen[bytes] | None = None
        self._control: Connection | None = None
        self._child: tuple[int, Connection] | None = None

    def __enter__(self) -> ChildEngine:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def ask(self, number: int, hidden: frozenset[int], condemned: dict[int, Why]) -> Prediction | None:
        """Process one batch of the shard; None after the last.

        Parameters
        ----------
        number : int
            Of the batch; not less than in the request before.
        hidden : frozenset of int
            Rows whose pixels are neither decoded nor shown to the model.
        condemned : dict of int to (str, str)
            Rows to reject, with reason and detail; hidden as well.

        Raises
        ------
        EngineBroken
            When the child died, or says that its engine is of no more use: the next request has a new one.
        ResourceError
            When the machine starts no process.
        """
        try:
            connection = self._child[1] if self._child else self._start_child()
            connection.send((number, hidden, condemned))
            kind, *values = self._answer(connection)
        except (EOFError, ConnectionError) as error:
            raise EngineBroken(KILLED, self._end_child()) from error
        except BaseException:
            self._end_child()
            raise
        if kind == "done":
            return values[0]
        self._end_child()
        raise EngineBroken(*values) if kind == "lost" else values[0]

    def close(self) -> None:
        """End all processes."""
        if self._child is not None:
            self._end_child()
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            if self._server.stdin is not None:
                self._server.stdin.close()
        self._server = self._control = None

    def _start_child(self) -> Connection:
        control = self._control or self._start_server()
        ours, theirs = Pipe()
        with theirs:
            control.send(None)
            send_handle(control, theirs.fileno(), None)
        self._child = self._answer(control), ours
        ours.send(self._first)
        return ours

    def _start_server(self) -> Connection:
        control, theirs = Pipe()
        models = [name for name in sys.modules if name.startswith(f"{MODELS}.")]
        with theirs:
            try:
                self._server = subprocess.Popen(
                    [sys.executable, "-P", "-m", CHILD, str(theirs.fileno()), *models],
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
                    stdin=subprocess.PIPE,  # closes when this process ends, however it ends
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # Ctrl-C in a terminal is for this process
                )
            except OSError as error:
                raise ResourceError(
                    f"no process can be started for an engine: {error}",
                    where=self._first[1].unit,
                    fix="use a machine with more memory, then give the same command again",
                ) from error
        self._control = control
        return control

    def _answer(self, connection: Connection) -> Any:
        while not connection.poll(_POLL_S):
            self._check()
        return connection.recv()

    def _end_child(self) -> str:
        """End the child, and say how it ended; a server that does not answer is ended as well."""
        if self._child is None or self._control is None:
            self.close()
            return "its process could not be started"
        process, connection = self._child
        self._child = None
        connection.close()
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        try:
            self._control.send(process)
            return _describe(os.waitstatus_to_exitcode(self._control.recv()))
        except (EOFError, ConnectionError):
            self.close()
            return "its process and the one that started it were killed"


def _describe(code: int) -> str:
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"its process was killed by {names.get(-code, f'signal {-code}')}"
    return f"its process ended with exit code {code}"
