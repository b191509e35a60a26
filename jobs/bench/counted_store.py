"""A local S3 server behind a relay that counts what leaves it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KEY = "bench"


@contextmanager
def counted_store(folder: Path) -> Iterator[tuple[str, Callable[[], int]]]:
    """Serve the buckets in a folder with ``rclone serve s3``.

    Yields
    ------
    str
        Endpoint; key and secret are ``bench``.
    callable
        Bytes that have left the server so far, headers included.
    """
    port = _free_port()
    binary = shutil.which("rclone", path=os.path.dirname(sys.executable)) or "rclone"
    command = [
        binary,
        "serve",
        "s3",
        str(folder),
        "--addr",
        f"127.0.0.1:{port}",
        "--auth-key",
        f"{KEY},{KEY}",
    ]
    with subprocess.Popen(
        [*command, "--config", os.devnull, "--read-only"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            _wait_for(port)
            with Relay(port) as relay:
                yield f"http://127.0.0.1:{relay.port}", lambda: relay.sent
        finally:
            server.terminate()


class Relay:
    """Passes connections on to a port and counts the bytes that come back."""

    def __init__(self, target: int) -> None:
        self.sent, self._target, self._lock = 0, target, threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if counted:
                    with self._lock:
                        self.sent += len(data)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(200):
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.1)
    raise SystemExit("rclone serve s3 did not start")
