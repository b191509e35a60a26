"""The typed config of the main job."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from surveyproc.config.compose import compose_config, refuse

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "bf16", "fp32")
MIN_OBJECT_STORE_MB = 80
Config = typing.TypeVar("Config")


@dataclass(frozen=True)
class EngineConfig:
    """``engine.*``: how values are computed, and how large a shard is."""

    device: str
    precision: str
    batch_size: int
    threads: int
    views: int | None
    draws: int | None
    shard_rows: int | None
    shard_seconds: float

    def problems(self) -> list[str]:
        """Describe values out of range."""
        found = []
        if self.device not in DEVICES:
            found.append(f"engine.device={self.device}: must be one of {', '.join(DEVICES)}")
        if self.precision not in PRECISIONS:
            found.append(f"engine.precision={self.precision}: must be one of {', '.join(PRECISIONS)}")
        if self.views not in (None, 1, 2, 4, 8):
            found.append(f"engine.views={self.views}: must be 1, 2, 4 or 8")
        for name in ("batch_size", "threads", "draws", "shard_rows", "shard_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                found.append(f"engine.{name}={value}: must be above 0")
        return found


@dataclass(frozen=True)
class ClusterConfig:
    """``cluster.*``: where the work runs; never changes values."""

    kind: str
    address: str | None
    actors: int | None
    cpus_per_actor: float
    memory_gb_per_actor: float | None
    object_store_mb: int
    shared_filesystem: bool
    wait_seconds: float

    def problems(self) -> list[str]:
        """Describe values out of range."""
        found = []
        if self.kind == "address" and not self.address:
            found.append("cluster=address: needs cluster.address=HOST:PORT")
        if self.address and "://" in self.address:
            found.append(
                f"cluster.address={self.address}: must be HOST:PORT, or auto on a node of the cluster; "
                "from a machine outside it use `surveyproc submit --address http://HEAD:8265`"
            )
        if self.actors is not None and self.actors < 1:
            found.append(f"cluster.actors={self.actors}: must be at least 1")
        if self.wait_seconds > 0 and self.actors is None:
            found.append(
                f"cluster.wait_seconds={self.wait_seconds:g}: needs cluster.actors, to know what for"
            )
        if self.object_store_mb < MIN_OBJECT_STORE_MB:
            found.append(
                f"cluster.object_store_mb={self.object_store_mb}: Ray needs {MIN_OBJECT_STORE_MB} or more"
            )
        for name in ("cpus_per_actor", "memory_gb_per_actor"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                found.append(f"cluster.{name}={value}: must be above 0")
        if self.wait_seconds < 0:
            found.append(f"cluster.wait_seconds={self.wait_seconds:g}: must not be negative")
        return found


@dataclass(frozen=True)
class WorkersConfig:
    """``train.*`` settings that say who trains; they never change the recipe.

    Attributes
    ----------
    num_workers : int
        Workers of Ray Train; 0 trains in this process.
    min_workers : int, optional
        The group may start with as few as this where there is no room for more.
    max_failures : int
        Losses of workers before a training gives up; -1 never does.
    """

    num_workers: int
    min_workers: int | None
    max_failures: int

    def problems(self, cluster: ClusterConfig) -> list[str]:
        """Describe values out of range."""
        found = []
        if self.num_workers < 0:
            found.append(f"train.num_workers={self.num_workers}: must not be negative")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.num_workers:
            found.append(f"train.min_workers={self.min_workers}: must be between 1 and train.num_workers")
        if self.max_failures < -1:
            found.append(f"train.max_failures={self.max_failures}: must be -1 (no limit) or more")
        if self.num_workers > 0 and cluster.kind == "none":
            found.append("cluster=none: has no workers; use cluster=local, or train.num_workers=0")
        if self.num_workers == 0 and cluster.kind in ("local", "address"):
            found.append(f"train.num_workers=0: trains in this process, not on cluster={cluster.kind}")
        return found


@dataclass(frozen=True)
class OutputConfig:
    """``output.*``: what is written."""

    carry: list[str]
    index: bool

    def problems(self) -> list[str]:
        """Describe values out of range."""
        return []


@dataclass(frozen=True)
class LimitsConfig:
    """``limits.*``: when a run gives up."""

    max_reject_fraction: float

    def problems(self) -> list[str]:
        """Describe values out of range."""
        if 0 <= self.max_reject_fraction <= 1:
            return []
        return [f"limits.max_reject_fraction={self.max_reject_fraction}: must be between 0 and 1"]


@dataclass(frozen=True)
class RunConfig:
    """The config of ``surveyproc run``."""

    engine: EngineConfig
    cluster: ClusterConfig
    output: OutputConfig
    limits: LimitsConfig

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries."""
        return dataclasses.asdict(self)


def load_run_config(overrides: Sequence[str] = ()) -> RunConfig:
    """Compose and check the config of the main job.

    Raises
    ------
    UsageError
        With every mistake: unknown settings, wrong types, values out of range.
    """
    return load_sections("run", RunConfig, overrides)


def not_above_zero(group: str, section: Any) -> list[str]:
    """Describe the values of a section that have to be above 0 and are not."""
    values = dataclasses.asdict(section)
    return [f"{group}.{name}={value}: must be above 0" for name, value in values.items() if value <= 0]


def load_sections(name: str, kind: type[Config], overrides: Sequence[str]) -> Config:
    """Compose ``conf/NAME.yaml``, check every section and build the config of them.

    Parameters
    ----------
    name : str
        Of the file.
    kind : type
        A dataclass whose fields are sections: dataclasses with a method ``problems``.
    overrides : sequence of str
        ``group.key=value``.

    Raises
    ------
    UsageError
        With every mistake: unknown settings, wrong types, values out of range.
    """
    values, problems = compose_config(name, [part for o in overrides for part in cluster_address(o)])
    defaults, _ = compose_config(name)
    sections = {}
    for group, section_kind in typing.get_type_hints(kind).items():
        section, found = typed_section(group, section_kind, values[group], defaults[group])
        problems += found + section.problems()
        sections[group] = section
    refuse(problems)
    return kind(**sections)


def cluster_address(override: str) -> list[str]:
    """``cluster=HOST:PORT`` is short for ``cluster=address cluster.address=HOST:PORT``."""
    key, _, value = override.partition("=")
    if key == "cluster" and ":" in value:
        return ["cluster=address", f"cluster.address='{value}'"]
    return [override]


def typed_section(
    group: str, kind: Any, values: dict[str, Any], defaults: dict[str, Any]
) -> tuple[Any, list[str]]:
    """Build a section; a value of a wrong type becomes a problem, and the default takes its place."""
    problems = []
    hints = typing.get_type_hints(kind)
    for name, hint in hints.items():
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        plain = tuple(typing.get_origin(o) or o for o in options)
        value = values[name]
        if isinstance(value, int) and not isinstance(value, bool) and float in plain:
            values[name] = float(value)
        elif (isinstance(value, bool) and bool not in plain) or not isinstance(value, plain):
            wanted = " or ".join("null" if o is types.NoneType else o.__name__ for o in plain)
            problems.append(f"{group}.{name}={value}: must be {wanted}")
            values[name] = defaults[name]
    return kind(**values), problems
