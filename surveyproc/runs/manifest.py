"""Manifests: create-only generations that say what a finished run holds.

Generation 1 follows from the commits alone, so that finalise makes it, `verify` compares it and `repair`
makes it again with the same functions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.hats import metadata_files
from surveyproc.errors import InputError, PartialError
from surveyproc.runs.accounts import NOTHING, Check, Count, account_checks, require_balance, total
from surveyproc.runs.ledger import Commit
from surveyproc.steps import step
from surveyproc.storage import Storage

MANIFESTS = "_manifests"


def generations(storage: Storage) -> list[str]:
    """Names of the manifests, oldest first."""
    return [n for n in storage.names(MANIFESTS) if n.endswith(".json") and not n.startswith(".")]


def latest(storage: Storage) -> dict[str, Any] | None:
    """Read the manifest of the highest generation, or None while the run is unfinished.

    Raises
    ------
    InputError
        When the file is not what was written.
    """
    names = generations(storage)
    return read_manifest(storage, names[-1]) if names else None


def read_manifest(storage: Storage, name: str) -> dict[str, Any]:
    """Read one generation."""
    path = f"{MANIFESTS}/{name}"
    try:
        return json.loads(storage.read(path))
    except ValueError as error:
        raise InputError(
            f"the manifest is damaged ({error})",
            where=storage.path(path),
            fix=f"delete that file and rebuild it from the commits: surveyproc repair {storage.uri}",
        ) from error


def assemble(
    record: dict[str, Any], came_in: Count, merged: Iterable[Commit], indexed: Iterable[Commit]
) -> dict[str, Any]:
    """Say from commits what the finished run holds.

    Parameters
    ----------
    record : dict
        run.json.
    came_in : Count
        Of all shards.
    merged, indexed : iterable of Commit
        Of the units that wrote the files of tables and of the index, in any order.

    Returns
    -------
    dict
        ``rows_in``, ``id_sum``, ``rows``, ``rejects``, ``tables`` (for each its layout, rows, bytes, files
        and the bundle it came from), ``index`` (None when there is none).
    """
    files: dict[str, list[dict[str, Any]]] = {}
    for commit in merged:
        for name, target in commit.facts["targets"]:
            file = _file(commit, name, target) | {"pixel": commit.facts["pixel"]}
            files.setdefault(name, []).append(file)
    tables = {
        name: {
            "layout": "hats" if any(f["pixel"] for f in files[name]) else "flat",
            "rows": sum(f["rows"] for f in files[name]),
            "bytes": sum(f["bytes"] for f in files[name]),
            "files": sorted(files[name], key=_place),
            **record["provenance"].get(name, {}),
        }
        for name in sorted(files)
    }
    rejects = tables["rejects"]["rows"] if "rejects" in tables else 0
    return {
        "rows_in": came_in.rows,
        "id_sum": str(came_in.id_sum),
        "rows": came_in.rows - rejects,
        "rejects": rejects,
        "tables": tables,
        "index": _index_entry(sorted(indexed, key=lambda c: (len(c.unit), c.unit)), tables),
    }


def wants_index(record: dict[str, Any], tables: dict[str, Any]) -> bool:
    """Whether the run is to have an index: it was asked for and there is something to put in."""
    return record["config"]["output"]["index"] and bool(tables.get("embeddings", {}).get("rows"))


def book_checks(assembled: dict[str, Any], record: dict[str, Any], planned_rows: int) -> Iterator[Check]:
    """Check what `assemble` returned: no table is missing, the accounts of each balance, the index is whole.

    Parameters
    ----------
    assembled, record : dict
    planned_rows : int
        Rows of the plan.
    """
    counts = {name: stated_count(entry["files"]) for name, entry in assembled["tables"].items()}
    missing = sorted({*record["provenance"], "rejects"} - counts.keys())
    yield Check("tables", not missing, f"no files of {', '.join(missing)}" if missing else "all are there")
    rejects = counts.pop("rejects", NOTHING)
    yield from account_checks(counts, rejects, Count(planned_rows, int(assembled["id_sum"])))
    index = assembled["index"]
    if wants_index(record, assembled["tables"]):
        table = counts[index["table"] if index else "embeddings"]
        found = stated_count(index["files"][1::2]) if index else NOTHING
        yield Check("index: accounts", found == table, f"{found.rows} vectors for {table.rows} embeddings")


def stated_count(files: list[dict[str, Any]]) -> Count:
    """Sum the rows and ids that entries of a manifest state."""
    return total(Count(file["rows"], int(file["id_sum"])) for file in files)


def publish(
    storage: Storage,
    record: dict[str, Any],
    assembled: dict[str, Any],
    planned_rows: int,
    timings: dict[str, float],
) -> dict[str, Any]:
    """Write each table's HATS metadata and, last, create generation 1; what makes a run a finished one.

    Parameters
    ----------
    storage : Storage
        The run folder, with every file of ``assembled`` in its place.
    record, assembled : dict
        run.json, and what `assemble` made of the commits.
    planned_rows : int
        Rows of the plan.
    timings : dict of str to float
        Seconds of the phases.

    Returns
    -------
    dict
        The manifest that stands, ours or another's.

    Raises
    ------
    SurveyprocError
        When the accounts do not balance; nothing is written then.
    """
    require_balance(book_checks(assembled, record, planned_rows), storage.uri)
    tables = {
        name: entry | write_table_metadata(storage, name, entry)
        for name, entry in assembled["tables"].items()
    }
    step("finalise.metadata")
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    manifest = {"generation": 1, "created": created, **assembled, "tables": tables, "timings": timings}
    storage.create(f"{MANIFESTS}/000001.json", json.dumps(manifest, indent=1).encode())
    standing = latest(storage)
    if standing is None:
        raise PartialError(
            "the manifest cannot be read back", where=storage.uri, fix="give the command again"
        )
    step("finalise.manifest")
    return standing


def write_table_metadata(storage: Storage, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Write the files that make a finished table a HATS catalog; says the table's ``columns`` and types."""
    with storage.open(entry["files"][0]["path"]) as file:
        schema = pq.read_schema(file)
    if entry["layout"] == "hats":
        for file_name, data in hats_files(storage, name, entry, schema).items():
            storage.replace(f"{name}/{file_name}", data)
    return {"columns": columns_of(schema)}


