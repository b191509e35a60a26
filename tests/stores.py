"""S3 servers for the tests, each started by the test that needs it, on 127.0.0.1 only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drive import _die_with_parent

KEY, SECRET = "test-key", "test-secret-7f3a"
BUCKET = "survey"


@dataclass(frozen=True)
class Server:
    """A running S3 endpoint with one bucket."""

    endpoint: str
    pid: int
    bucket: str = BUCKET

    @property
    def env(self) -> dict[str, str]:
        """Environment in which boto, s3fs and `surveyproc` find it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def through(self, endpoint: str) -> Server:
        """The same store behind another endpoint."""
        return Server(endpoint, self.pid)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def s3_server(log: Path | None = None) -> Iterator[Server]:
    """Start moto's S3 server, which honours conditional writes, with an empty bucket ``survey``."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _process(command, port, log) as pid:
        server = Server(f"http://127.0.0.1:{port}", pid)
        _make_bucket(server)
        yield server


@contextmanager
def rclone_server(folder: Path, log: Path | None = None) -> Iterator[Server]:
    """Start ``rclone serve s3`` over a folder; it ignores ``If-None-Match`` and overwrites."""
    port = free_port()
    (folder / BUCKET).mkdir(parents=True)
    binary = shutil.which("rclone", path=os.path.dirname(sys.executable)) or "rclone"
    command = [binary, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--config", os.devnull]
    command += ["--auth-key", f"{KEY},{SECRET}", "--vfs-cache-mode", "full", "--vfs-write-back", "0s"]
    command += ["--cache-dir", str(folder.parent / "rclone-cache")]
    with _process(command, port, log) as pid:
        yield Server(f"http://127.0.0.1:{port}", pid)


class Faults:
    """The rules and the log of a running fault proxy."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rules, self.log = folder / "rules.json", folder / "faults.jsonl"
        self.set()

    def set(self, *rules: dict) -> None:
        """Replace the rules; see `faulty`."""
        fresh = self.rules.with_suffix(".new")
        fresh.write_text(json.dumps(rules))
        fresh.replace(self.rules)

    def injected(self) -> list[dict]:
        """What was broken so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@contextmanager
def fault_proxy(server: Server, folder: Path) -> Iterator[tuple[Server, Faults]]:
    """Start the fault proxy in front of a server."""
    faults, port = Faults(folder), free_port()
    script = Path(__file__).with_name("faulty.py")
    command = [sys.executable, str(script), server.endpoint, str(port), str(faults.rules), str(faults.log)]
    with _process(command, port, folder / "proxy.log"):
        yield server.through(f"http://127.0.0.1:{port}"), faults


@contextmanager
def environment_of(server: Server, monkeypatch) -> Iterator[None]:
    """Point this process at a server; file systems that fsspec keeps are forgotten before and after."""
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    _forget()
    yield
    _forget()


def _forget() -> None:
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()


def _make_bucket(server: Server) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)


@contextmanager
def _process(command: list[str], port: int, log: Path | None) -> Iterator[int]:
    with open(log or os.devnull, "wb") as sink:
        process = subprocess.Popen(
            command,
            stdout=sink,
            stderr=sink,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        try:
            _wait_for(port, process)
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(port: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended with {process.returncode}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"{process.args[0]} does not answer")
