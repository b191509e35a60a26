"""Throughput and memory of ``surveyproc run`` against the matched ceiling.

The ceiling is the same engine over batches that are already in memory, in as many processes at once as
the run has actors, with the same threads each, measured right before the runs. Rates are of the steady
state: from the commit after which every actor has committed once to the last but one for each actor.
The machine may be shared, so rows per core-second stand beside rows per second.

    python jobs/bench/run.py --px 64 128 --rows 20000 100000 --repeats 3 --output bench.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

MARK = "SURVEYPROC_BENCH"
DISTINCT = 4096
CEILING_SECONDS = 12.0
SAMPLE_SECONDS = 0.5
MEMORY_EVERY = 4
BATCH = 64


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--px", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--executors", nargs="+", default=["none", "local"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoder", default="mobilenetv4_conv_small")
    parser.add_argument("--scratch", help="folder for catalogs and runs (default: a temporary one)")
    parser.add_argument("--output", default="bench-run.json")
    parser.add_argument("--ceiling", nargs=2, metavar=("BUNDLE", "SECONDS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ceiling:
        print(json.dumps(bare_loop(args.ceiling[0], float(args.ceiling[1]))))
        return
    with tempfile.TemporaryDirectory(prefix="surveyproc-bench-", dir=args.scratch) as scratch:
        results = [r for px in args.px for r in measure(Path(scratch), px, args)]
    machine = {"cpu": _cpu_name(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    Path(args.output).write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    print(f"\n{machine['cpu']}, {machine['cores']} cores; {args.encoder}; medians of {args.repeats} repeats")
    summarise(results)


def measure(scratch: Path, px: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one cutout size: ceiling, then every executor at every number of rows, repeated."""
    bundle = make_bundle(scratch / f"bundle{px}", px, args.encoder)
    catalogs = {rows: make_catalog(scratch / f"{px}-{rows}.cat", px, rows) for rows in args.rows}
    results = []
    for repeat in range(args.repeats):
        ceiling = measure_ceiling(bundle)
        for rows, catalog in catalogs.items():
            for executor in args.executors:
                output = scratch / f"{px}-{rows}-{executor}-{repeat}.run"
                found = measure_run(catalog, output, bundle, executor)
                found |= {"px": px, "rows": rows, "executor": executor, "repeat": repeat}
                found["of_ceiling"] = found["rows_per_s"] / ceiling["rows_per_s"]
                found["of_ceiling_core"] = found["rows_per_core_s"] / ceiling["rows_per_core_s"]
                found["ceiling"] = ceiling
                results.append(found)
                print(
                    f"{px} px, {rows} rows, {executor}: {found['rows_per_s']:.0f} rows/s "
                    f"({found['of_ceiling']:.2f} of the ceiling), {found['rows_per_core_s']:.0f} per core-s "
                    f"({found['of_ceiling_core']:.2f}), peak {found['peak_pss_mb']:.0f} MB",
                    flush=True,
                )
                subprocess.run(["rm", "-rf", str(output)], check=True)
    return results


def make_bundle(path: Path, px: int, encoder: str) -> str:
    """Write a bundle of the encoder with random weights and a Galaxy Challenge head."""
    import torch

    from surveyproc.cutouts import InputContract
    from surveyproc.models.bundle import build_architecture, write_bundle
    from surveyproc.votes import load_schema

    torch.manual_seed(0)
    votes = load_schema("galaxy-challenge")
    arguments = {"encoder": encoder, "answers": [len(q.answers) for q in votes.questions]}
    model: Any = build_architecture("morphology", arguments)
    record = {
        "name": "bench",
        "architecture": "morphology",
        "arguments": arguments,
        "input": InputContract(bands=("R", "G", "B"), size=px).to_dict(),
        "outputs": {"embedding_size": model.embedding_size, "vote_schema": votes.to_dict()},
        "inference": {"views": 1, "draws": 1},
        "cost": {"ms_per_cutout": 1.5 * (px / 64) ** 2},
    }
    write_bundle(path, record, model.state_dict())
    return str(path)


