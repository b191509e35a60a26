"""Attempts and commits: one unit of work counts exactly once, whoever does it and however often."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.errors import InputError
from surveyproc.identifiers import id_sum
from surveyproc.runs.accounts import Count, account_checks, require_balance
from surveyproc.runs.lease import DRIVERS
from surveyproc.runs.version import code_version
from surveyproc.steps import step
from surveyproc.storage import PROBE, TEMPORARY, Storage
from surveyproc.threads import map_ahead

ATTEMPTS, COMMITS = "_attempts", "_commits"
GROUP_BYTES = 16 * 2**20
SORTED_GROUPS = 8
STORE_THREADS = 32


@dataclass(frozen=True)
class Part:
    """A file an attempt wrote: its name in the run folder, and what must be found in it."""

    path: str
    rows: int
    bytes: int
    sha256: str
    id_sum: int


def part_path(unit: str, attempt: str, table: str) -> str:
    """Name in the run folder of the part that an attempt at a unit writes for a table."""
    return f"{ATTEMPTS}/{unit}-{attempt}/{table}.parquet"


@dataclass(frozen=True)
class Commit:
    """The record that makes the parts of one attempt count."""

    unit: str
    attempt: str
    rows: int
    rejects: int
    parts: dict[str, Part]
    seconds: float
    code: str
    host: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def targets(self) -> dict[str, Part]:
        """Names that its parts have in the finished run; none for a shard, whose parts are merged."""
        return {target: self.parts[name] for name, target in self.facts.get("targets", [])}

    @property
    def folder(self) -> str:
        """Folder of the attempt that counts."""
        return f"{ATTEMPTS}/{self.unit}-{self.attempt}"

    @property
    def came_in(self) -> Count:
        """Rows and ids that the shard had."""
        return Count(self.rows + self.rejects, int(self.facts["id_sum"]))

    def to_bytes(self) -> bytes:
        """Serialise as JSON."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Commit:
        """Parse what `to_bytes` wrote."""
        value = json.loads(data)
        value["parts"] = {name: Part(**part) for name, part in value["parts"].items()}
        return cls(**value)


class Ledger:
    """The attempts and commits of one run folder."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def committed(self, prefix: str) -> set[str]:
        """Names of the committed units that start with ``prefix``."""
        names = self.storage.names(COMMITS)
        return {n.removesuffix(".json") for n in names if n.startswith(prefix) and n.endswith(".json")}

    def commit_of(self, unit: str) -> Commit | None:
        """Read the commit of a unit, or None when it is not committed.

        Raises
        ------
        InputError
            When the file is not what was written.
        """
        path = f"{COMMITS}/{unit}.json"
        try:
            return Commit.from_bytes(self.storage.read(path))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"a commit is damaged ({error})",
                where=self.storage.path(path),
                fix="put back what was there; while the run is unfinished and nothing works on it, you may "
                "also delete the file and give the command again: that unit is done anew",
            ) from error

    def commits_of(self, units: Iterable[str]) -> Iterator[Commit | None]:
        """Read the commits of many units, in their order, `STORE_THREADS` at once and few ahead.

        A store answers one read in some 30 ms.
        """
        return map_ahead(self.commit_of, units, STORE_THREADS)

    def tidy(self) -> None:
        """Delete what a finished run needs no more: attempts at committed units, and temporary files.

        Attempts at units without a commit stay, whatever their age.
        """
        done = self.committed("")
        names = (n for n in self.storage.names(ATTEMPTS) if unit_of(n) in done)
        for _ in map_ahead(self.storage.delete_folder, (f"{ATTEMPTS}/{n}" for n in names), STORE_THREADS):
            pass
        self.storage.delete_empty_folders(ATTEMPTS)
        self.storage.delete_temporaries()

    def attempts_at(self, unit: str) -> list[str]:
        """Folders of the attempts at a unit that are under way, or vanished with their process."""
        return [f"{ATTEMPTS}/{name}" for name in self.storage.names(ATTEMPTS, f"{unit}-")]

    def marker(self, folder: str) -> dict[str, Any]:
        """Read what an attempt said of itself; empty when it vanished before it could, or gave up."""
        try:
            return json.loads(self.storage.read(f"{folder}/attempt.json"))
        except FileNotFoundError:
            return {}

    def begin(self, unit: str, command: str = "") -> Attempt:
        """Start an attempt at a unit: a random id, and a marker that tells of it and of its command."""
        attempt = Attempt(self, unit, secrets.token_hex(8))
        marker = {"unit": unit, "host": socket.gethostname(), "pid": os.getpid(), "started": time.time()}
        marker["command"] = command
        self.storage.replace(f"{attempt.folder}/attempt.json", json.dumps(marker).encode())
        step("attempt.begun", unit)
        return attempt

    def settle(self, mine: Commit) -> Commit:
        """Put a record in place unless another attempt's is there; the loser's files are removed.

        Returns
        -------
        Commit
            The one that counts.
        """
        step("commit.ready", mine.unit)
        while True:
            self.storage.create(f"{COMMITS}/{mine.unit}.json", mine.to_bytes())
            winner = self.commit_of(mine.unit)
            if winner is not None:
                break
        step("commit.done", mine.unit)
        if winner.attempt != mine.attempt:
            self.storage.delete_folder(attempt_folder(mine.unit, mine.attempt))
        return winner


def attempt_folder(unit: str, attempt: str) -> str:
    """Folder of an attempt's files."""
    return f"{ATTEMPTS}/{unit}-{attempt}"


