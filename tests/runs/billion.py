"""Plan a catalog of 10^9 rows whose footers are made up, and say how much memory that took.

``python billion.py FILES RUN`` prints JSON; a process of its own, so that its peak is its own.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from surveyproc.catalog import CatalogFile, RowGroups, catalog, open_catalog
from surveyproc.catalog.pixels import image_field
from surveyproc.catalog.storage import Location
from surveyproc.cutouts import ImageSpec
from surveyproc.runs.plan import (
    changed_files,
    cut_shards,
    input_digest,
    load_plan,
    shard_rows,
    store_plan,
    unit_name,
)
from surveyproc.storage import Storage

SPEC = ImageSpec("raw", (64, 64, 3), "uint8")
GROUPS_PER_FILE = 8
ROWS_PER_GROUP = 1250


def footer(location: Location, name: str) -> tuple[CatalogFile, pa.Schema]:
    """Make up what a footer says; the schema is a new object each time, as it is from a file."""
    groups = RowGroups.of([(ROWS_PER_GROUP, 15_360_000)] * GROUPS_PER_FILE)
    rows = GROUPS_PER_FILE * ROWS_PER_GROUP
    fields = [
        pa.field("object_id", pa.int64()),
        *(pa.field(f"mag_{band}", pa.float32()) for band in "ugrizy"),
    ]
    schema = pa.schema([*fields, image_field(SPEC)], metadata={"written": "by a test" * 20})
    return CatalogFile(name, 90_000_000, f"etag-{name[-20:]}-0123456789abcdef", rows, groups), schema


def memory(line: str) -> int:
    """Bytes of this process by ``/proc/self/status``."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(text for text in status.splitlines() if text.startswith(line)).split()[1])


def main(files: int, run: str) -> dict[str, int]:
    """Open, cut, store, load, compare and resume."""
    names = [f"dataset/Norder=7/Dir={n // 10000 * 10000}/Npix={n}.parquet" for n in range(files)]
    catalog.locate = lambda uri: Location(None, uri)
    catalog.list_data = lambda location: names
    catalog._read_footer = footer
    storage = Storage(run)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = memory("VmRSS")
    opened = open_catalog("s3://survey/cutouts")
    digest = input_digest(opened)
    rows = shard_rows(opened, ms_per_cutout=4.758, shard_seconds=30, actors=64)
    store_plan(storage, cut_shards(opened, rows))
    plan = load_plan(storage)
    assert not changed_files(opened, plan)
    done, left = plan.split({unit_name(n) for n in range(len(plan) // 2)})
    assert sum(shard.rows for shard in left) + done.rows == plan.rows == opened.rows
    return {
        "files": len(opened.files),
        "rows": opened.rows,
        "shards": len(plan),
        "left": len(left),
        "plan_bytes": storage.size("_plan.parquet") or 0,
        "digest_length": len(digest),
        "peak_bytes": memory("VmHWM") - before,
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), sys.argv[2])))
