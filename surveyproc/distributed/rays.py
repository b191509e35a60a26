"""The Ray executor: shard descriptors stream through Ray Data into a pool of engine actors."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from typing import Any

from surveyproc import errors
from surveyproc.config.run import ClusterConfig
from surveyproc.distributed.worker import Outcome, RunTask, ShardWorker
from surveyproc.errors import ResourceError, SurveyprocError
from surveyproc.runs.plan import Shard

OBJECT_STORE_BYTES = 256 * 2**20


@contextmanager
def ray_cluster(cluster: ClusterConfig, verbose: bool) -> Iterator[Any]:
    """Connect to Ray: a cluster of this machine's own, or a running one; quiet unless ``verbose``.

    Only descriptors and outcomes cross the object store, so that a small one is enough.
    """
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if not verbose:
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
        ray.init(cluster.address, **quiet)
    else:
        ray.init(
            "local",
            num_cpus=os.cpu_count(),
            object_store_memory=OBJECT_STORE_BYTES,
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


def run_shards(
    task: RunTask, shards: list[Shard], actors: int, cluster: ClusterConfig, verbose: bool = False
) -> Iterator[Outcome]:
    """Work through shards with a pool of ``actors`` engine actors.

    Ray restarts actors without end; what a shard costs is bounded by its attempts, not by Ray's counters.

    Raises
    ------
    ResourceError
        When the cluster cannot hold the actors and still run its own tasks.
    """
    gpu = task.settings.device.startswith("cuda")
    # Ray prints what befalls its actors to stdout, which is for data.
    with redirect_stdout(sys.stderr), ray_cluster(cluster, verbose) as ray:
        _require_resources(ray, actors, cluster.cpus_per_actor, gpu)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = verbose
        context.print_on_execution_start = False
        if not verbose:
            logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = [{"shard": asdict(shard)} for shard in shards]
        outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _EngineActor,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
            num_cpus=cluster.cpus_per_actor,
            num_gpus=1 if gpu else None,
            fn_constructor_args=(task,),
        )
        for row in outcomes.iter_rows():
            if row["failed"]:
                raise _rebuild(row["failed"])
            yield Outcome(**row["outcome"])


class _EngineActor:
    """What runs in an actor. Errors travel as rows: Ray would drop the rest of the block with them."""

    def __init__(self, task: RunTask) -> None:
        self._task = task
        self._worker: ShardWorker | None = None

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        shard = Shard(**batch["shard"][0].as_py())
        outcome = Outcome(shard.unit, 0, 0, 0.0, False)
        failed = {"kind": "", "what": "", "where": "", "fix": ""}
        try:
            if self._worker is None:
                self._worker = ShardWorker(self._task)
            outcome = self._worker(shard)
        except SurveyprocError as error:
            failed = {
                "kind": type(error).__name__,
                "what": error.what,
                "where": error.where,
                "fix": error.fix,
            }
        except Exception as error:
            text = "".join(traceback.format_exception(error))
            failed = {
                "kind": "SurveyprocError",
                "what": f"the engine failed:\n{text}",
                "where": shard.unit,
                "fix": "",
            }
        return pa.table({"outcome": [asdict(outcome)], "failed": [failed if failed["kind"] else None]})


def _rebuild(failed: dict[str, str]) -> SurveyprocError:
    kind = getattr(errors, failed["kind"], SurveyprocError)
    return kind(failed["what"], where=failed["where"], fix=failed["fix"])


def _require_resources(ray: Any, actors: int, cpus_per_actor: float, gpu: bool) -> None:
    have = ray.cluster_resources()
    cpus = have.get("CPU", 0)
    if actors * cpus_per_actor >= cpus:
        raise ResourceError(
            f"{actors} engine actors of {cpus_per_actor:g} CPUs leave nothing of the {cpus:g} CPUs for Ray's "
            "own tasks: the job would hang",
            where="cluster.actors, cluster.cpus_per_actor",
            fix=f"use cluster.actors={max(1, int(cpus))} cluster.cpus_per_actor=0.9, or fewer actors",
        )
    if gpu and have.get("GPU", 0) < actors:
        raise ResourceError(
            f"{actors} engine actors need a GPU each; the cluster has {have.get('GPU', 0):g}",
            where="cluster.actors",
            fix=f"use cluster.actors={int(have.get('GPU', 0)) or 1} or engine.device=cpu",
        )
