"""The typed config of ``surveyproc repack``."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass, fields

from surveyproc.config.compose import compose_config, refuse
from surveyproc.config.run import ClusterConfig, LimitsConfig, cluster_address, typed_section


@dataclass(frozen=True)
class UnitsConfig:
    """``repack.*``: how large the pieces are that a repack is done in."""

    unit_mb: float
    partition_mb: float

    def problems(self) -> list[str]:
        """Describe values out of range."""
        names = [f.name for f in fields(self) if getattr(self, f.name) <= 0]
        return [f"repack.{name}={getattr(self, name)}: must be above 0" for name in names]


@dataclass(frozen=True)
class RepackConfig:
    """The config of ``surveyproc repack``."""

    repack: UnitsConfig
    cluster: ClusterConfig
    limits: LimitsConfig


def load_repack_config(overrides: Sequence[str] = ()) -> RepackConfig:
    """Compose and check the config of a repack.

    Raises
    ------
    UsageError
        With every mistake: unknown settings, wrong types, values out of range.
    """
    values, problems = compose_config("repack", [part for o in overrides for part in cluster_address(o)])
    defaults, _ = compose_config("repack")
    groups = {}
    for name, kind in typing.get_type_hints(RepackConfig).items():
        section, found = typed_section(name, kind, values[name], defaults[name])
        problems += found + section.problems()
        groups[name] = section
    refuse(problems)
    return RepackConfig(**groups)
