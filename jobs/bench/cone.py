"""A cone search against a full scan: rows in hundreds of HATS leaves on a local disk.

Prints the shortest of several times of each way to answer the same question, and checks that they give the same rows.

    python jobs/bench/cone.py [--rows 2000000] [--output cone.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.hats import leaf_path, metadata_files
from surveyproc.catalog.sky import healpix29, parent_pixel
from surveyproc.catalog.sky_reading import cone_search
from surveyproc.catalog.sky_regions import Cone
from surveyproc.catalog.sky_tables import catalog_table

ORDER = 3  # 768 pixels
GROUP_ROWS = 1000
COLUMNS = ["object_id", "ra", "dec", "mag"]
PLACES = {
    "small, 0.5 deg": (150.0, 2.2, 1800.0),
    "pole, 5 deg": (0.0, 90.0, 18_000.0),
    "RA 0, 10 arcmin": (0.0, 0.0, 600.0),
}
TIMES = 7


def write_catalog(folder: Path, rows: int) -> None:
    """Write rows spread evenly over the sky."""
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))
    table = pa.table(
        {
            "object_id": np.arange(rows),
            "ra": ra,
            "dec": dec,
            "_healpix_29": healpix29(ra, dec).data,
            "mag": rng.normal(20, 1, rows).astype(np.float32),
        }
    ).sort_by("_healpix_29")
    pixels = parent_pixel(table["_healpix_29"].to_numpy(), ORDER)
    starts = np.searchsorted(pixels, np.arange(12 * 4**ORDER + 1))
    leaves = []
    for pixel, (start, stop) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist())):
        path = folder / leaf_path(ORDER, pixel)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(start, stop - start), path, row_group_size=GROUP_ROWS)
        leaves.append((ORDER, pixel, stop - start))
    for name, data in metadata_files("bench", table.schema, leaves, {}).items():
        (folder / name).write_bytes(data)


def full_scan(folder: Path, ra: float, dec: float, radius: float) -> list[int]:
    """Ask DuckDB for every row's distance (haversine)."""
    away = f"sin(radians(dec - {dec}) / 2)**2 + cos(radians(dec)) * cos(radians({dec})) * sin(radians(ra - {ra}) / 2)**2"
    sql = f"SELECT {', '.join(COLUMNS)} FROM '{folder}/dataset/**/*.parquet' WHERE 2 * degrees(asin(sqrt({away}))) * 3600 <= {radius}"
    return sorted(row[0] for row in duckdb.sql(sql).fetchall())


def search(folder: Path, ra: float, dec: float, radius: float) -> list[int]:
    """Open the catalog and search the cone."""
    found = cone_search(catalog_table(str(folder)), Cone(ra, dec, radius), COLUMNS)
    return sorted(found["object_id"].to_pylist())


def best_ms(call: Callable[[], object]) -> float:
    """Shortest time of a call once files are warm."""
    call()
    times = []
    for _ in range(TIMES):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--output", type=Path, help="JSON file")
    args = parser.parse_args()
    report: dict[str, object] = {
        "rows": args.rows,
        "files": 12 * 4**ORDER,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "bench.hats")
        write_catalog(folder, args.rows)
        table = catalog_table(str(folder))
        print(f"{args.rows:,} rows in {12 * 4**ORDER} files; {report['machine']}")
        print(f"{'':18}{'rows':>8}{'full scan':>12}{'open + cone':>13}{'cone':>9}{'ratio':>8}")
        for name, place in PLACES.items():
            expected = full_scan(folder, *place)
            assert search(folder, *place) == expected, name
            scan = best_ms(partial(full_scan, folder, *place))
            whole = best_ms(partial(search, folder, *place))
            alone = best_ms(partial(cone_search, table, Cone(*place), COLUMNS))
            print(
                f"{name:18}{len(expected):>8,}{scan:>9.1f} ms{whole:>10.1f} ms{alone:>6.1f} ms{scan / whole:>8.1f}"
            )
            report[name] = {
                "rows": len(expected),
                "scan_ms": scan,
                "open_and_cone_ms": whole,
                "cone_ms": alone,
            }
    if args.output:
        args.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
