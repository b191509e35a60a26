"""Verify: read a run back and say, line by line, whether it holds what it claims."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.sky import parent_pixel
from surveyproc.identifiers import id_sum
from surveyproc.runs.ledger import ATTEMPTS, COMMITS, Ledger
from surveyproc.runs.manifest import MANIFESTS
from surveyproc.runs.plan import PLAN, load_plan
from surveyproc.runs.record import RECORD
from surveyproc.runs.run import Run

HATS_FILES = ("dataset/_common_metadata", "partition_info.csv", "hats.properties")
EXTRA_FILES = {"report.html"}


@dataclass(frozen=True)
class Check:
    """One line of the verification."""

    name: str
    passed: bool
    detail: str


def verify_run(run: Run) -> Iterator[Check]:
    """Check a finished run against its plan and manifest.

    Yields
    ------
    Check
        Manifest, commits, row accounts, then for each table its files (presence, size, digest, rows, ids,
        schema, rows in their pixel), the index, and files that belong to nothing.
    """
    plan = load_plan(run.storage)
    planned = {shard.unit for shard in plan}
    committed = Ledger(run.storage).committed("shard-")
    missing = sorted(planned - committed)
    yield Check("commits", not missing, _some(missing) or f"all {len(planned)} shards are committed")
    if run.manifest is None:
        yield Check("manifest", False, "there is no manifest: the run is unfinished")
        return
    manifest = run.manifest
    yield Check("manifest", True, f"generation {manifest['generation']}")
    yield from _accounts(manifest, sum(shard.rows for shard in plan))
    for name, entry in manifest["tables"].items():
        yield from _table(run, name, entry)
    yield _index(run, manifest)
    foreign = sorted(set(run.storage.walk()) - _known_files(run, manifest))
    yield Check("no other files", not foreign, _some(foreign) or "every file belongs to the run")


def _accounts(manifest: dict[str, Any], planned_rows: int) -> Iterator[Check]:
    rejects = manifest["tables"]["rejects"]["rows"]
    for name, entry in manifest["tables"].items():
        if name != "rejects":
            total = entry["rows"] + rejects
            detail = f"{entry['rows']} rows + {rejects} rejects = {total} of {planned_rows}"
            yield Check(f"{name}: rows", total == planned_rows, detail)


def _table(run: Run, name: str, entry: dict[str, Any]) -> Iterator[Check]:
    wrong: dict[str, list[str]] = {k: [] for k in ("present", "digest", "rows", "ids", "schema", "pixel")}
    schema: pa.Schema | None = None
    sums = 0
    for file in entry["files"]:
        path = file["path"]
        if run.storage.size(path) != file["bytes"]:
            wrong["present"].append(path)
            continue
        if _sha256(run, path) != file["sha256"]:
            wrong["digest"].append(path)
            continue
        with run.storage.open(path) as raw:
            table = pq.ParquetFile(raw)
            if table.metadata.num_rows != file["rows"]:
                wrong["rows"].append(path)
            schema = schema or table.schema_arrow
            if table.schema_arrow != schema:
                wrong["schema"].append(path)
            keys = table.read([c for c in ("object_id", "_healpix_29") if c in table.schema_arrow.names])
        found = id_sum(keys["object_id"].drop_null())
        sums = (sums + found) % 2**64
        if found != int(file["id_sum"]):
            wrong["ids"].append(path)
        if file["pixel"]:
            order, pixel = file["pixel"]
            if (parent_pixel(keys["_healpix_29"].to_numpy(), order) != pixel).any():
                wrong["pixel"].append(path)
    if name != "rejects":
        expected = (int(run.manifest["id_sum"]) - _rejected_sum(run)) % 2**64 if run.manifest else 0
        if sums != expected:
            wrong["ids"].append("the ids are not those that were planned")
    says = {
        "present": "every file is there with its size",
        "digest": "every digest is right",
        "rows": f"{entry['rows']} rows in {len(entry['files'])} files",
        "ids": "the id sums are right",
        "schema": "one schema",
        "pixel": "every row is in its pixel",
    }
    for kind, paths in wrong.items():
        if kind != "pixel" or entry["layout"] == "hats":
            yield Check(f"{name}: {kind}", not paths, _some(paths) or says[kind])


def _rejected_sum(run: Run) -> int:
    return id_sum(run.table("rejects", ["object_id"])["object_id"].drop_null())


def _index(run: Run, manifest: dict[str, Any]) -> Check:
    index = manifest["index"]
    if index is None:
        return Check("index", True, "the run has none")
    rows = manifest["tables"][index["table"]]["rows"]
    bad = [
        file["path"]
        for file in index["files"]
        if run.storage.size(file["path"]) != file["bytes"] or _sha256(run, file["path"]) != file["sha256"]
    ]
    if index["rows"] != rows:
        bad.append(f"{index['rows']} vectors for {rows} embeddings")
    return Check("index", not bad, _some(bad) or f"{rows} vectors")


def _known_files(run: Run, manifest: dict[str, Any]) -> set[str]:
    known = {RECORD, PLAN, *EXTRA_FILES}
    known |= {f"{COMMITS}/{unit}.json" for unit in Ledger(run.storage).committed("")}
    known |= {f"{MANIFESTS}/{n}" for n in run.storage.names(MANIFESTS)}
    for name, entry in manifest["tables"].items():
        known |= {file["path"] for file in entry["files"]}
        if entry["layout"] == "hats":
            known |= {f"{name}/{file}" for file in HATS_FILES}
    if manifest["index"]:
        known |= {file["path"] for file in manifest["index"]["files"]}
    return known | {n for n in run.storage.walk(ATTEMPTS) if n.endswith("/attempt.json")}


def _sha256(run: Run, path: str) -> str:
    digest = hashlib.sha256()
    with run.storage.open(path) as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _some(items: list[str], most: int = 3) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
