"""Training on Ray Train: a group of workers that restarts from the last checkpoint when one is lost."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from ray import train as ray_train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer

from surveyproc.config.run import ClusterConfig, WorkersConfig
from surveyproc.cutouts import InputContract
from surveyproc.distributed.lanes import LaneConfig, collect, lane_sizes, source_of
from surveyproc.distributed.preflight import Demand, Node, absolute, living, require_reachable
from surveyproc.distributed.rays import ray_cluster
from surveyproc.errors import ResourceError, SurveyprocError
from surveyproc.images.inputs import BundleInput
from surveyproc.training.checkpoint import (
    checkpoint_name,
    checkpoints,
    read_state,
    read_tensors,
    write_state,
    write_tensors,
)
from surveyproc.training.job import Say, Trained, Training
from surveyproc.training.loop import outcome, planned_images, train
from surveyproc.training.losses import class_weights
from surveyproc.training.recipe import Recipe
from surveyproc.training.sampler import Lanes, Sampler
from surveyproc.training.signals import stop_requests
from surveyproc.training.state import State, new_state
from surveyproc.training.workspace import Workspace
from surveyproc.training.world import World
from surveyproc.votes import VoteSchema

STOP = "stop"
POLL_SECONDS = 0.5
STOP_SECONDS = 120.0  # for a checkpoint, once asked to stop: a group that never started will not answer
STATE, BEST = "state.safetensors", "best.safetensors"


def train_on_ray(
    training: Training,
    workspace: Workspace,
    say: Say,
    *,
    workers: WorkersConfig,
    cluster: ClusterConfig,
    verbose: bool = False,
) -> Trained:
    """Train with a group of Ray workers; the same command again resumes from the workspace.

    Parameters
    ----------
    workers : WorkersConfig
        Workers wanted; with ``min_workers`` as many as there is room for when the command starts, between the two.

    Raises
    ------
    ResourceError
        When the cluster has no room for the workers, or too many were lost.
    KeyboardInterrupt
        After a checkpoint, when the process was asked to stop.
    """
    recipe, gpu = training.request.recipe, training.request.recipe.device == "cuda"
    rows = len(training.joined.rows["train"])
    Lanes(rows, recipe.batch).owned(0, workers.num_workers)
    with ray_cluster(cluster, verbose) as ray:
        nodes = living(ray.nodes())
        uri = absolute(training.request.catalog)
        require_reachable(
            [("--output", str(workspace.folder)), ("--catalog", uri)], len(nodes), cluster.shared_filesystem
        )
        one = Demand(1, cluster.cpus_per_actor, int(gpu))
        workers = replace(workers, num_workers=workers_for(nodes, one, workers))
        say(f"training with {workers.num_workers} workers")
        _quiet(ray, verbose)
        state = new_state(recipe, training.schema, training.contract)
        workspace.restore(state)
        if state.images_seen < planned_images(recipe, rows) and not state.stopped:
            _fit(training, workspace, uri, workers, cluster, gpu, say)
            state = new_state(recipe, training.schema, training.contract)
            workspace.restore(state)
    if state.images_seen < planned_images(recipe, rows) and not state.stopped:
        raise KeyboardInterrupt
    model, log = outcome(state, workspace, recipe, training.schema, training.contract)
    return model, log | {"workers": workers.num_workers}, None


def workers_for(nodes: list[Node], one: Demand, workers: WorkersConfig) -> int:
    """How many workers to start: the number wanted, or what there is room for down to ``min_workers``.

    Global batches are the same for any number, so that the same command resumes with another one.

    Raises
    ------
    ResourceError
        When there is not even room for the least number.
    """
    least = workers.min_workers or workers.num_workers
    for number in range(workers.num_workers, least, -1):
        with suppress(ResourceError):
            require_workers(nodes, replace(one, actors=number))
            return number
    require_workers(nodes, replace(one, actors=least))
    return least


def require_workers(nodes: list[Node], demand: Demand) -> None:
    """Refuse workers that could never all run, or would leave nothing to decode cutouts with.

    Raises
    ------
    ResourceError
    """
    room = sum(demand.fits_on(node) for node in nodes)
    cpus = sum(node.cpus for node in nodes)
    each = f"{demand.cpus:g} CPUs{' and a GPU' if demand.gpus else ''}"
    if room < demand.actors:
        raise ResourceError(
            f"{demand.actors} workers of {each} do not fit on the cluster ({cpus:g} CPUs, "
            f"{sum(n.gpus for n in nodes):g} GPUs): there is room for {room}, and the training would hang",
            where="train.num_workers, cluster.cpus_per_actor",
            fix=f"use train.num_workers={room}" if room else "ask for less for each worker",
        )
    if demand.actors * demand.cpus >= cpus:
        raise ResourceError(
            f"{demand.actors} workers of {each} leave nothing of the {cpus:g} CPUs to decode cutouts with: the "
            "training would hang",
            where="train.num_workers, cluster.cpus_per_actor",
            fix=f"use cluster.cpus_per_actor={0.9 * cpus / demand.actors:.2g}, or fewer workers",
        )


def _fit(
    training: Training,
    workspace: Workspace,
    uri: str,
    workers: WorkersConfig,
    cluster: ClusterConfig,
    gpu: bool,
    say: Say,
) -> None:
    recipe, folder = training.request.recipe, workspace.folder.resolve()
    sources = {
        split: source_of(training.catalog, uri, training.labels, training.joined, split, training.contract)
        for split in ("train", "validation")
    }
    scratch = folder / "ray"
    shutil.rmtree(scratch, ignore_errors=True)
    (folder / STOP).unlink(missing_ok=True)
    weights = None
    collector: Any = _Collector(str(folder))
    if recipe.balance == "inverse":
        weights = class_weights(sources["train"].joint, training.schema).tolist()
    from ray import data

    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "recipe": asdict(recipe),
            "schema": training.schema.to_dict(),
            "contract": training.contract.to_dict(),
            "rows": len(sources["train"].rows),
            "dtype": BundleInput(training.contract, training.catalog.image).dtype,
            "folder": str(folder),
            "answer_weights": weights,
        },
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=gpu,
            resources_per_worker={"CPU": cluster.cpus_per_actor} | ({"GPU": 1} if gpu else {}),
        ),
        run_config=RunConfig(
            name="run",
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=workers.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=[collector],
        ),
        datasets={name: data.from_items([name]) for name in sources},
        dataset_config=LaneConfig(sources, recipe.batch),
    )
    failed = _wait(trainer.fit, workspace, say)
    shutil.rmtree(scratch, ignore_errors=True)
    if failed is not None:
        raise _explained(failed, workers.max_failures) from failed


def _wait(fit: Callable[[], Any], workspace: Workspace, say: Say) -> BaseException | None:
    """Run the trainer in a thread, pass on what the workers say, and ask them to stop when we are asked."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            fit()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    told = _Follower(workspace, say)
    patience = STOP_SECONDS
    with stop_requests() as asked:
        thread.start()
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            told.follow()
            if asked.is_set():
                (workspace.folder / STOP).touch()
                patience -= POLL_SECONDS
            if patience < 0:
                break
    told.follow()
    return failed[0] if failed else None


