"""The tables of a folder that `publish` wrote, by their names."""

from __future__ import annotations

from surveyproc.catalog.hats import open_hats
from surveyproc.errors import InputError, did_you_mean
from surveyproc.runs.making import Making
from surveyproc.runs.publish_source import REJECTS
from surveyproc.runs.unfinished import is_unfinished

READABLE = ("hats", "parquet")


def published_tables(uri: str) -> dict[str, str] | None:
    """Say where the tables of a published folder are.

    Returns
    -------
    dict of str to str
        Name of the table to its HATS catalog or its Parquet file, as they were published: ``morphology``
        first. None when no published folder is at ``uri``.

    Raises
    ------
    InputError
        When it was published in a format that is for others to read.
    """
    about = (
        None if uri.endswith((".parquet", ".properties")) or is_unfinished(uri) else Making(uri).finished()
    )
    if about is None or about.get("verb") != "publish":
        return None
    if about["format"] not in READABLE:
        raise InputError(
            f"this is {about['format']}, published for other programs; SQL and searches on the sky read Parquet",
            where=uri,
            fix="ask the run itself, or publish it with --format hats or parquet",
        )
    folder = uri.rstrip("/")
    if about["format"] == "parquet":
        return {name: f"{folder}/{name}.parquet" for name in about["tables"]}
    margins = open_hats(uri).margins
    return {
        name: f"{folder}/{name}.parquet" if name == REJECTS else f"{folder}/{name}"
        for name in about["tables"]
        if name not in margins
    }


def published_table(uri: str, tables: dict[str, str], name: str | None) -> str:
    """Address of one of them; the first unless it is named.

    Raises
    ------
    InputError
        When there is none of that name.
    """
    if name is not None and name not in tables:
        raise InputError(
            f"there is no table {name!r} in what was published.{did_you_mean(name, tables)}",
            where=uri,
            fix=f"tables: {', '.join(tables)}",
        )
    return tables[name or next(iter(tables))]
