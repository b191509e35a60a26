"""Machines that share nothing but a network, on this one: a Ray cluster for tests, with token authentication.

    with Network() as network, RayNodes(network, tmp_path, workers=1) as nodes:
        nodes.head.run(["python", "-m", "surveyproc.cli.main", "run", ..., f"cluster={nodes.gcs}"])
        network.jailed(["surveyproc", "submit", "--address", nodes.url, ...])   # a machine outside the cluster
        nodes.workers[0].kill()                                                 # the whole node, SIGKILL
        nodes.add_worker()

A network is a namespace (Ray's ports open on all interfaces); a machine is a namespace of processes and mounts
in it (`jail`), so that SIGKILL of its first process ends all of them and its folders are gone with it. A hook
of `surveyproc.steps` must be in the environment that the nodes are started with: ``RayNodes(env=...)``.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import distribution
from pathlib import Path
from types import TracebackType

from drive import REPOSITORY, end_session
from jail import SCRATCH

PREFIX = Path(sys.prefix).resolve()
PYTHON, RAY = str(PREFIX / "bin" / "python"), str(PREFIX / "bin" / "ray")
JAIL = Path(__file__).resolve().with_name("jail.py")
INSTALLED = json.loads(distribution("surveyproc").read_text("direct_url.json") or "{}").get("url", "")
CHECKOUTS = {REPOSITORY, Path(INSTALLED.removeprefix("file://") or REPOSITORY)}
CODE = [checkout / name for checkout in CHECKOUTS for name in ("surveyproc", "conf", "jobs", "tests")]
NAMESPACES = ["unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
HEAD, MOST_NODES = "10.77.0.1", 20  # nodes alive at once, each with ports of its own
GCS_PORT, DASHBOARD_PORT = 6379, 8265
MEMORY, OBJECT_STORE = 3 * 2**30, 100 * 2**20
READY_SECONDS = 180.0
LAUNCHES = 4
CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def available() -> bool:
    """Whether this process may make namespaces and mount in them."""
    words = [*NAMESPACES, "--net", "mount", "--make-rprivate", "/"]
    with suppress(OSError):
        return sys.platform == "linux" and not subprocess.run(words, capture_output=True).returncode
    return False


class Network:
    """A network of its own: the loopback, and the addresses that are added; nothing outside it."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Network:
        script = "set -e; ip link set lo up; echo up; exec sleep infinity"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", script],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            preexec_fn=_die_with_parent,
        )
        self._stack.callback(_end, self._holder)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "up\n", "the network does not come up"
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stack.close()

    @property
    def _namespace(self) -> str:
        return f"/proc/{self._holder.pid}/ns/net"

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread into the network: its new sockets, and processes started from it, are there.

        A library that opens its sockets in a thread of its own (s3fs) belongs into a process of its own.
        """
        with ExitStack() as stack:
            home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            stack.callback(os.close, home)
            there = os.open(self._namespace, os.O_RDONLY)
            stack.callback(os.close, there)
            _enter(there)
            stack.callback(_enter, home)
            yield

    def add_address(self, address: str) -> None:
        """Give the network another address."""
        with self.inside():
            subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)

    def jailed(
        self,
        words: Sequence[str],
        env: Mapping[str, str] | None = None,
        hide: Iterable[Path] = (),
        write: Iterable[Path] = (),
        copy: Iterable[Path] = (),
        timeout: float = 240,
    ) -> subprocess.CompletedProcess:
        """Run a command on a machine of its own, which is gone when it ends; `jail` says what the folders do."""
        command = self.enter(words, hide, write, copy)
        return _run(command, machine_environment() | dict(env or {}), timeout)

    def enter(
        self,
        words: Sequence[str],
        hide: Iterable[Path] = (),
        write: Iterable[Path] = (),
        copy: Iterable[Path] = (),
        name: str = "client",
    ) -> list[str]:
        """The command line that runs ``words`` on a machine of its own."""
        options = [
            f"--{flag}={p}" for flag, ps in (("hide", hide), ("write", write), ("copy", copy)) for p in ps
        ]
        options.append(f"--hostname={name}")
        return ["nsenter", f"--net={self._namespace}", *NAMESPACES, PYTHON, str(JAIL), *options, "--", *words]


class Machine:
    """A node of the cluster: a process tree in namespaces of its own."""

    def __init__(self, name: str, command: list[str], log: Path, env: dict[str, str]) -> None:
        self.name, self.log, self.killed, self.launches = name, log, False, 0
        self._command, self._env = command, env
        self.launch()

    def launch(self) -> None:
        """Start its first process."""
        self.launches += 1
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def init(self) -> int:
        """Id, out here, of the first process of the machine."""
        found = [pid for pid, parent, _ in _processes() if parent == self.process.pid]
        assert found, self.log.read_text()[-3000:]
        return found[0]

    def processes(self) -> dict[int, str]:
        """Ids, out here, and command lines of all its processes: to kill one of them."""
        namespace = os.readlink(f"/proc/{self.init}/ns/pid")
        found = {}
        for pid, _, command in _processes():
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/pid") == namespace:
                    found[pid] = command
        return found

    def run(
        self, words: Sequence[str], env: Mapping[str, str] | None = None, timeout: float = 240
    ) -> subprocess.CompletedProcess:
        """Run a command on this machine, beside Ray."""
        return _run(self.enter(words), self._env | dict(env or {}), timeout)

    def start(self, words: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen:
        """Start a command on this machine; `drive.end_session` of its id ends it."""
        return _start(self.enter(words), self._env | dict(env or {}))

    def enter(self, words: Sequence[str]) -> list[str]:
        """The command line that runs ``words`` on this machine."""
        namespaces = ["--uts", "--mount", "--pid", "--net", f"--wd={SCRATCH}"]
        return ["nsenter", f"--target={self.init}", *namespaces, "--", *words]

    def written(self) -> list[str]:
        """Files in its scratch that are not Ray's: the only place where anything can be written."""
        scratch = Path(f"/proc/{self.init}/root{SCRATCH}")
        names = (str(p.relative_to(scratch)) for p in scratch.rglob("*") if p.is_file())
        return sorted(n for n in names if not n.startswith(("ray/", "token")))

    def kill(self) -> None:
        """SIGKILL all its processes at once; its disk and memory are gone."""
        self.killed = True
        _end(self.process)