class _Follower:
    """Says and draws what was added to the metrics."""

    def __init__(self, workspace: Workspace, say: Say) -> None:
        self._path, self._show, self._say = workspace.folder / "metrics.jsonl", workspace.show, say
        path = self._path
        self._place = path.stat().st_size if path.exists() else 0

    def follow(self) -> None:
        """Say the new lines."""
        if not self._path.exists():
            return
        with self._path.open() as file:
            file.seek(self._place)
            for line in file:
                value = json.loads(line)
                words = [f"{k.rpartition('/')[2]} {v:g}" for k, v in value.items() if k != "images_seen"]
                self._show(value)
                self._say(f"images {value['images_seen']}: {', '.join(words)}")
            self._place = file.tell()


class _Collector(UserCallback):
    """Puts what workers report into the workspace; runs beside the driver, on its node."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Name a complete checkpoint and write the metrics that lead to it."""
        report, workspace = metrics[0], Workspace(self._folder)
        for line in report["lines"]:
            workspace.log(line)
        with checkpoint.as_directory() as folder:
            for name, target in ((BEST, report["best"]), (STATE, checkpoint_name(report["images_seen"]))):
                if target and (Path(folder) / name).exists():
                    _publish(Path(folder) / name, workspace.folder / target)
        workspace.prune(report["best"])