def unit_of(attempt_folder: str) -> str:
    """Name of the unit that a folder in ``_attempts/`` is an attempt at."""
    return attempt_folder.rpartition("-")[0]


def is_temporary(name: str) -> bool:
    """Whether a file is the hidden one that a writer gives its name last, living or killed."""
    return TEMPORARY.fullmatch(name.rsplit("/", 1)[-1]) is not None


def is_passing(name: str) -> bool:
    """Whether a file is there only while somebody works: of an attempt, a driver, a probe, or temporary."""
    return name.split("/", 1)[0] in (ATTEMPTS, DRIVERS, PROBE) or is_temporary(name)


class Attempt:
    """One try at a unit. Its files count only once `commit` has won."""

    def __init__(self, ledger: Ledger, unit: str, identifier: str) -> None:
        self.ledger, self.unit, self.id = ledger, unit, identifier
        self.folder = attempt_folder(unit, identifier)
        self._storage = ledger.storage
        self._parts: dict[str, Part] = {}
        self._started = time.monotonic()
        self._offered = False

    def write_table(self, name: str, table: pa.Table, group_rows: int, **parquet: Any) -> Part:
        """Write a table as the part ``name`` of this attempt."""
        with self.part_writer(name, table.schema, group_rows, **parquet) as writer:
            writer.write(table)
        return self._parts[name]

    @contextmanager
    def part_writer(
        self,
        name: str,
        schema: pa.Schema,
        group_rows: int,
        sort_by: Sequence[str] = (),
        **parquet: Any,
    ) -> Iterator[PartWriter]:
        """Open a streaming writer for the part ``name``, in row groups of at most ``group_rows``."""
        path = part_path(self.unit, self.id, name)
        with self._storage.writing(path) as file:
            parquet_writer = pq.ParquetWriter(pa.PythonFile(file, "w"), schema, **parquet)
            writer = PartWriter(parquet_writer, group_rows, sort_by)
            try:
                yield writer
                writer.close()
            except BaseException:
                writer.discard()
                raise
        self.add_part(name, Part(path, writer.rows, file.nbytes, file.sha256, writer.id_sum))

    def write_bytes(self, name: str, suffix: str, data: bytes | memoryview, rows: int, ids: int = 0) -> Part:
        """Write a file of another format as the part ``name``; ``ids`` is the id sum of its rows."""
        path = f"{self.folder}/{name}.{suffix}"
        with self._storage.writing(path) as file:
            file.write(data)
        part = Part(path, rows, file.nbytes, file.sha256, ids)
        self.add_part(name, part)
        return part

    def add_part(self, name: str, part: Part) -> None:
        """Count a file written into the attempt's folder as one of its parts."""
        self._parts[name] = part
        step("attempt.part", f"{self.unit}/{name}")

    def check(self, rows_in: int, ids_in: int, per_object: list[str]) -> None:
        """Check that every row and id that came in is in each per-object table or in the rejects.

        The rows are read back from the footers.

        Raises
        ------
        SurveyprocError
            When the numbers do not add up; nothing is committed then.
        FileNotFoundError
            When a part has vanished although nobody else has committed the unit.
        """
        tables = {}
        for name in per_object:
            part = self._parts[name]
            try:
                with self._storage.open(part.path) as file:
                    tables[name] = Count(pq.read_metadata(file).num_rows, part.id_sum)
            except FileNotFoundError:
                if not self._has_lost():
                    raise
                return  # `commit` reads back who won
        rejects = self._parts["rejects"]
        counted = Count(rejects.rows, rejects.id_sum)
        require_balance(account_checks(tables, counted, Count(rows_in, ids_in)), self.folder)
        step("attempt.checked", self.unit)

    def record(self, rows: int, rejects: int, facts: dict[str, Any] | None = None) -> Commit:
        """Make the record that will count once `Ledger.settle` has put it in place; from now on it may."""
        self._offered = True
        seconds = time.monotonic() - self._started
        host = socket.gethostname()
        return Commit(
            self.unit, self.id, rows, rejects, self._parts, seconds, code_version(), host, facts or {}
        )

    def _has_lost(self) -> bool:
        """Whether another attempt is committed; then anybody may have deleted the files of this one."""
        winner = self.ledger.commit_of(self.unit)
        return winner is not None and winner.attempt != self.id

    def commit(self, rows: int, rejects: int, facts: dict[str, Any] | None = None) -> Commit:
        """Commit create-only; whoever loses reads the winner's record back and removes its own files.

        Returns
        -------
        Commit
            The one that counts, which may be another attempt's.
        """
        return self.ledger.settle(self.record(rows, rejects, facts))

    def abandon(self) -> None:
        """Delete the files of this attempt, unless its commit was offered and may stand."""
        if not self._offered:
            self._storage.delete_folder(self.folder)


