"""The typed config of ``surveyproc repack``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from surveyproc.config.run import ClusterConfig, LimitsConfig, load_sections, not_above_zero


@dataclass(frozen=True)
class UnitsConfig:
    """``repack.*``: how large the pieces are that a repack is done in."""

    unit_mb: float
    partition_mb: float

    def problems(self) -> list[str]:
        """Describe values out of range."""
        return not_above_zero("repack", self)


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
    return load_sections("repack", RepackConfig, overrides)
