"""Open a run folder and read what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from surveyproc.catalog.sky_reading import Leaf, SkyTable, cone_search
from surveyproc.catalog.sky_regions import Cone
from surveyproc.errors import InputError, did_you_mean
from surveyproc.runs.ledger import Commit, Ledger
from surveyproc.runs.manifest import latest
from surveyproc.runs.plan import PLAN, load_plan
from surveyproc.runs.record import load_record
from surveyproc.storage import Storage


class Run:
    """A run folder, finished or not.

    Attributes
    ----------
    record : dict
        run.json.
    manifest : dict or None
        The current generation; None while the run is unfinished.
    """

    def __init__(self, uri: str) -> None:
        self.storage = Storage(uri)
        self.record = load_record(self.storage)
        self.manifest = latest(self.storage)

    @property
    def uri(self) -> str:
        """Where the run lies, as it was given."""
        return self.storage.uri

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.uri.rsplit("/", 1)[-1]

    @property
    def tables(self) -> list[str]:
        """Names of the tables."""
        if self.manifest:
            return list(self.manifest["tables"])
        commits = self.commits()
        return list(commits[0].parts) if commits else []

    def commits(self) -> list[Commit]:
        """Commits of the shards so far, in plan order."""
        ledger = Ledger(self.storage)
        found = ledger.commits_of(sorted(ledger.committed("shard-")))
        return [commit for commit in found if commit is not None]

    def table_files(self, name: str) -> list[str]:
        """Full paths of the files of a table; of a running job, its committed parts.

        Raises
        ------
        InputError
            When the run has no such table.
        """
        if name not in self.tables:
            raise InputError(
                f"this run has no table {name!r}.{did_you_mean(name, self.tables)}",
                where=self.uri,
                fix=f"tables: {', '.join(self.tables) or 'none yet'}",
            )
        if self.manifest:
            names = [f["path"] for f in self.manifest["tables"][name]["files"]]
        else:
            names = [commit.parts[name].path for commit in self.commits()]
        return [self.storage.path(n) for n in names]

    def sky_table(self, name: str | None = None) -> SkyTable:
        """A table for searches on the sky.

        Parameters
        ----------
        name : str, optional
            ``morphology`` where there is one, or else the first table, unless it is given.

        Raises
        ------
        InputError
            When the run has no such table, or no table yet.
        """
        if not self.tables:
            raise InputError("this run has no tables yet", where=self.uri, fix="finish it: surveyproc run")
        name = name or ("morphology" if "morphology" in self.tables else self.tables[0])
        entries = self.manifest["tables"].get(name, {}).get("files", []) if self.manifest else []
        pixels = [file.get("pixel") for file in entries] or [None] * len(self.commits())
        leaves = [Leaf(p, *(pixel or ())) for p, pixel in zip(self.table_files(name), pixels)]
        return SkyTable(f"{self.uri}, table {name}", self.storage.fs, leaves)

    def cone(
        self,
        ra: float,
        dec: float,
        radius_arcsec: float,
        table: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Read the rows of a table within a distance of a position, nearest first.

        Parameters
        ----------
        ra, dec : float
            Degrees, ICRS.
        radius_arcsec : float
            Distance in arcseconds.
        table : str, optional
            ``morphology`` unless given.
        columns : sequence of str, optional
            All that are neither lists nor bytes unless given; ``["all"]`` for all.

        Returns
        -------
        pyarrow.Table
            With ``distance_arcsec`` as the first column.
        """
        return cone_search(self.sky_table(table), Cone(ra, dec, radius_arcsec), columns)

    def dataset(self, name: str) -> ds.Dataset:
        """A table as a pyarrow dataset, for streaming."""
        return ds.dataset(self.table_files(name), filesystem=self.storage.fs, format="parquet")

    def table(self, name: str, columns: list[str] | None = None, filter: Any = None) -> pa.Table:
        """Read a table, or some of its columns and rows, into memory."""
        return self.dataset(name).to_table(columns=columns, filter=filter)

    def status(self) -> dict[str, Any]:
        """Count what is planned, committed and rejected.

        Returns
        -------
        dict
            ``state`` (``planned``, ``running``, ``finished``), ``rows_in``, ``rows``, ``rejects``,
            ``shards``, ``shards_committed``, ``tables`` (name to rows), ``created``, ``code``.
        """
        plan = load_plan(self.storage) if PLAN in self.storage.names() else []
        if self.manifest:
            state, rows, rejects = "finished", self.manifest["rows"], self.manifest["rejects"]
            committed = len(plan)
            tables = {name: entry["rows"] for name, entry in self.manifest["tables"].items()}
        else:
            commits = self.commits()
            state, committed = "running" if commits else "planned", len(commits)
            rows, rejects = sum(c.rows for c in commits), sum(c.rejects for c in commits)
            tables = {n: sum(c.parts[n].rows for c in commits) for n in (commits[0].parts if commits else ())}
        return {
            "run": self.uri,
            "state": state,
            "rows_in": sum(s.rows for s in plan),
            "rows": rows,
            "rejects": rejects,
            "shards": len(plan),
            "shards_committed": committed,
            "tables": tables,
            "created": self.record["created"],
            "code": self.record["code"],
        }

    def __repr__(self) -> str:
        s = self.status()
        return (
            f"Run({self.uri!r}: {s['state']}, {s['rows']:,} rows + {s['rejects']:,} rejects of "
            f"{s['rows_in']:,}, tables {', '.join(s['tables']) or 'none'})"
        )


def open_run(uri: str) -> Run:
    """Open a run folder.

    Raises
    ------
    InputError
        When the folder is no run.
    """
    return Run(uri)


def is_run(uri: str) -> bool:
    """Whether there is a run at ``uri``."""
    return Storage(uri).size("run.json") is not None