def hats_files(storage: Storage, name: str, entry: dict[str, Any], schema: pa.Schema) -> dict[str, bytes]:
    """Make the HATS metadata of a table from its entry in the manifest."""
    run = storage.uri.rsplit("/", 1)[-1]
    pixels = [(*f["pixel"], f["rows"]) for f in entry["files"]]
    provenance = {"surveyproc_run": run}
    provenance |= {f"surveyproc_{k}": str(entry[k]) for k in ("bundle", "encoder_sha256") if k in entry}
    return metadata_files(f"{run}_{name}", schema, pixels, provenance)


def columns_of(schema: pa.Schema) -> dict[str, str]:
    """Names and types of columns, as a manifest states them."""
    return {field.name: str(field.type) for field in schema}


def _index_entry(commits: list[Commit], tables: dict[str, Any]) -> dict[str, Any] | None:
    if not commits:
        return None
    facts = commits[0].facts
    return {
        **{key: facts[key] for key in ("kind", "metric", "table")},
        "encoder_sha256": tables.get(facts["table"], {}).get("encoder_sha256"),
        "rows": sum(commit.rows for commit in commits),
        "files": [
            _file(commit, name, target) for commit in commits for name, target in commit.facts["targets"]
        ],
    }


def _file(commit: Commit, name: str, target: str) -> dict[str, Any]:
    part = commit.parts[name]
    stated = {"path": target, "rows": part.rows, "bytes": part.bytes, "sha256": part.sha256}
    return stated | {"id_sum": str(part.id_sum)}


def _place(file: dict[str, Any]) -> tuple:
    """Order of a table's files: by pixel, or by number."""
    return tuple(file["pixel"] or ()), len(file["path"]), file["path"]
