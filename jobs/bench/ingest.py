"""Cutouts from one large FITS tile: `surveyproc ingest` against Cutana and against a loop over Cutout2D.

All from the same warm file, with the same sources, size, type (float32) and no stretch. Every contender runs in
a process of its own and has done the work once before the clock starts (the Orchestrator starts its own processes
each time); the best of the repeats counts, for each of them. Rates are by the clock and by processor time, which
tells more on a machine with other work. Cutana (PyPI) needs an environment of its own; without --cutana it is left
out.

    python jobs/bench/ingest.py --cutana /path/to/env/bin/python [--scale] [--s3] [--output ingest.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from counted_store import counted_store

SIZE = 64
SCALE = 0.2  # arcsec per pixel
ZEROPOINT = 31.4
JOBS = Path(__file__).with_name("ingest_jobs")


def main() -> None:
    """Make the tile, let everyone cut it, print and write what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--px", type=int, default=10_000, help="side of the tile")
    parser.add_argument("--sources", type=int, default=10_000)
    parser.add_argument("--naive", type=int, default=200, help="sources of the loop over Cutout2D")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cutana", metavar="PYTHON", help="interpreter of an environment with cutana")
    parser.add_argument("--scale", action="store_true", help="also 10^4 to 10^6 sources on 1 to 16 tiles")
    parser.add_argument("--s3", action="store_true", help="also count the bytes that come from a store")
    parser.add_argument("--scratch", type=Path, help="folder for 1 GB of tiles and catalogs")
    parser.add_argument("--output", type=Path, help="JSON file")
    args = parser.parse_args()
    report: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "px": args.px,
        "sources": args.sources,
    }
    print(
        f"{args.px} x {args.px} px, {args.sources:,} sources of {SIZE} px, float32; {report['machine']}, load {report['load']:.1f}"
    )
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        scratch = Path(folder)
        tile = make_tile(scratch / "tiles", "t0", args.px, 0)
        sources = make_sources(scratch / "sources.parquet", {tile: (0, args.px)}, args.sources)
        report["rates"] = contenders(scratch, tile, sources, args)
        if args.scale:
            report["scale"] = scale(scratch)
        if args.s3:
            report["s3"] = store(scratch, tile)
    if args.output:
        args.output.write_text(json.dumps(report, indent=1))


