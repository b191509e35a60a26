"""One driver at a time, on stores that cannot create a name only once."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from surveyproc.errors import ResourceError, SurveyprocError
from surveyproc.storage import Storage

DRIVERS = "_drivers"
LIFE_SECONDS = 60.0
BEAT_SECONDS = 10.0


@contextmanager
def sole_writer(storage: Storage) -> Iterator[DriverLease | None]:
    """Hold a run folder where its store cannot create a name only once; elsewhere nobody needs to.

    Yields
    ------
    DriverLease or None
        The lease, when there has to be one; ``storage.create_only`` is False then.

    Raises
    ------
    ResourceError
        When another driver holds the folder.
    """
    if storage.is_local or storage.creates_only_once():
        yield None
        return
    storage.create_only = False
    with DriverLease(storage) as lease:
        yield lease


class DriverLease:
    """The right to be the one driver of a run folder, renewed while it is held.

    Every driver writes a file of its own and then lists the others': of two that start at once at least one
    sees the other. It goes to work only when it sees nobody; the younger one (by a random name) gives way.
    Ages are taken from the store's clock alone, so that no machine's clock matters.

    Parameters
    ----------
    storage : Storage
        The run folder.
    life, beat : float
        Seconds after which a silent driver counts as dead, and between two signs of life.

    Raises
    ------
    ResourceError
        By ``with``, when another driver is at work.
    """

    def __init__(self, storage: Storage, life: float = LIFE_SECONDS, beat: float = BEAT_SECONDS) -> None:
        self._storage, self._life, self._beat = storage, life, beat
        self._name = f"{DRIVERS}/{secrets.token_hex(8)}.json"
        self._stopped = threading.Event()
        self._renewed = 0.0
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> DriverLease:
        try:
            self._write("starting")
            while others := self._others():
                if any(working or name < self._name for name, working in others):
                    raise self._refusal()
                time.sleep(self._beat / 10)
                self._write("starting")
            self._write("working")
        except BaseException:
            self._storage.delete([self._name])
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._storage.delete([self._name])

    def require(self) -> None:
        """Check that the lease is held still: a driver that slept too long may have been replaced.

        Raises
        ------
        ResourceError
        """
        if time.monotonic() - self._renewed > self._life / 2:
            raise ResourceError(
                "this driver could not renew its lease in time; another one may have taken over",
                where=self._storage.uri,
                fix="give the same command again: what was committed is kept",
            )

    def _others(self) -> list[tuple[str, bool]]:
        """Drivers that gave a sign of life lately, and whether they are at work."""
        found = []
        mine = self._storage.modified(self._name) or 0.0
        for name in self._storage.names(DRIVERS):
            path = f"{DRIVERS}/{name}"
            written = self._storage.modified(path)
            if path == self._name or written is None:
                continue
            if mine - written > self._life:
                self._storage.delete([path])
                continue
            try:
                found.append((path, json.loads(self._storage.read(path))["state"] == "working"))
            except FileNotFoundError:
                continue
        return found

    def _write(self, state: str) -> None:
        facts = {"state": state, "host": socket.gethostname(), "pid": os.getpid()}
        began = time.monotonic()
        self._storage.replace(self._name, json.dumps(facts).encode())
        self._renewed = began

    def _renew(self) -> None:
        while not self._stopped.wait(self._beat):
            try:
                self._write("working")
            except SurveyprocError:
                continue  # `require` tells when it has been too long

    def _refusal(self) -> ResourceError:
        return ResourceError(
            "another driver is at work on this run, and the store cannot create a name only once: "
            "two drivers would overwrite each other's commits",
            where=self._storage.uri,
            fix=f"wait for it to end; one that was killed is forgotten after {self._life:.0f} s",
        )
