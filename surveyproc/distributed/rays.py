"""The Ray executor: descriptors of units stream through Ray Data into a pool of actors."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from typing import Any

from surveyproc import errors
from surveyproc.config.run import ClusterConfig
from surveyproc.distributed.feed import groups, waves
from surveyproc.distributed.preflight import (
    MB,
    Demand,
    demand_of,
    living,
    require_reachable,
    require_room,
    require_shared_memory,
)
from surveyproc.distributed.units import Outcome, Task
from surveyproc.errors import ResourceError, SurveyprocError

WAVE_SHARDS = 65_536


@contextmanager
def ray_cluster(cluster: ClusterConfig, verbose: bool) -> Iterator[Any]:
    """Connect to Ray: a cluster of this machine's own, or a running one; quiet unless ``verbose``.

    Only descriptors and outcomes cross the object store, so that a small one is enough.

    Raises
    ------
    ResourceError
        When the cluster cannot be reached, or this machine has no room for one.
    """
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if not verbose:
        if cluster.kind != "address":
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    import ray

    level = logging.INFO if verbose else logging.ERROR
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": verbose, "logging_level": level}
    on_terminate = signal.getsignal(signal.SIGTERM)
    if cluster.kind == "address":
        _connect(ray, str(cluster.address), quiet)
    else:
        require_shared_memory(cluster.object_store_mb)
        ray.init(
            "local",
            num_cpus=os.cpu_count(),
            object_store_memory=cluster.object_store_mb * MB,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray put a handler there that aborts
    try:
        yield ray
    finally:
        ray.shutdown()


def run_units(
    task: Task, units: Sequence[Any], actors: int, cluster: ClusterConfig, verbose: bool = False
) -> Iterator[Outcome]:
    """Work through units with a pool of ``actors`` actors.

    One dataset streams up to `WAVE_SHARDS` units: Ray keeps the statistics of every block to its end.

    Ray restarts actors without end; what a unit costs is bounded by its attempts, not by Ray's counters.

    Raises
    ------
    ResourceError
        When the cluster cannot hold the actors and still run its own tasks.
    """
    # Ray prints what befalls its actors to stdout, which is for data.
    with redirect_stdout(sys.stderr), ray_cluster(cluster, verbose) as ray:
        nodes, demand = living(ray.nodes()), demand_of(cluster, actors, task.gpu)
        require_reachable(task.uris, len(nodes), cluster.shared_filesystem)
        require_room(nodes, demand)
        _tell_if_busy(ray.available_resources(), demand)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = verbose
        context.print_on_execution_start = False
        if not verbose:
            logging.getLogger("ray.data").setLevel(logging.ERROR)
        context.target_max_block_size = 1  # each outcome is a block of its own, sent when it is there
        for wave in waves(units, WAVE_SHARDS):
            rows = [json.dumps([asdict(u) for u in group]) for group in groups(wave, task.lanes * actors)]
            outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _EngineActor,
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    size=actors,
                    max_tasks_in_flight_per_actor=2 * task.lanes,
                    max_concurrent_calls_per_actor=task.lanes,
                    enable_true_multi_threading=True,
                ),
                num_cpus=cluster.cpus_per_actor,
                num_gpus=demand.gpus or None,
                memory=demand.memory or None,
                fn_constructor_args=(task, cluster.kind == "address"),
            )
            for row in outcomes.iter_rows():
                if row["failed"]:
                    raise _rebuild(row["failed"])
                yield Outcome(**row["outcome"])


class _EngineActor:
    """What runs in an actor. Errors travel as rows: Ray would drop the rest of the block with them."""

    def __init__(self, task: Task, name_node: bool) -> None:
        self._task = task
        self._node = f" (node {socket.gethostname()})" if name_node else ""
        self._worker: Callable[[Any], Outcome] | None = None
        self._building = threading.Lock()

    def __call__(self, batch: Any) -> Iterator[Any]:
        for unit in json.loads(batch["item"][0].as_py()):
            yield self._work(self._task.unit(**unit))

    def _work(self, unit: Any) -> Any:
        import pyarrow as pa

        outcome = Outcome(unit.unit, 0, 0, 0.0, False)
        failed = {"kind": "", "what": "", "where": "", "fix": ""}
        try:
            with self._building:
                self._worker = self._worker or self._task.worker()
            outcome = self._worker(unit)
        except SurveyprocError as error:
            failed = {
                "kind": type(error).__name__,
                "what": error.what,
                "where": f"{error.where}{self._node}",
                "fix": error.fix,
            }
        except Exception as error:
            text = "".join(traceback.format_exception(error))
            failed = {
                "kind": "SurveyprocError",
                "what": f"a worker failed:\n{text}",
                "where": f"{unit.unit}{self._node}",
                "fix": "",
            }
        return pa.table({"outcome": [asdict(outcome)], "failed": [failed if failed["kind"] else None]})


def _rebuild(failed: dict[str, str]) -> SurveyprocError:
    kind = getattr(errors, failed["kind"], SurveyprocError)
    return kind(failed["what"], where=failed["where"], fix=failed["fix"])


def _tell_if_busy(free: dict[str, float], demand: Demand) -> None:
    wanted = demand.bundle()
    short = [n for n in wanted if free.get(n, 0) < demand.actors * wanted[n]]
    if short:
        what = " and ".join(f"{free.get(n, 0):g} {n}" for n in short)
        print(
            f"the cluster is busy ({what} free): some of the {demand} start when there is room",
            file=sys.stderr,
        )


def _connect(ray: Any, address: str, options: dict[str, Any]) -> None:
    try:
        ray.init(address, **options)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise ResourceError(
            f"the Ray cluster cannot be reached: {str(error).strip().splitlines()[0]}",
            where=f"cluster.address={address}",
            fix="the driver runs on a node of the cluster; from elsewhere use `surveyproc submit`. A cluster "
            "with tokens wants RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH",
        ) from error
