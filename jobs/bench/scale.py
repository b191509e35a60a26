"""Memory and time of what a survey of 10^9 rows costs beside the engines.

Makes a catalog of many files (hard links to one real Parquet file of 10,000 cutouts of 64 px), a ledger of
many commits, and many ids, and measures each step in a process of its own: wall seconds, and the peak of
its resident memory above what it had after its imports.

    python jobs/bench/scale.py --files 100000 --commits 200000 --ids 20000000 80000000 --output scale.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ROWS_PER_FILE = 10_000
LINKS_PER_COPY = 30_000
PX = 64


def main() -> None:
    """Measure every step, print lines, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--commits", type=int, default=200_000)
    parser.add_argument("--ids", type=int, nargs="+", default=[20_000_000, 80_000_000])
    parser.add_argument("--scratch", help="folder for the catalog and the ledger (default: a temporary one)")
    parser.add_argument("--output", default="bench-scale.json")
    parser.add_argument("--step", nargs=2, metavar=("NAME", "ARGUMENT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(measure(*args.step)))
        return
    with tempfile.TemporaryDirectory(prefix="surveyproc-scale-", dir=args.scratch) as scratch:
        catalog, run = Path(scratch, "many.cat"), Path(scratch, "many.run")
        make_catalog(catalog, args.files)
        results = [verb(catalog, run), child("plan", str(catalog))]
        make_commits(run, args.commits)
        results += [child("commits", str(run)), *(child("ids", str(n)) for n in args.ids)]
    Path(args.output).write_text(json.dumps(results, indent=1))


def make_catalog(path: Path, files: int) -> None:
    """Write one file of cutouts and link it under many names."""
    from surveyproc.catalog import CatalogWriter
    from surveyproc.cutouts import ImageSpec

    one = path.with_suffix(".one")
    columns = {
        "object_id": np.arange(ROWS_PER_FILE),
        "ra": np.zeros(ROWS_PER_FILE),
        "dec": np.zeros(ROWS_PER_FILE),
    }
    schema = pa.schema([("object_id", pa.int64()), ("ra", pa.float64()), ("dec", pa.float64())])
    with CatalogWriter(one, ImageSpec("raw", (PX, PX, 3), "uint8"), schema) as writer:
        pixels = np.zeros((ROWS_PER_FILE, PX, PX, 3), dtype=np.uint8)
        writer.write_pixels(pixels, {name: pa.array(values) for name, values in columns.items()})
    source = next(one.rglob("*.parquet"))
    for number in range(files):
        target = path / f"dataset/Norder=7/Dir={number // 10000 * 10000}/Npix={number}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        if number % LINKS_PER_COPY == 0:
            source = Path(shutil.copy(source, target))
        else:
            os.link(source, target)


def make_commits(run: Path, commits: int) -> None:
    """Write a plan of many shards, and their commits as plain files."""
    from surveyproc.runs.ledger import COMMITS, Commit, Part, part_path
    from surveyproc.runs.plan import Shard, store_plan, unit_name
    from surveyproc.storage import Storage

    store_plan(
        Storage(run), (Shard(n, f"{n // 2}.parquet", 1, "v", 0, 1, 5000, 5000 * n) for n in range(commits))
    )
    (run / COMMITS).mkdir()
    for number in range(commits):
        unit, attempt = unit_name(number), f"{number:016x}"
        parts = {
            name: Part(part_path(unit, attempt, name), 5000, 10**6, "0" * 64, number)
            for name in ("embeddings", "morphology", "morphology_posterior", "rejects")
        }
        commit = Commit(unit, attempt, 5000, 0, parts, 30.0, "bench", "host", {"id_sum": str(number)})
        (run / COMMITS / f"{unit}.json").write_bytes(commit.to_bytes())


def verb(catalog: Path, run: Path) -> dict[str, Any]:
    """Run ``surveyproc plan`` as a user would."""
    words = ["plan", "--input", str(catalog), "--output", str(run), "--price-per-hour", "0.05"]
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "surveyproc.cli.main", *words])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("surveyproc plan failed")
    return told(
        {"step": "surveyproc plan", "seconds": time.monotonic() - started, "peak_mb": usage.ru_maxrss / 1024}
    )


def child(step: str, argument: str) -> dict[str, Any]:
    """Measure a step in a process of its own."""
    command = [sys.executable, __file__, "--step", step, argument]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return told({"step": step, "argument": argument, **json.loads(done.stdout)})


def told(result: dict[str, Any]) -> dict[str, Any]:
    """Print a result."""
    print(json.dumps({k: round(v, 1) if isinstance(v, float) else v for k, v in result.items()}), flush=True)
    return result


def measure(step: str, argument: str) -> dict[str, Any]:
    """Do one step; its seconds by part, and its peak memory beyond the imports."""
    from surveyproc.catalog import open_catalog
    from surveyproc.runs import duplicates, plan, winners
    from surveyproc.runs.ledger import Ledger
    from surveyproc.storage import Storage

    found: dict[str, Any] = {}

    def timed(name: str, work: Any) -> Any:
        started = time.monotonic()
        result = work()
        found[f"{name}_s"] = time.monotonic() - started
        return result

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    if step == "plan":
        catalog = timed("open", lambda: open_catalog(argument))
        storage = Storage(f"{argument}.plan")
        timed("digest", lambda: plan.input_digest(catalog))
        timed("store", lambda: plan.store_plan(storage, plan.cut_shards(catalog, 5000)))
        shards = timed("load", lambda: plan.load_plan(storage))
        timed("compare", lambda: plan.changed_files(catalog, shards))
        timed("resume", lambda: shards.split({plan.unit_name(n) for n in range(len(shards) // 2)}))
        found |= {
            "rows": catalog.rows,
            "shards": len(shards),
            "plan_mb": (storage.size(plan.PLAN) or 0) / 2**20,
        }
    elif step == "commits":
        storage = Storage(argument)
        shards = plan.load_plan(storage)
        timed("list", lambda: Ledger(storage).committed("shard-"))
        timed("read", lambda: winners.read_winners(Ledger(storage), shards))
    else:
        timed("duplicates", lambda: duplicates.find_duplicates(_ids(int(argument)), int(argument)))
    return found | {"peak_mb": (_memory("VmHWM") - before) / 1024}


def _ids(rows: int) -> Any:
    for shard, first in enumerate(range(0, rows, 5000)):
        yield shard, np.arange(5000, dtype=np.int32), pa.array(np.arange(first, first + 5000))


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    main()