class RayNodes:
    """A head and workers, each on a `Machine`; they end, and leave nothing, with the context.

    Parameters
    ----------
    network : Network
    scratch : path
        For the token and the logs of ``ray start``; the machines do not see it.
    workers : int
        Nodes besides the head.
    cpus, head_cpus : int
        That Ray hands out on each.
    env : mapping, optional
        Environment of the nodes besides `machine_environment`: credentials, PYTHONPATH, step hooks.
    hide : iterable of path
        Folders that the nodes do not see; `CODE` makes them nodes without this package.
    head_writes : iterable of path
        Folders that the head alone has.
    all_write : iterable of path
        Folders that every node has, and writes: for the log of a step hook.
    """

    gcs, url = f"{HEAD}:{GCS_PORT}", f"http://{HEAD}:{DASHBOARD_PORT}"

    def __init__(
        self,
        network: Network,
        scratch: Path,
        workers: int = 1,
        cpus: int = 2,
        head_cpus: int = 0,
        env: Mapping[str, str] | None = None,
        hide: Iterable[Path] = (),
        head_writes: Iterable[Path] = (),
        all_write: Iterable[Path] = (),
    ) -> None:
        self.network, self._scratch, self._cpus, self._head_cpus = network, scratch, cpus, head_cpus
        self._hide, self._first = [scratch, *hide], workers
        self._head_writes, self._all_write = [*head_writes, *all_write], list(all_write)
        self.token = scratch / "token"
        self.token.write_text(secrets.token_hex(16))
        self.token.chmod(0o600)
        self.env = machine_environment() | dict(env or {})
        self.workers: list[Machine] = []
        self._started = 0
        self._stack = ExitStack()

    def __enter__(self) -> RayNodes:
        with ExitStack() as failed:
            failed.callback(self._stack.close)
            self.head = self._start_node(self._head_cpus, self._head_writes)
            self._wait(lambda: self._ask("/api/version"), "the head")
            for _ in range(self._first):
                self.add_worker(wait=False)
            self.wait_for(1 + self._first)
            failed.pop_all()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stack.close()

    def add_worker(self, wait: bool = True) -> Machine:
        """Start another node, with an address of its own."""
        node = self._start_node(self._cpus, self._all_write)
        self.workers.append(node)
        if wait:
            self.wait_for(1 + sum(not worker.killed for worker in self.workers))
        return node

    def alive(self) -> int:
        """Nodes that Ray takes for alive; a killed one counts for about 15 s more."""
        nodes = self._ask("/api/v0/nodes?detail=false")
        return sum(n["state"] == "ALIVE" for n in nodes["data"]["result"]["result"]) if nodes else 0

    def wait_for(self, nodes: int) -> None:
        """Wait until so many nodes are alive."""
        self._wait(lambda: self.alive() == nodes, f"{nodes} nodes")

    def client_env(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """Environment of a machine outside the cluster that has the token; give it ``copy=[nodes.token]``."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": f"{SCRATCH}/token"} | dict(env or {})

    def _start_node(self, cpus: int, writes: list[Path]) -> Machine:
        number, address = self._started, f"10.77.0.{self._started + 1}"
        self._started += 1
        self.network.add_address(address)
        ports = 20_000 + 2_000 * (number % MOST_NODES)
        words = [RAY, "start", "--block", f"--node-ip-address={address}", f"--num-cpus={cpus}"]
        words += [f"--memory={MEMORY}", f"--object-store-memory={OBJECT_STORE}", "--disable-usage-stats"]
        words += [f"--min-worker-port={ports + 100}", f"--max-worker-port={ports + 1999}"]
        names = ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export")
        words += [f"--{name}-port={ports + n}" for n, name in enumerate(names)]
        if number:
            words.append(f"--address={self.gcs}")
        else:
            words += ["--head", f"--port={GCS_PORT}", f"--dashboard-host={HEAD}"]
            words += [f"--dashboard-port={DASHBOARD_PORT}", "--include-dashboard=true"]
        name = f"worker-{number}" if number else "head"
        log = self._scratch / f"{name}.log"
        command = self.network.enter(words, self._hide, writes, [self.token], name)
        node = Machine(name, command, log, self.env | self.client_env())
        self._stack.callback(node.kill)
        return node

    def _wait(self, ready, what: str) -> None:
        until = time.monotonic() + READY_SECONDS
        while not ready():
            for node in [n for n in (self.head, *self.workers) if not n.killed]:
                if node.process.poll() is not None:  # Ray gives up after 30 s, which a busy machine may take
                    assert node.launches < LAUNCHES, f"{node.name} ended:\n{node.log.read_text()[-3000:]}"
                    node.launch()
            assert time.monotonic() < until, f"{what} did not come up:\n{self.head.log.read_text()[-3000:]}"
            time.sleep(0.2)

    def _ask(self, path: str) -> dict | None:
        request = urllib.request.Request(
            self.url + path, headers={"Authorization": f"Bearer {self.token.read_text()}"}
        )
        with self.network.inside():
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return json.load(answer)
            except (urllib.error.URLError, OSError):
                return None


def machine_environment() -> dict[str, str]:
    """Environment of a machine: nothing of this one's but where Python is."""
    return {
        "PATH": os.pathsep.join(
            [str(PREFIX / "bin"), "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        ),
        "HOME": f"{SCRATCH}/home",
        "TMPDIR": f"{SCRATCH}/tmp",
        "RAY_TMPDIR": str(SCRATCH),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def _start(command: list[str], env: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )


def _run(command: list[str], env: dict[str, str], timeout: float) -> subprocess.CompletedProcess:
    process = _start(command, env)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as expired:
        end_session(process.pid)
        out, err = process.communicate()
        raise TimeoutError(
            f"{command[-8:]} took more than {timeout} s:\n{out[-3000:]}\n{err[-3000:]}"
        ) from expired
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _processes() -> Iterator[tuple[int, int, str]]:
    """Id, parent and command line of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield int(entry.name), int(fields[1]), command
