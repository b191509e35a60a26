"""Attempts and commits: one unit of work counts exactly once, whoever does it and however often."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.errors import SurveyprocError
from surveyproc.identifiers import id_sum
from surveyproc.runs.version import code_version
from surveyproc.steps import step
from surveyproc.storage import Storage

ATTEMPTS, COMMITS = "_attempts", "_commits"
GROUP_BYTES = 16 * 2**20
SORTED_GROUPS = 8


@dataclass(frozen=True)
class Part:
    """A file an attempt wrote: its name in the run folder, and what must be found in it."""

    path: str
    rows: int
    bytes: int
    sha256: str
    id_sum: int


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
        """Read the commit of a unit, or None when it is not committed."""
        try:
            return Commit.from_bytes(self.storage.read(f"{COMMITS}/{unit}.json"))
        except FileNotFoundError:
            return None

    def tidy(self) -> None:
        """Delete what a finished run needs no more: attempts at committed units, and temporary files.

        Attempts at units without a commit stay, whatever their age.
        """
        done = self.committed("")
        for name in self.storage.names(ATTEMPTS):
            if name.rpartition("-")[0] in done:
                self.storage.delete_folder(f"{ATTEMPTS}/{name}")
        self.storage.delete_empty_folders(ATTEMPTS)
        self.storage.delete_temporaries()

    def begin(self, unit: str) -> Attempt:
        """Start an attempt at a unit: a random id, and a marker that tells of it."""
        attempt = Attempt(self, unit, secrets.token_hex(8))
        marker = {"unit": unit, "host": socket.gethostname(), "pid": os.getpid(), "started": time.time()}
        self.storage.replace(f"{attempt.folder}/attempt.json", json.dumps(marker).encode())
        step("attempt.begun", unit)
        return attempt


class Attempt:
    """One try at a unit. Its files count only once `commit` has won."""

    def __init__(self, ledger: Ledger, unit: str, identifier: str) -> None:
        self.ledger, self.unit, self.id = ledger, unit, identifier
        self.folder = f"{ATTEMPTS}/{unit}-{identifier}"
        self._storage = ledger.storage
        self._parts: dict[str, Part] = {}
        self._started = time.monotonic()

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
        path = f"{self.folder}/{name}.parquet"
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
        """
        rejects = self._parts["rejects"]
        for name in per_object:
            part = self._parts[name]
            with self._storage.open(part.path) as file:
                rows = pq.read_metadata(file).num_rows
            if rows + rejects.rows != rows_in or (part.id_sum + rejects.id_sum) % 2**64 != ids_in:
                raise SurveyprocError(
                    f"{rows} rows + {rejects.rows} rejects of {rows_in} rows in the part {name!r}",
                    where=part.path,
                    fix="this is a bug: please report it with the run folder",
                )
        step("attempt.checked", self.unit)

    def commit(self, rows: int, rejects: int, facts: dict[str, Any] | None = None) -> Commit:
        """Commit create-only; whoever loses reads the winner's record back and removes its own files.

        Returns
        -------
        Commit
            The one that counts, which may be another attempt's.
        """
        seconds = time.monotonic() - self._started
        host = socket.gethostname()
        mine = Commit(
            self.unit, self.id, rows, rejects, self._parts, seconds, code_version(), host, facts or {}
        )
        step("commit.ready", self.unit)
        while True:
            self._storage.create(f"{COMMITS}/{self.unit}.json", mine.to_bytes())
            winner = self.ledger.commit_of(self.unit)
            if winner is not None:
                break
        step("commit.done", self.unit)
        if winner.attempt != self.id:
            self.abandon()
        return winner

    def abandon(self) -> None:
        """Delete the files of this attempt."""
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
