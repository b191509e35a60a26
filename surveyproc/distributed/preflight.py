"""What a cluster can hold, from its list of nodes: requests that would hang are refused with the fix.

Ray keeps an actor that fits nowhere waiting without a word, so every number is checked before anything starts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surveyproc.config.run import ClusterConfig
from surveyproc.errors import ResourceError, UsageError
from surveyproc.stores import is_hub

SHARED_MEMORY = "/dev/shm"  # noqa: S108
UNITS = 10_000  # Ray counts resources in ten-thousandths
MB, GB = 2**20, 2**30


@dataclass(frozen=True)
class Node:
    """A living node: what Ray may hand out there.

    Attributes
    ----------
    id, name : str
        Ray's id of the node, and its host name.
    cpus, gpus : float
    memory : float
        Bytes.
    """

    id: str
    name: str
    cpus: float
    gpus: float
    memory: float


@dataclass(frozen=True)
class Demand:
    """``actors`` engine actors, each of which wants ``cpus``, ``gpus`` and ``memory`` (bytes) on one node."""

    actors: int
    cpus: float
    gpus: int = 0
    memory: int = 0

    def fits_on(self, node: Node) -> int:
        """How many of the actors the node could hold if it were empty."""
        wanted = ((self.cpus, node.cpus), (self.gpus, node.gpus), (self.memory, node.memory))
        return min(round(has * UNITS) // round(wants * UNITS) for wants, has in wanted if wants)

    def bundle(self) -> dict[str, float]:
        """One actor's resources by Ray's names."""
        named = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return {name: value for name, value in named.items() if value}

    def __str__(self) -> str:
        each = [f"{self.cpus:g} CPUs"]
        each += [f"{self.gpus:g} GPU"] if self.gpus else []
        each += [f"{self.memory / GB:g} GB"] if self.memory else []
        return f"{self.actors} engine actor{'s' if self.actors > 1 else ''} of {' and '.join(each)}"


def demand_of(cluster: ClusterConfig, actors: int, gpu: bool) -> Demand:
    """Put together what ``actors`` engines of a run want."""
    memory = int((cluster.memory_gb_per_actor or 0) * GB)
    return Demand(actors, cluster.cpus_per_actor, int(gpu), memory)


def living(nodes: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Read the living nodes out of what `ray.nodes` lists."""
    found = []
    for node in nodes:
        if node["Alive"]:
            has = node["Resources"]
            values = (float(has.get(name, 0)) for name in ("CPU", "GPU", "memory"))
            found.append(Node(node["NodeID"], node["NodeManagerHostname"], *values))
    return found


def require_room(nodes: Sequence[Node], demand: Demand) -> None:
    """Refuse engine actors that could never all run, or would leave Ray no CPU for its own tasks.

    Raises
    ------
    ResourceError
    """
    cpus, gpus = sum(n.cpus for n in nodes), sum(n.gpus for n in nodes)
    if demand.gpus and gpus < demand.actors * demand.gpus:
        raise ResourceError(
            f"{demand}: the cluster has {gpus:g} GPUs",
            where="cluster.actors",
            fix=f"use cluster.actors={int(gpus)}" if gpus >= 1 else "use engine.device=cpu" + _or_wait(),
        )
    room = sum(demand.fits_on(node) for node in nodes)
    if room < demand.actors:
        raise ResourceError(
            f"{demand} do not fit on {_described(nodes)}: an actor must fit on one node, and there is room "
            f"for {room}; the job would hang",
            where="cluster.actors, cluster.cpus_per_actor, cluster.memory_gb_per_actor",
            fix=(f"use cluster.actors={room}" if room else "ask for less for each actor") + _or_wait(),
        )
    if demand.actors * demand.cpus >= cpus:
        raise ResourceError(
            f"{demand} leave nothing of the {cpus:g} CPUs for Ray's own tasks: the job would hang",
            where="cluster.actors, cluster.cpus_per_actor",
            fix=f"use cluster.actors={max(1, int(cpus))} cluster.cpus_per_actor=0.9, or fewer actors",
        )


def usual_actors(nodes: Sequence[Node], cpus_per_actor: float, gpu: bool, threads: int) -> int:
    """Engines for a cluster when no number is given: one for each GPU, or one for each ``threads`` cores."""
    one = Demand(1, cpus_per_actor, int(gpu))
    return sum(min(one.fits_on(n), int(n.gpus) if gpu else max(1, int(n.cpus) // threads)) for n in nodes)


def require_shared_memory(megabytes: int, folder: str = SHARED_MEMORY) -> None:
    """Refuse an object store for which the shared memory has no room: Ray would put it on the disk.

    Raises
    ------
    ResourceError
    """
    free = shutil.disk_usage(folder).free // MB if os.path.isdir(folder) else 0
    if megabytes > free:
        raise ResourceError(
            f"Ray's object store of {megabytes} MB does not fit into the {free} MB that are free in {folder}",
            where="cluster.object_store_mb",
            fix="give the container more (docker run --shm-size=1g), use a smaller one, or use cluster=none",
        )


def require_reachable(uris: Iterable[tuple[str, str]], nodes: int, shared: bool) -> None:
    """Refuse addresses that the engines of a cluster could not open.

    Parameters
    ----------
    uris : iterable of (str, str)
        Flags and the addresses given with them.
    nodes : int
        Nodes of the cluster.
    shared : bool
        Local paths are the same files on every node.

    Raises
    ------
    UsageError
    """
    for flag, uri in uris:
        if uri.startswith("memory://"):
            raise UsageError(
                "memory:// is the memory of one process: Ray's actors cannot see it",
                where=f"{flag} {uri}",
                fix="use cluster=none, or a folder or bucket",
            )
        if nodes > 1 and not shared and is_local(uri):
            raise UsageError(
                f"a local path, and the cluster has {nodes} nodes: the others do not have it",
                where=f"{flag} {uri}",
                fix="use a bucket (s3://...), or say cluster.shared_filesystem=true when this path is the "
                "same folder on every node",
            )


def is_local(uri: str) -> bool:
    """Whether an address is a path of this machine."""
    protocol, found, _ = uri.partition("://")
    return protocol in ("file", "local") if found else not is_hub(uri)


def absolute(uri: str) -> str:
    """Make a local path independent of the current folder; other addresses stay as they are."""
    return os.path.abspath(uri) if "://" not in uri else uri


def _or_wait() -> str:
    return ", or on an autoscaling cluster give it time: cluster.wait_seconds=900"


def _described(nodes: Sequence[Node]) -> str:
    if not nodes:
        return "a cluster without nodes"
    kinds: dict[str, int] = {}
    for node in nodes:
        gpus = f" and {node.gpus:g} GPUs" if node.gpus else ""
        text = f"{node.cpus:g} CPUs{gpus} and {node.memory / GB:.1f} GB"
        kinds[text] = kinds.get(text, 0) + 1
    return ", ".join(f"{count} node{'s' if count > 1 else ''} of {text}" for text, count in kinds.items())
