"""What the runs that make a catalog share: ingest of tiles, and repack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from surveyproc.config.run import ClusterConfig, LimitsConfig
from surveyproc.distributed.pool import run_units
from surveyproc.distributed.units import Outcome, Task
from surveyproc.errors import PartialError, SurveyprocError
from surveyproc.progress import Progress
from surveyproc.runs.lease import DriverLease
from surveyproc.runs.ledger import Commit
from surveyproc.runs.making import Making
from surveyproc.stores import configured

RAY_WORTH_SECONDS = 60.0


class JobConfig(Protocol):
    """The sections that every such run has."""

    @property
    def cluster(self) -> ClusterConfig:
        """Where the units are worked on."""
        ...

    @property
    def limits(self) -> LimitsConfig:
        """When to stop."""
        ...


@dataclass(frozen=True, kw_only=True)
class CatalogJob(ABC):
    """A run that makes a catalog, and whose folder is claimed.

    Attributes
    ----------
    rows_are, mend : str
        What rows are called when too many are rejects, and what to do about it.
    """

    rows_are: ClassVar[str]
    mend: ClassVar[str]
    output: str
    config: JobConfig
    making: Making
    lease: DriverLease | None
    verbose: bool

    @abstractmethod
    def work(self, progress: Progress) -> dict[str, Any]:
        """Do what is left of it; gives what ``catalog.json`` says."""

    def conclude(self, progress: Progress) -> dict[str, Any]:
        """Do what is left, unless another driver has finished it meanwhile."""
        try:
            return self.work(progress)
        except (SurveyprocError, FileNotFoundError):
            about = self.making.finished_by_another()
            if about is None:
                raise
            return about

    def shared(self) -> dict[str, Any]:
        """What the tasks of every such run are made of."""
        return {
            "output": self.output,
            "driver_commits": self.lease is not None,
            "storage": configured(),
        }

    def kind(self, seconds: float) -> str:
        """``none``, ``local`` or ``address``: where work of so many seconds will be done."""
        kind = self.config.cluster.kind
        if kind != "auto":
            return kind
        return "local" if seconds > RAY_WORTH_SECONDS else "none"

    def settled(self, task: Task, units: Sequence[Any], actors: int, kind: str) -> Iterator[Outcome]:
        """Do units; put the workers' records in place, where workers do not commit themselves."""
        if not len(units):
            return
        for outcome in run_units(task, units, actors, self.config.cluster, kind, self.verbose):
            if outcome.record and self.lease:
                self.lease.require()
                self.making.ledger.settle(Commit.from_bytes(outcome.record))
            yield outcome

    def advance(
        self,
        task: Task,
        done: Collection[str],
        left: Sequence[Any],
        actors: int,
        kind: str,
        progress: Progress,
    ) -> None:
        """Do the units that are left of a plan of which others are ``done``, and tell of them.

        Raises
        ------
        PartialError
            As soon as the share of rejects is sure to pass the limit.
        """
        commits = self.making.ledger.commits_of(sorted(done))
        progress.rejects = sum(commit.rejects for commit in commits if commit is not None)
        self._check_rejects(progress, "")
        for outcome in self.settled(task, left, actors, kind):
            progress.advance(outcome.rows + outcome.rejects, outcome.rejects)
            self._check_rejects(progress, outcome.unit)

    def _check_rejects(self, progress: Progress, unit: str) -> None:
        limit = self.config.limits.max_reject_fraction
        if progress.rejects > limit * progress.rows:
            commit = self.making.ledger.commit_of(unit) if unit else None
            reasons = commit.facts["reasons"] if commit else {}
            detail = next((f"; the last: {reason}, {found[1]}" for reason, found in reasons.items()), "")
            raise PartialError(
                f"{progress.rejects:,} of the {progress.rows:,} {self.rows_are} are rejects, more than "
                f"limits.max_reject_fraction={limit:g}{detail}",
                where=self.making.catalog.uri,
                fix=f"{self.mend} (and give another --output), or raise that limit to go on; "
                "what was committed is kept",
            )
