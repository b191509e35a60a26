"""Where the engines of a run will be: device, precision and number, here or on a cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass

from surveyproc.config.run import ClusterConfig, RunConfig
from surveyproc.inference.settings import resolve_device, resolve_precision


@dataclass(frozen=True)
class Place:
    """``actors`` engines on ``device``, computing in ``precision``."""

    device: str
    precision: str
    actors: int


def find_place(config: RunConfig, uris: Sequence[tuple[str, str]]) -> Place:
    """Resolve what the settings leave open, by what this machine or the cluster has.

    Parameters
    ----------
    config : RunConfig
    uris : sequence of (str, str)
        Flags, and the addresses that every engine must be able to open.

    Raises
    ------
    SurveyprocError
        When the cluster cannot be reached, or cannot do what is asked.
    """
    if config.cluster.kind == "address":
        from surveyproc.distributed.survey import survey_cluster

        return Place(*survey_cluster(config, uris))
    device = resolve_device(config.engine.device)
    precision = resolve_precision(config.engine.precision, device)
    return Place(device, precision, config.cluster.actors or _engines_here(device))


@contextmanager
def session(cluster: ClusterConfig, verbose: bool) -> Iterator[None]:
    """Stay connected to a running cluster, so that a run connects once; nothing for the other kinds."""
    if cluster.kind != "address":
        yield
        return
    from surveyproc.distributed.rays import ray_cluster

    with redirect_stdout(sys.stderr), ray_cluster(cluster, verbose):
        yield


def _engines_here(device: str) -> int:
    if device == "cpu":
        return len(os.sched_getaffinity(0))
    import torch

    return max(1, torch.cuda.device_count())
