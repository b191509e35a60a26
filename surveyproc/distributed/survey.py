"""Ask a running cluster what it has: room, device, precision; wait for one that is still growing."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from surveyproc.config.run import RunConfig
from surveyproc.distributed.preflight import (
    Demand,
    Node,
    demand_of,
    living,
    require_reachable,
    require_room,
    usual_actors,
)
from surveyproc.distributed.rays import ray_cluster
from surveyproc.errors import ResourceError

ANSWER_SECONDS = 180.0
POLL_SECONDS = 2.0


def survey_cluster(config: RunConfig, uris: Sequence[tuple[str, str]]) -> tuple[str, str, int]:
    """Resolve device, precision and number of engines by the nodes of a running cluster.

    The driver's own machine does not count: a head without CPUs or GPU drives nodes that have them.

    Returns
    -------
    tuple
        Device, precision, number of engines.

    Raises
    ------
    SurveyprocError
        When the engines would not fit, could not open ``uris``, or could not compute the precision asked for.
    """
    cluster, engine = config.cluster, config.engine
    with ray_cluster(cluster, verbose=False) as ray:
        nodes = living(ray.nodes())
        device = engine.device
        if device == "auto":
            device = "cuda" if any(node.gpus for node in nodes) else "cpu"
        gpu = device != "cpu"
        if cluster.actors and cluster.wait_seconds:
            nodes = _grown(ray, demand_of(cluster, cluster.actors, gpu), cluster.wait_seconds)
        require_reachable(uris, len(nodes), cluster.shared_filesystem)
        actors = cluster.actors or max(1, usual_actors(nodes, cluster.cpus_per_actor, gpu, engine.threads))
        demand = demand_of(cluster, actors, gpu)
        require_room(nodes, demand)
        hosts = [node for node in nodes if demand.fits_on(node)]
        return device, _common_precision(ray, hosts, device, engine.precision), actors


def _grown(ray: Any, demand: Demand, seconds: float) -> list[Node]:
    """Ask the autoscaler for room, and wait until it is there or the time is up."""
    from ray.autoscaler.sdk import request_resources

    until, told = time.monotonic() + seconds, False
    try:
        while True:
            nodes = living(ray.nodes())
            if sum(demand.fits_on(node) for node in nodes) >= demand.actors or time.monotonic() > until:
                return nodes
            if not told:
                print(f"waiting up to {seconds:g} s for room for {demand}", file=sys.stderr)
                request_resources(bundles=[demand.bundle()] * demand.actors)
                told = True
            time.sleep(POLL_SECONDS)
    finally:
        if told:
            request_resources(
                bundles=[]
            )  # a request stands until it is withdrawn, and would keep nodes alive


def _common_precision(ray: Any, nodes: list[Node], device: str, wanted: str) -> str:
    able = _ask_for_precision(ray, nodes, device)
    unable = [name for name, precision in able.items() if precision != "bf16"]
    if wanted == "auto":
        return "fp32" if unable else "bf16"
    if wanted == "bf16" and unable:
        raise ResourceError(
            f"{len(unable)} of {len(able)} nodes do not compute bf16 on {device}: {', '.join(unable[:3])}",
            where="engine.precision",
            fix="use engine.precision=fp32, or nodes of one kind",
        )
    return wanted


def _ask_for_precision(ray: Any, nodes: list[Node], device: str) -> dict[str, str]:
    """What each node computes; also the first proof that this package is installed on it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # A nested function travels by value, so that a node without this package can still say so.
    def able() -> tuple[str, str]:
        try:
            from surveyproc.inference.settings import resolve_precision
        except ImportError as error:
            return "", str(error)
        return resolve_precision("auto", device), ""

    task = ray.remote(num_cpus=0, num_gpus=0.001 if device != "cpu" else 0, max_retries=0)(able)
    asked = {
        node.name: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote()
        for node in nodes
    }
    until, found = time.monotonic() + ANSWER_SECONDS, {}
    for name, reference in asked.items():
        try:
            precision, problem = ray.get(reference, timeout=max(0.0, until - time.monotonic()))
        except ray.exceptions.RayError as error:
            precision, problem = "", str(error).strip().splitlines()[-1]
        if problem:
            raise ResourceError(
                f"a node cannot run surveyproc: {problem}",
                where=f"node {name}",
                fix="install surveyproc on every node, or let `surveyproc submit` ship it",
            )
        found[name] = precision
    return found
