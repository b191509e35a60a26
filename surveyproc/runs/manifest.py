"""Manifests: create-only generations that say what a finished run holds."""

from __future__ import annotations

import json
import time
from typing import Any

from surveyproc.catalog.hats import write_metadata
from surveyproc.runs.ledger import Commit
from surveyproc.runs.merge import MergeUnit
from surveyproc.storage import Storage

MANIFESTS = "_manifests"


def latest(storage: Storage) -> dict[str, Any] | None:
    """Read the manifest of the highest generation, or None while the run is unfinished."""
    names = [n for n in storage.names(MANIFESTS) if n.endswith(".json") and not n.startswith(".")]
    return json.loads(storage.read(f"{MANIFESTS}/{names[-1]}")) if names else None


def add_generation(storage: Storage, manifest: dict[str, Any]) -> bool:
    """Create the generation that ``manifest`` names; False when somebody else did."""
    name = f"{MANIFESTS}/{manifest['generation']:06d}.json"
    return storage.create(name, json.dumps(manifest, indent=1).encode())


def table_entry(units: list[tuple[MergeUnit, Commit]], provenance: dict[str, Any]) -> dict[str, Any]:
    """Describe one table: layout, rows, bytes, provenance, and each file with what must be found in it."""
    files = []
    for unit, commit in units:
        part = commit.parts[unit.table]
        files.append(
            {
                "path": unit.target,
                "rows": part.rows,
                "bytes": part.bytes,
                "sha256": part.sha256,
                "id_sum": str(part.id_sum),
                "pixel": unit.pixel,
            }
        )
    return {
        "layout": "hats" if any(u.pixel for u, _ in units) else "flat",
        "rows": sum(f["rows"] for f in files),
        "bytes": sum(f["bytes"] for f in files),
        "files": files,
        **provenance,
    }


def first_manifest(
    tables: dict[str, Any],
    index: dict[str, Any] | None,
    commits: list[Commit],
    timings: dict[str, float],
) -> dict[str, Any]:
    """Assemble generation 1, written by finalise; ``id_sum`` is that of all ids that came in."""
    return {
        "generation": 1,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rows_in": sum(commit.rows + commit.rejects for commit in commits),
        "id_sum": str(sum(int(commit.facts["id_sum"]) for commit in commits) % 2**64),
        "rows": next(iter(tables.values()))["rows"],
        "rejects": tables["rejects"]["rows"],
        "tables": tables,
        "index": index,
        "timings": timings,
    }


def write_hats_metadata(storage: Storage, name: str, entry: dict[str, Any], schema: Any, run: str) -> None:
    """Write the files that make a finished table a HATS catalog, after its data."""
    pixels = [(*f["pixel"], f["rows"]) for f in entry["files"]]
    provenance = {"surveyproc_run": run}
    provenance |= {f"surveyproc_{k}": str(entry[k]) for k in ("bundle", "encoder_sha256") if k in entry}
    write_metadata(storage, name, f"{run}_{name}", schema, pixels, provenance)
