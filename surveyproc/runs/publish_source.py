"""What is published: the tables of one or several finished runs, read as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.hats.layout import HEALPIX_29
from surveyproc.catalog.sky import healpix29
from surveyproc.columns import known
from surveyproc.errors import InputError, UsageError, did_you_mean
from surveyproc.runs.duplicates import find_duplicates
from surveyproc.runs.manifest import columns_of
from surveyproc.runs.run import Run, open_run
from surveyproc.storage import Storage

REJECTS = "rejects"
MADE_BY = ("bundle", "weights_sha256", "encoder_sha256")
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class SourceFile:
    """One file of a table of a run."""

    storage: Storage
    path: str
    rows: int
    bytes: int


@dataclass
class SourceTable:
    """A table of all runs.

    Attributes
    ----------
    name : str
    schema : pyarrow.Schema
        As it is stored.
    files : list of SourceFile
        Run by run.
    drops : dict of int to numpy.ndarray
        For the number of a file the positions of rows whose object an earlier run has.
    """

    name: str
    schema: pa.Schema
    files: list[SourceFile]
    drops: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows to publish."""
        return sum(f.rows for f in self.files) - sum(len(rows) for rows in self.drops.values())

    @property
    def has_positions(self) -> bool:
        """Whether its rows have a place on the sky."""
        return {"ra", "dec"} <= set(self.schema.names)

    def read(self, number: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Stream the rows of a file that are published."""
        file, first = self.files[number], 0
        dropped = self.drops.get(number)
        with file.storage.open(file.path) as raw:
            parquet = pq.ParquetFile(raw)
            names = list(columns) if columns is not None else self.schema.names
            for batch in parquet.iter_batches(BATCH_ROWS, columns=names, use_threads=False):
                table = pa.Table.from_batches([batch]).select(names)
                if dropped is not None:
                    here = np.arange(first, first + batch.num_rows)
                    table = table.filter(pa.array(~np.isin(here, dropped)))
                first += batch.num_rows
                yield table

    def read_all(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Stream the rows of all files."""
        for number in range(len(self.files)):
            yield from self.read(number, columns)

    def read_positioned(self, number: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Stream the rows of a file with ``_healpix_29``, which is computed where the table lacks it.

        Raises
        ------
        InputError
            When a row has no usable position.
        """
        if HEALPIX_29 in self.schema.names:
            yield from self.read(number, columns)
            return
        if columns is not None:
            columns = [name for name in columns if name != HEALPIX_29]
            columns += [name for name in ("ra", "dec") if name not in columns]
        for table in self.read(number, columns):
            index = healpix29(*(table[name].to_numpy() for name in ("ra", "dec")))
            bad = int(np.ma.getmaskarray(index).sum())
            if bad:
                raise InputError(
                    f"{bad} rows of the table {self.name!r} have no usable position, so that HATS has no "
                    "place for them",
                    where=self.files[number].storage.path(self.files[number].path),
                    fix="publish that table with --format parquet, fits or votable",
                )
            yield table.append_column(known(HEALPIX_29, pa.int64()), pa.array(index.data))


@dataclass(frozen=True)
class Source:
    """The tables to publish, and what they come from.

    Attributes
    ----------
    runs : list of Run
    tables : list of SourceTable
        ``morphology`` first where there is one: what an astronomer opens.
    duplicates : int
        Objects of later runs that an earlier one has.
    """

    runs: list[Run]
    tables: list[SourceTable]
    duplicates: int

    @property
    def digest(self) -> str:
        """Changes when any of the files is another."""
        shas = [f["sha256"] for run in self.runs for _, e in sorted(_tables(run).items()) for f in e["files"]]
        return hashlib.sha256(json.dumps(shas).encode()).hexdigest()


def open_source(uris: Sequence[str], wanted: Sequence[str] | None = None) -> Source:
    """Open finished runs to be published as one.

    Parameters
    ----------
    uris : sequence of str
        Where an object is in several runs, the first of them counts.
    wanted : sequence of str, optional
        Tables; all unless given.

    Raises
    ------
    InputError
        A run that is unfinished, or runs that do not go together: other columns, ids or bundles.
    UsageError
        A run given twice, or a table that is not there.
    """
    runs = [open_run(uri) for uri in uris]
    _require_together(runs)
    names = _table_names(runs, wanted)
    tables, duplicates = [], 0
    for name in names:
        table = _source_table(runs, name)
        if len(runs) > 1 and name != REJECTS:
            ids = (
                (number, np.arange(len(column), dtype=np.int32), column)
                for number in range(len(table.files))
                for column in [_ids(table, number)]
            )
            table.drops = find_duplicates(ids, table.rows) if table.rows else {}
            duplicates = max(duplicates, sum(len(rows) for rows in table.drops.values()))
        tables.append(table)
    return Source(runs, tables, duplicates)


def _require_together(runs: list[Run]) -> None:
    for number, run in enumerate(runs):
        if run.manifest is None:
            raise InputError(
                "the run is unfinished", where=run.uri, fix="resume it: give the command that began it again"
            )
        if any(run.storage.root == other.storage.root for other in runs[:number]):
            raise UsageError("a run is given twice", where=run.uri, fix="name each run once")
    problems = []
    for run in runs[1:]:
        for name, entry in _tables(run).items():
            first = _tables(runs[0]).get(name)
            if first is None:
                problems.append(f"table {name} is not in {runs[0].uri}")
            elif first["columns"] != entry["columns"]:
                odd = sorted(dict(first["columns"].items() ^ entry["columns"].items()))
                problems.append(f"table {name} has other columns ({', '.join(odd[:4])})")
            elif any(first.get(key) != entry.get(key) for key in MADE_BY):
                problems.append(f"table {name} was made by other weights ({entry.get('bundle')})")
        if problems:
            raise InputError(
                "these runs cannot be published as one:\n    " + "\n    ".join(problems),
                where=f"{run.uri} beside {runs[0].uri}",
                fix="publish them one by one, or only the tables they share: --tables NAME,...",
            )


def _table_names(runs: list[Run], wanted: Sequence[str] | None) -> list[str]:
    known_tables = sorted(_tables(runs[0]), key=lambda name: (name != "morphology", name == REJECTS, name))
    unknown = [name for name in wanted or () if name not in known_tables]
    if unknown:
        raise UsageError(
            f"there is no table {unknown[0]!r}.{did_you_mean(unknown[0], known_tables)}",
            where="--tables",
            fix=f"tables: {', '.join(known_tables)}",
        )
    return [name for name in known_tables if not wanted or name in wanted]


def _source_table(runs: list[Run], name: str) -> SourceTable:
    files = [
        SourceFile(run.storage, f["path"], f["rows"], f["bytes"])
        for run in runs
        for f in _tables(run)[name]["files"]
    ]
    with files[0].storage.open(files[0].path) as raw:
        schema = pq.read_schema(raw).remove_metadata()
    stated = _tables(runs[0])[name]["columns"]
    if columns_of(schema) != stated:
        raise InputError(
            "a table has other columns than the manifest states",
            where=files[0].storage.path(files[0].path),
            fix=f"see what is wrong: surveyproc verify {runs[0].uri}",
        )
    return SourceTable(name, schema, files)


def _ids(table: SourceTable, number: int) -> pa.Array:
    pieces = [piece["object_id"].combine_chunks() for piece in table.read(number, ["object_id"])]
    return pa.concat_arrays(pieces) if pieces else pa.array([], table.schema.field("object_id").type)


def _tables(run: Run) -> dict[str, Any]:
    return run.manifest["tables"] if run.manifest else {}