def _publish(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)


class _Reporter:
    """Keeper of a worker: checkpoints go through `ray.train.report`, which is a barrier of all workers."""

    def __init__(self, folder: str, rank: int) -> None:
        self._folder, self._rank = Path(folder), rank
        self._lines: list[dict[str, float]] = []
        self._best: dict[str, torch.Tensor] | None = None

    def restore(self, state: State) -> None:
        """Take the group's last checkpoint, or the workspace's when the group is the driver's first."""
        checkpoint = ray_train.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                read_state(Path(folder) / STATE, state)
                if (Path(folder) / BEST).exists():
                    self._best = read_tensors(Path(folder) / BEST)[0]
        elif found := checkpoints(self._folder):
            read_state(found[-1], state)
            if best := checkpoints(self._folder, "best"):
                self._best = read_tensors(best[-1])[0]

    def log(self, line: dict[str, float]) -> None:
        """Keep a line for the next report."""
        self._lines.append(line)

    def save(self, state: State) -> None:
        """Report the lines, and from the first worker the checkpoint."""
        best = checkpoint_name(int(state.best["images_seen"]), "best") if state.best and self._best else ""
        metrics = {"images_seen": state.images_seen, "lines": self._lines, "best": best}
        self._lines = []
        if self._rank > 0:
            ray_train.report(metrics, None)
            return
        with tempfile.TemporaryDirectory() as folder:
            write_state(Path(folder) / STATE, state)
            if self._best is not None:
                write_tensors(Path(folder) / BEST, self._best, {})
            ray_train.report(metrics, ray_train.Checkpoint.from_directory(folder))

    def save_best(self, state: State) -> None:
        """Copy the averaged weights of this look."""
        self._best = {k: v.detach().cpu().clone() for k, v in state.ema.items()}

    def best_weights(self, state: State) -> dict[str, torch.Tensor]:
        """Averaged weights of the best look."""
        return self._best or state.ema


def _work(config: dict[str, Any]) -> None:
    """Train one worker's part of every batch."""
    context = ray_train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    recipe, contract = Recipe(**config["recipe"]), InputContract.from_dict(config["contract"])
    torch.set_num_threads(recipe.threads)
    lanes = Lanes(config["rows"], recipe.batch)
    owned = lanes.owned(rank, size)
    training, positions = collect(_batches("train"), contract, True, config["dtype"])
    validation, _ = collect(_batches("validation"), contract, False)
    stop, weights = Path(config["folder"]) / STOP, config["answer_weights"]
    try:
        train(
            training,
            validation,
            VoteSchema.from_dict(config["schema"]),
            contract,
            recipe,
            keeper=_Reporter(config["folder"], rank),
            world=World(rank, size, _add),
            sampler=Sampler(recipe.seed, lanes, owned, lane_sizes(positions, lanes, owned)),
            answer_weights=None if weights is None else torch.tensor(weights),
            asked=stop.exists,
        )
    except KeyboardInterrupt:
        return


def _add(tensor: torch.Tensor) -> None:
    torch.distributed.all_reduce(tensor)


def _batches(name: str) -> Any:
    return ray_train.get_dataset_shard(name).iter_batches(batch_size=None, batch_format="pyarrow")


def _explained(error: BaseException, max_failures: int) -> BaseException:
    """The error of ours that is inside Ray's, or one that says what was lost."""
    inner: list[BaseException] = list(getattr(error, "worker_failures", {}).values())
    for cause in inner:
        original = getattr(cause, "_base_exc", None) or getattr(cause, "cause", None) or cause
        if isinstance(original, SurveyprocError):
            return original
    first = str(inner[0] if inner else error).strip().splitlines()
    return ResourceError(
        f"the workers were lost {max_failures + 1} times: {first[-1] if first else type(error).__name__}",
        where="train.num_workers",
        fix="the same command resumes from the last checkpoint; train.max_failures allows more losses",
    )


def _quiet(ray: Any, verbose: bool) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = verbose
    context.print_on_execution_start = False