class PartWriter:
    """Gathers small tables into row groups of at most ``group_rows`` rows; sums rows and ids.

    With ``sort_by``, several row groups are gathered and sorted together, so that each covers a narrow
    range. Never more than 16 MiB are held.
    """

    def __init__(self, writer: pq.ParquetWriter, group_rows: int, sort_by: Sequence[str] = ()) -> None:
        self.rows, self.id_sum = 0, 0
        self._writer, self._group_rows, self._sort_by = writer, group_rows, sort_by
        self._gather_rows = group_rows * (SORTED_GROUPS if sort_by else 1)
        self._gathered: list[pa.Table] = []
        self._held_rows = self._held_bytes = 0

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        self._gathered.append(table)
        self.rows += table.num_rows
        self.id_sum = (self.id_sum + id_sum(table["object_id"].drop_null())) % 2**64
        self._held_rows += table.num_rows
        self._held_bytes += table.nbytes
        if self._held_rows >= self._gather_rows or self._held_bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is gathered, and the footer."""
        self._flush()
        self._writer.close()

    def discard(self) -> None:
        """Release the writer; what it wrote does not count."""
        with suppress(Exception):
            self._writer.close()

    def _flush(self) -> None:
        if self._gathered:
            table = pa.concat_tables(self._gathered)
            if self._sort_by:
                table = table.sort_by([(name, "ascending") for name in self._sort_by])
            self._writer.write_table(table, row_group_size=self._group_rows)
            self._gathered, self._held_rows, self._held_bytes = [], 0, 0