def make_pixels(px: int, rows: int) -> np.ndarray:
    """Exponential discs on noise: pixels that compress about as badly as real ones."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:px, :px] - px / 2
    scale = rng.uniform(px / 16, px / 5, (rows, 1, 1))
    disc = 180 * np.exp(-np.hypot(x, y)[None] / scale)
    noise = rng.normal(12, 4, (rows, px, px, 3))
    return np.clip(disc[..., None] * rng.uniform(0.5, 1, (rows, 1, 1, 3)) + noise, 0, 255).astype(np.uint8)


def make_catalog(path: Path, px: int, rows: int) -> str:
    """Write a raw catalog; the pixels repeat every 4,096 rows."""
    from surveyproc.catalog import CatalogWriter
    from surveyproc.cutouts import ImageSpec

    pixels = make_pixels(px, min(rows, DISTINCT))
    spec = ImageSpec("raw", (px, px, 3), "uint8")
    with CatalogWriter(path, spec, pa.schema([("object_id", pa.int64())])) as writer:
        for start in range(0, rows, len(pixels)):
            count = min(len(pixels), rows - start)
            writer.write_pixels(
                pixels[:count], {"object_id": pa.array(range(start, start + count), pa.int64())}
            )
    return str(path)


def measure_ceiling(bundle: str) -> dict[str, float]:
    """Run the bare loop in as many processes at once as the run has actors."""
    command = [sys.executable, __file__, "--ceiling", bundle, str(CEILING_SECONDS)]
    actors = len(os.sched_getaffinity(0))
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(actors)]
    found = [json.loads(p.communicate()[0].splitlines()[-1]) for p in processes]
    return {
        "rows_per_s": sum(f["rows"] / f["seconds"] for f in found),
        "rows_per_core_s": sum(f["rows"] for f in found) / sum(f["cpu"] for f in found),
    }


def bare_loop(uri: str, seconds: float) -> dict[str, float]:
    """Engine over batches in memory, one thread; the first second warms up."""
    import torch

    from surveyproc.cutouts import ImageSpec
    from surveyproc.inference.engine import Engine
    from surveyproc.inference.settings import EngineSettings, resolve_precision
    from surveyproc.models.bundle import open_bundle

    torch.set_num_threads(1)
    bundle = open_bundle(uri)
    px = bundle.contract.size
    settings = EngineSettings(batch_size=BATCH, precision=resolve_precision("auto", "cpu"))
    keys = pa.schema([("object_id", pa.int64())])
    engine = Engine([bundle], settings, ImageSpec("raw", (px, px, 3), "uint8"), keys)
    batches = np.split(make_pixels(px, BATCH * 16), 16)
    columns = pa.record_batch([pa.array(range(BATCH), pa.int64())], names=["object_id"])
    rows, warm = 0, time.monotonic() + 1
    while time.monotonic() < warm:
        engine(columns, batches[0], {})
    started, cpu = time.monotonic(), time.process_time()
    while time.monotonic() - started < seconds:
        engine(columns, batches[rows // BATCH % 16], {})
        rows += BATCH
    return {"rows": rows, "seconds": time.monotonic() - started, "cpu": time.process_time() - cpu}


def measure_run(catalog: str, output: Path, bundle: str, executor: str) -> dict[str, float]:
    """Run the job in a process tree of its own and sample the memory and CPU time of all of it."""
    mark = uuid.uuid4().hex
    command = [
        sys.executable,
        "-m",
        "surveyproc.cli.main",
        "run",
        "--input",
        catalog,
        "--output",
        str(output),
    ]
    command += ["--bundle", bundle, f"cluster={executor}"]
    started = time.time()
    process = subprocess.Popen(
        command, env=os.environ | {MARK: mark}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    times, cpus, memory = [], [], [0.0]
    used: dict[int, float] = {}
    while process.poll() is None:
        pids = _marked(mark)
        for pid in pids:
            used[pid] = max(used.get(pid, 0.0), _cpu_seconds(pid))
        times.append(time.time())
        cpus.append(sum(used.values()))
        # Reading a large process's memory map stalls it: seldom.
        if len(times) % MEMORY_EVERY == 0:
            memory.append(sum(_pss(pid) for pid in pids))
        time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit(process.stderr.read() if process.stderr else "the run failed")
    wall = time.time() - started
    commits = sorted(
        (p.stat().st_mtime, json.loads(p.read_bytes())["rows"]) for p in (output / "_commits").glob("shard-*")
    )
    actors = len(os.sched_getaffinity(0))
    inner = commits[actors:-actors] if len(commits) > 3 * actors else commits[1:]
    begin, end = commits[commits.index(inner[0]) - 1][0], inner[-1][0]
    rows = sum(r for _, r in inner)
    core_seconds = float(np.interp(end, times, cpus) - np.interp(begin, times, cpus))
    return {
        "rows_per_s": rows / (end - begin),
        "rows_per_core_s": rows / core_seconds,
        "shards": len(commits),
        "first_commit_s": commits[0][0] - started,
        "wall_s": wall,
        "peak_pss_mb": max(memory) / 1e6,
    }


def summarise(results: list[dict[str, Any]]) -> None:
    """Print medians, and the growth of peak memory with the rows."""
    print(
        "| px | rows | executor | rows/s | of ceiling | rows/core-s | of ceiling | first commit s | wall s | peak MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for key in sorted({(r["px"], r["rows"], r["executor"]) for r in results}):
        same = [r for r in results if (r["px"], r["rows"], r["executor"]) == key]
        m = {k: statistics.median(r[k] for r in same) for k in same[0] if isinstance(same[0][k], float)}
        print(
            f"| {key[0]} | {key[1]:,} | {key[2]} | {m['rows_per_s']:.0f} | {m['of_ceiling']:.2f} | "
            f"{m['rows_per_core_s']:.0f} | {m['of_ceiling_core']:.2f} | {m['first_commit_s']:.1f} | "
            f"{m['wall_s']:.1f} | {m['peak_pss_mb']:.0f} |"
        )


def _marked(mark: str) -> list[int]:
    """Processes whose environment carries the mark: the driver and all that it started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of one process; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss(pid: int) -> float:
    """Proportional memory of one process in bytes; 0 once it is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next(
        (int(line.split()[1]) * 1024.0 for line in rollup.splitlines() if line.startswith("Pss:")), 0.0
    )


def _cpu_name() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":")[1].strip() if names else platform.processor()


if __name__ == "__main__":
    main()
