"""What it costs that the engine stretches flux itself: a run on flux beside the same run on stretched pixels.

Simulated LSST- and Euclid-like galaxies (`surveyproc.simulate.multiband`) in nJy, and a copy of a bundle whose input
is the stretch. CPU time of the whole run on one engine, the median of several rounds, alternately; ``stretch`` is
the stretch alone.

    python jobs/bench/stretches.py --rows 512 --px 128 --bundle gz2-fast
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

import surveyproc
from surveyproc.catalog import CatalogWriter
from surveyproc.cutouts import ImageSpec
from surveyproc.images.stretches import STRETCHES, Stretch, find_stretch, stretched, stretched_spec
from surveyproc.models.bundle import open_bundle
from surveyproc.simulate.multiband import SURVEYS, draw_scenes, observed

SCENES = 20


def main() -> None:
    """Measure and print one line for each stretch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--px", type=int, default=128)
    parser.add_argument("--bundle", default="gz2-fast")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stretches", nargs="+", default=STRETCHES, choices=STRETCHES)
    args = parser.parse_args()
    print(f"{args.rows} cutouts of {args.px} x {args.px} px, {args.bundle}; CPU ms a cutout")
    print(f"{'stretch':18} {'stretch':>9} {'run on flux':>12} {'on bytes':>9} {'more':>7}")
    with tempfile.TemporaryDirectory(prefix="surveyproc-stretches-") as scratch:
        for name in args.stretches:
            alone, flux, shown = measure(Path(scratch, name), name, args)
            print(f"{name:18} {alone:>9.3f} {flux:>12.3f} {shown:>9.3f} {flux / shown - 1:>7.1%}")


def measure(folder: Path, name: str, args: argparse.Namespace) -> tuple[float, float, float]:
    """CPU ms a cutout of the stretch alone, of a run on flux and of a run on stretched pixels."""
    bands = ("g", "r", "z")
    stretch = find_stretch(name, {"bands": bands} if name == "asinh_percentile" else None)
    survey = replace(SURVEYS["euclid" if name == "gz_euclid" else "lsst"], pixels=args.px, dtype="float32")
    pixels = np.concatenate([p for p, _ in observed(draw_scenes(survey, SCENES), args.rows)])
    bytes_ = stretched(pixels, survey.image, stretch, np.full(args.rows, survey.pixel_arcsec))
    write(folder / "flux.cat", survey.image, pixels, survey.pixel_arcsec)
    write(folder / "bytes.cat", stretched_spec(survey.image, stretch), bytes_, survey.pixel_arcsec)
    bundle = with_stretch(folder / "bundle", args.bundle, stretch, stretch.channels(bands))
    spent: dict[str, list[float]] = {"flux": [], "bytes": []}
    settings = ["cluster=none", "cluster.actors=1", f"engine.shard_rows={args.rows}"]

    def run(kind: str) -> None:
        shutil.rmtree(folder / f"{kind}.run", ignore_errors=True)
        surveyproc.run(folder / f"{kind}.cat", folder / f"{kind}.run", [bundle], settings, force_domain=True)

    for _ in range(args.rounds):
        for kind, times in spent.items():
            times.append(cpu(partial(run, kind)))
    scales = np.full(args.rows, survey.pixel_arcsec)
    alone = [cpu(lambda: stretched(pixels, survey.image, stretch, scales)) for _ in range(args.rounds)]
    each = 1e3 / args.rows
    return tuple(statistics.median(t) * each for t in (alone, spent["flux"], spent["bytes"]))  # type: ignore[return-value]


def write(path: Path, image: ImageSpec, pixels: np.ndarray, scale: float) -> None:
    """Write a catalog of these pixels."""
    columns = {
        "object_id": pa.array(range(len(pixels))),
        "pixel_scale_arcsec": pa.array([scale] * len(pixels)),
    }
    schema = pa.schema([(name, column.type) for name, column in columns.items()])
    with CatalogWriter(path, image, schema) as writer:
        writer.write_pixels(pixels, columns)


def with_stretch(folder: Path, name: str, stretch: Stretch, bands: tuple[str, ...]) -> str:
    """Copy a bundle, with another stretch as its input."""
    bundle = open_bundle(name)
    shutil.copytree(bundle.uri, folder)
    contract = replace(
        bundle.contract,
        bands=bands,
        stretch=stretch.name,
        stretch_parameters=stretch.parameters,
        stretch_version=stretch.version,
    )
    record = bundle.record | {"input": contract.to_dict()}
    (folder / "model.json").write_text(json.dumps(record))
    return str(folder)


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
