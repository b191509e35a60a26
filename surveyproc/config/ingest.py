"""The typed config of ``surveyproc ingest --tiles``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from surveyproc.config.run import ClusterConfig, LimitsConfig, load_sections, not_above_zero


@dataclass(frozen=True)
class PiecesConfig:
    """``ingest.*``: how large the pieces are that an ingest is done in."""

    partition_mb: float
    unit_mb: float
    chunk_rows: int

    def problems(self) -> list[str]:
        """Describe values out of range."""
        return not_above_zero("ingest", self)


@dataclass(frozen=True)
class IngestConfig:
    """The config of ``surveyproc ingest --tiles``."""

    ingest: PiecesConfig
    cluster: ClusterConfig
    limits: LimitsConfig


def load_ingest_config(overrides: Sequence[str] = ()) -> IngestConfig:
    """Compose and check the config of an ingest.

    Raises
    ------
    UsageError
        With every mistake: unknown settings, wrong types, values out of range.
    """
    return load_sections("ingest", IngestConfig, overrides)
