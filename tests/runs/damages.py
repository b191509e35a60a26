"""Ways to damage a run, from an accident of the disk to a tool that adapts every number it knows of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.identifiers import id_sum
from surveyproc.runs import open_run
from surveyproc.runs.verify import verify_run

MANIFEST = "_manifests/000001.json"


def failed(run: Path) -> set[str]:
    """Names of the checks that fail."""
    return {c.name for c in verify_run(open_run(str(run))) if not c.passed}


def leaves(run: Path, table: str) -> list[Path]:
    """Files of a table on the sky."""
    return sorted((run / table / "dataset").rglob("*.parquet"))


def flip(path: Path, place: float = 0.5) -> None:
    """Flip one bit, at a place between the beginning (0) and the end (1)."""
    data = bytearray(path.read_bytes())
    data[min(int(len(data) * place), len(data) - 1)] ^= 1
    path.write_bytes(data)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def agree(run: Path, path: Path, commits: bool = True, **numbers: Any) -> None:
    """Make the manifest, and the commit, state the bytes and digest a file has now, and further numbers."""
    name = str(path.relative_to(run))
    now = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} | numbers

    def in_manifest(manifest: dict) -> None:
        tables = manifest["tables"].values()
        files = [f for entry in [*tables, manifest["index"]] for f in entry["files"] if f["path"] == name]
        assert len(files) == 1
        files[0].update(now)
        for entry in tables:
            entry |= {key: sum(f[key] for f in entry["files"]) for key in ("rows", "bytes")}

    edit(run / MANIFEST, in_manifest)
    for file in (run / "_commits").glob("[mi]*.json") if commits else ():
        targets = {target: part for part, target in json.loads(file.read_text())["facts"]["targets"]}
        if name in targets:
            part = targets[name]
            new = now | ({"id_sum": int(now["id_sum"])} if "id_sum" in now else {})
            edit(file, lambda commit: commit["parts"][part].update(new))  # noqa: B023


def forge(run: Path, path: Path, table: pa.Table, commits: bool = True, counts: bool = False) -> None:
    """Write a file anew and make the run agree with it; with ``counts`` also with its rows and ids."""
    pq.write_table(table, path)
    numbers = {"rows": table.num_rows, "id_sum": str(id_sum(table["object_id"]))} if counts else {}
    agree(run, path, commits, **numbers)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Replace the values of a column."""
    place = table.schema.get_field_index(name)
    return table.set_column(
        place, table.schema.field(place), pa.array(values, table.schema.field(place).type)
    )