def contenders(scratch: Path, tile: Path, sources: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Time everyone."""
    pattern = str(tile.parent / "{tile}_{band}.fits")
    few = pq.read_table(sources).slice(0, args.naive)
    pq.write_table(few, scratch / "few.parquet")
    words = [pattern, str(sources), str(scratch / "out.cat"), str(SIZE)]
    repeats = str(args.repeats)
    jobs = {
        "surveyproc ingest (written)": (sys.executable, "ours.py", words),
        "surveyproc cut_tile (in memory)": (sys.executable, "slicing.py", words),
        "Cutout2D loop, open and WCS each (in memory)": (
            sys.executable,
            "naive.py",
            [str(tile), str(scratch / "few.parquet"), str(SIZE)],
        ),
    }
    if args.cutana:
        peer = [str(tile), str(sources), str(scratch / "cutana"), str(SIZE)]
        jobs["Cutana direct (np.save)"] = (args.cutana, "cutana_direct.py", peer)
        jobs["Cutana Orchestrator (Zarr written)"] = (args.cutana, "cutana_orchestrator.py", peer)
    tile.read_bytes()
    found: dict[str, Any] = {}
    for name, (python, script, arguments) in jobs.items():
        best = job(python, script, [*arguments, repeats])
        best["per_second"] = best["rows"] / best["seconds"]
        best["per_cpu_second"] = best["rows"] / best["cpu_seconds"]
        found[name] = best
    ours = found["surveyproc ingest (written)"]
    print(f"{'':46}{'cutouts/s':>11}{'ours is':>9}{'per CPU s':>11}{'ours is':>9}{'peak MB':>9}")
    for name, best in found.items():
        print(
            f"{name:46}{best['per_second']:>11,.0f}{ours['per_second'] / best['per_second']:>8.1f}x"
            f"{best['per_cpu_second']:>11,.0f}{ours['per_cpu_second'] / best['per_cpu_second']:>8.1f}x"
            f"{best['peak_mb']:>9,.0f}"
        )
    return found


def scale(scratch: Path) -> list[dict[str, Any]]:
    """Ten times the sources, and more tiles, should take as many times as long; memory should stay."""
    rows = []
    print(
        f"\n{'sources':>10}{'tiles':>7}{'seconds':>9}{'CPU s':>8}{'CPU us/source':>15}{'peak MB':>9}   (16 px, float16)"
    )
    for count, tiles in ((10_000, 1), (100_000, 1), (100_000, 4), (1_000_000, 4), (1_000_000, 16)):
        folder = scratch / f"scale-{tiles}"
        made = {make_tile(folder, f"t{i}", 2000, i): (i, 2000) for i in range(tiles)}
        sources = make_sources(scratch / "many.parquet", made, count)
        clear(scratch, "scale.cat")
        words = [
            str(folder / "{tile}_{band}.fits"),
            str(sources),
            str(scratch / "scale.cat"),
            "16",
            "float16",
            "0",
        ]
        done = job(sys.executable, "ours.py", words) | {"tiles": tiles}
        rows.append(done)
        cpu = done["cpu_seconds"]
        print(
            f"{count:>10,}{tiles:>7}{done['seconds']:>9.2f}{cpu:>8.2f}{1e6 * cpu / count:>15.1f}{done['peak_mb']:>9,.0f}"
        )
    return rows


def store(scratch: Path, tile: Path) -> list[dict[str, Any]]:
    """Bytes that left a local S3 server, against the bytes of what the cutouts touch."""
    from astropy.io import fits

    bucket = scratch / "bucket" / "survey"
    (bucket / "plain").mkdir(parents=True)
    (bucket / "packed").mkdir()
    os.link(tile, bucket / "plain" / tile.name)
    with fits.open(tile) as hdus:
        packed = fits.CompImageHDU(
            hdus[0].data, hdus[0].header, compression_type="RICE_1", tile_shape=(100, 100)
        )
        packed.writeto(bucket / "packed" / tile.name)
    px = int(fits.getheader(tile)["NAXIS1"])
    rows = []
    print(f"\n{'from S3':>10}{'sources':>9}{'moved MB':>10}{'file MB':>9}{'touched MB':>12}{'ratio':>7}")
    with counted_store(scratch / "bucket") as (endpoint, moved):
        for kind in ("plain", "packed"):
            file = bucket / kind / tile.name
            for count in (20, 200, 10_000):
                sources = make_sources(scratch / "some.parquet", {tile: (0, px)}, count)
                touched = file.stat().st_size if kind == "plain" else sections(file, sources)
                clear(scratch, "s3.cat")
                before = moved()
                pattern = f"s3://survey/{kind}/{{tile}}_{{band}}.fits"
                job(
                    sys.executable,
                    "ours.py",
                    [pattern, str(sources), str(scratch / "s3.cat"), str(SIZE), "float32", endpoint, "0"],
                )
                row = {"kind": kind, "sources": count, "moved": moved() - before, "touched": touched}
                rows.append(row | {"file": file.stat().st_size})
                print(
                    f"{kind:>10}{count:>9,}{row['moved'] / 1e6:>10.1f}{file.stat().st_size / 1e6:>9.1f}"
                    f"{touched / 1e6:>12.1f}{row['moved'] / touched:>7.2f}"
                )
    return rows


def sections(file: Path, sources: Path) -> int:
    """Bytes of the compressed sections that the cutouts of a packed tile touch."""
    from astropy.io import fits

    table = pq.read_table(sources)
    with fits.open(file, disable_image_compression=True) as hdus:
        side, px = hdus[1].header["ZTILE1"], hdus[1].header["ZNAXIS1"]
        sizes = hdus[1].data["COMPRESSED_DATA"]
        across = -(-px // side)
        wanted = set()
        for x, y in zip(table["x"].to_pylist(), table["y"].to_pylist()):
            low = [max(0, round(v) - SIZE // 2) // side for v in (x, y)]
            high = [min(px - 1, round(v) + SIZE // 2) // side for v in (x, y)]
            wanted |= {r * across + c for r in range(low[1], high[1] + 1) for c in range(low[0], high[0] + 1)}
        return sum(len(sizes[i]) for i in wanted)


def make_tile(folder: Path, name: str, px: int, number: int) -> Path:
    """Write a tile of Gaussian noise with a TAN header; tiles lie side by side in RA."""
    from astropy.io import fits

    path = folder / f"{name}_VIS.fits"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    header = tile_wcs(px, number).to_header()
    header["MAGZERO"] = ZEROPOINT
    data = np.random.default_rng(number).standard_normal((px, px), dtype=np.float32)
    fits.PrimaryHDU(data, header).writeto(path)
    return path


def tile_wcs(px: int, number: int) -> Any:
    """The WCS of a tile."""
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0 + 1.2 * number * px * SCALE / 3600, 2.2]
    wcs.wcs.crpix = [(px + 1) / 2] * 2
    wcs.wcs.cdelt = [-SCALE / 3600, SCALE / 3600]
    return wcs


def make_sources(path: Path, tiles: dict[Path, tuple[int, int]], count: int) -> Path:
    """Write sources at random places of the tiles, a cutout away from the edges."""
    rng = np.random.default_rng(1)
    parts = []
    for (number, px), rows in zip(tiles.values(), np.array_split(np.arange(count), len(tiles))):
        x, y = rng.uniform(SIZE, px - SIZE, (2, len(rows)))
        ra, dec = tile_wcs(px, number).all_pix2world(x, y, 0)
        parts.append(pa.table({"object_id": rows, "ra": ra, "dec": dec, "x": x, "y": y}))
    pq.write_table(pa.concat_tables(parts), path)
    return path


def clear(scratch: Path, *names: str) -> None:
    """Remove what an earlier job wrote."""
    for name in names:
        shutil.rmtree(scratch / name, ignore_errors=True)


def job(python: str, script: str, words: list[str]) -> dict[str, Any]:
    """Run one contender; its last line is JSON with ``rows``, ``seconds`` and ``peak_mb``."""
    environment = dict(os.environ)
    if python != sys.executable:
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, str(JOBS / script), *words], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
