"""SQL over runs and catalogs with DuckDB, in process and without the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from surveyproc.catalog import catalog_files
from surveyproc.catalog.hats import is_hats, open_hats
from surveyproc.catalog.hats.layout import STANDARD_LEAF
from surveyproc.catalog.sky_reading import SkyTable
from surveyproc.catalog.sky_tables import catalog_table
from surveyproc.errors import InputError, UsageError, did_you_mean
from surveyproc.identifiers import ROW
from surveyproc.runs.published import published_table, published_tables
from surveyproc.runs.run import is_run, open_run
from surveyproc.storage import Storage


def connect(uris: Sequence[str], leaf: str = STANDARD_LEAF) -> duckdb.DuckDBPyConnection:
    """Open a connection with the tables of runs and catalogs as views.

    Parameters
    ----------
    uris : sequence of str
        Runs and published folders, whose tables of one name are read as one, and at most catalogs of one kind,
        which become the view ``catalog``; of a published folder that is its first table.
    leaf : str
        Path of a leaf of HATS catalogs, where it is not that of the standard; see
        `surveyproc.catalog.hats.open_hats`.

    Returns
    -------
    duckdb.DuckDBPyConnection
        It never installs or loads an extension from the network.

    Raises
    ------
    InputError
        When there is nothing to read.
    """
    tables: dict[str, list[str]] = {}
    connection = duckdb.connect(
        config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )
    for uri in uris:
        if is_run(uri):
            run = open_run(uri)
            for name in run.tables:
                files = run.table_files(name)
                if not run.storage.is_local:
                    files = [run.storage.fs.unstrip_protocol(file) for file in files]
                tables.setdefault(name, []).extend(files)
        else:
            published = published_tables(uri) or {}
            primary = published_table(uri, published, None) if published else uri
            for name, place in {**published, "catalog": primary}.items():
                tables.setdefault(name, []).extend(_files(place, leaf))
        storage = Storage(uri)
        if not storage.is_local:
            connection.register_filesystem(storage.fs)
    for name, files in tables.items():
        if files:
            connection.execute(f"CREATE VIEW {_quoted(name)} AS {_select(connection, files)}")
    return connection


def _files(uri: str, leaf: str) -> list[str]:
    return open_hats(uri, leaf).uris() if is_hats(uri) else catalog_files(uri)


def sky_table(uri: str, table: str | None = None, leaf: str = STANDARD_LEAF) -> SkyTable:
    """Open a table of a run, or a catalog, for searches on the sky.

    Parameters
    ----------
    uri : str
        A run, a published folder, or a catalog as `surveyproc.catalog.sky_tables.catalog_table` takes it.
    table : str, optional
        Table of a run or a published folder; ``morphology`` unless given.
    leaf : str
        As for `connect`.

    Raises
    ------
    UsageError
        When a table is named and it is a catalog.
    InputError
        When there is nothing to read.
    """
    if is_run(uri):
        return open_run(uri).sky_table(table)
    published = published_tables(uri)
    if published:
        return catalog_table(published_table(uri, published, table), leaf)
    if table is not None:
        raise UsageError(
            f"--table {table}: only runs and what was published of them have tables",
            where=uri,
            fix="leave --table out",
        )
    return catalog_table(uri, leaf)


def query(
    uris: Sequence[str], sql: str, leaf: str = STANDARD_LEAF
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one statement over the tables of runs and catalogs.

    Returns
    -------
    names : list of str
        Columns of the result.
    rows : list of tuple

    Raises
    ------
    UsageError
        When the statement is wrong; the tables there are, are named.
    """
    with _statement(connect(uris, leaf), sql) as relation:
        return list(relation.columns), relation.fetchall()


def query_table(uris: Sequence[str], sql: str) -> pa.Table:
    """Run one statement and return its result as an Arrow table."""
    with _statement(connect(uris), sql) as relation:
        return relation.to_arrow_table()


def export(uris: Sequence[str], sql: str, path: str, leaf: str = STANDARD_LEAF) -> None:
    """Write the result of one statement to a Parquet file, streaming."""
    with _statement(connect(uris, leaf), sql) as relation:
        relation.write_parquet(path, compression="zstd")


@contextmanager
def _statement(connection: duckdb.DuckDBPyConnection, sql: str) -> Iterator[duckdb.DuckDBPyRelation]:
    try:
        relation = connection.sql(sql)
        if relation is None:
            raise UsageError("the statement returns no rows", where=sql, fix="give one SELECT")
        yield relation
    except duckdb.Error as error:
        found = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        fix = _advice(str(error), [row[0] for row in found])
        raise UsageError(str(error).strip(), where="the SQL statement", fix=fix) from error


def _select(connection: duckdb.DuckDBPyConnection, files: list[str]) -> str:
    source = f"read_parquet([{', '.join(_literal(f) for f in files)}], union_by_name = true, hive_partitioning = false)"
    try:
        names = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    except duckdb.Error as error:
        raise InputError(
            f"the table cannot be read: {str(error).splitlines()[0]}",
            where=files[0],
            fix="it is missing or damaged: `surveyproc verify` tells more; where the leaves of a HATS catalog lie "
            "elsewhere than the standard says, say so: --leaf PATTERN",
        ) from error
    hidden = f" EXCLUDE ({ROW})" if ROW in names else ""
    return f"SELECT *{hidden} FROM {source}"


def _advice(message: str, views: list[str]) -> str:
    if "does not exist" in message and "Table" in message:
        wanted = message.split("Table with name ")[-1].split(" ")[0]
        return f"tables: {', '.join(sorted(views))}.{did_you_mean(wanted, views)}"
    if message.startswith("IO Error"):
        return "check the path; --output is a file in a folder that exists"
    return (
        "check the statement; column names with a hyphen need double quotes: "
        '"smooth-or-featured_smooth_fraction"'
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
