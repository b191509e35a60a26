"""The typed config of ``surveyproc ingest --tiles``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from surveyproc.config.run import ClusterConfig, LimitsConfig, load_sections


@dataclass(frozen=True)
class PiecesConfig:
    """``ingest.*``: how large the pieces are that an ingest is done in."""

    partition_mb: float
    unit_mb: float
    chunk_rows: int

    def problems(self) -> list[str]:
        """Describe values out of range."""
        names = [f.name for f in fields(self) if getattr(self, f.name) <= 0]
        return [f"ingest.{name}={getattr(self, name)}: must be above 0" for name in names]


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
