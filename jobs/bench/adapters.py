"""Rate at which cutouts are read in the forms in which people store them, beside the fast layout.

Exponential discs on noise (see run.py) in each form, written with pyarrow's (or h5py's) usual settings, read
and decoded by one thread through the same functions that a run uses: CPU time, the best of several rounds, from
a warm cache. Flux is float32 of three bands, display images are uint8.

    python jobs/bench/adapters.py --rows 4000 --px 64
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from run import make_pixels

from surveyproc.catalog import CatalogWriter, Given, open_catalog, read_batches
from surveyproc.cutouts import ImageSpec
from surveyproc.images.decode import decode_batch

ROUNDS = 3
BATCH_ROWS = 256
FLUX = Given(bands=("g", "r", "z"), unit="nanomaggy")


def main() -> None:
    """Measure and print one line for each form."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--px", type=int, default=64)
    args = parser.parse_args()
    shown = make_pixels(args.px, args.rows)
    noise = np.random.default_rng(1).normal(size=shown.shape).astype(np.float32)
    flux = np.ascontiguousarray((shown.astype(np.float32) / 255 + noise / 50).transpose(0, 3, 1, 2))
    print(f"{args.rows} cutouts of {args.px} x {args.px} px, 3 bands; one thread")
    with tempfile.TemporaryDirectory(prefix="surveyproc-adapters-") as scratch:
        for name, (make, given) in forms(shown, flux).items():
            path = make(Path(scratch, name.replace(" ", "-")))
            rate = max(read(str(path), given) for _ in range(ROUNDS))
            size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) or path.stat().st_size
            print(f"{name:28} {rate:>10,.0f} rows/s {size / args.rows:>10,.0f} B a row")


Maker = Callable[[Path], Path]


def forms(shown: np.ndarray, flux: np.ndarray) -> dict[str, tuple[Maker, Given | None]]:
    """Functions that write each form, and what has to be said of it."""
    rows, axes = len(shown), shown.shape[1:]
    kind = pa.list_(pa.list_(pa.list_(pa.uint8())))
    pngs = [png(image) for image in shown]
    columns = {"object_id": pa.array(range(rows))}

    def parquet(image: pa.Array) -> Maker:
        def make(path: Path) -> Path:
            pq.write_table(pa.table({**columns, "image": image}), path, row_group_size=1000)
            return path

        return make

    def fast(pixels: np.ndarray, spec: ImageSpec) -> Maker:
        def make(path: Path) -> Path:
            with CatalogWriter(path, spec, pa.schema([("object_id", pa.int64())])) as writer:
                writer.write_pixels(pixels, columns)
            return path

        return make

    def hdf5(path: Path) -> Path:
        import h5py

        path = path.with_suffix(".h5")
        with h5py.File(path, "w") as file:
            file["images"], file["object_id"] = flux, np.arange(rows)
        return path

    display = ImageSpec("raw", axes, "uint8")
    sky = ImageSpec("raw", axes, "float32", "CHW", ("g", "r", "z"), "nanomaggy", 22.5, "none")
    flat = pa.FixedSizeListArray.from_arrays(pa.array(shown.reshape(-1)), shown[0].size)
    lists = pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * flux[0].size, flux.reshape(-1))
    return {
        "fast layout, display": (fast(shown, display), None),
        "png": (parquet(pa.array(pngs)), None),
        "png in a struct": (parquet(pa.array([{"bytes": p, "path": None} for p in pngs])), None),
        "nested lists, display": (parquet(pa.array(shown.tolist(), kind)), None),
        "fixed-size lists, display": (parquet(flat), Given(shape=axes)),
        "tensors, display": (parquet(pa.FixedShapeTensorArray.from_numpy_ndarray(shown)), None),
        "fast layout, flux": (
            fast(np.ascontiguousarray(flux.transpose(0, 2, 3, 1)), sky),
            None,
        ),
        "flat lists, flux": (
            parquet(lists),
            Given(shape=flux.shape[1:], bands=FLUX.bands, unit=FLUX.unit),
        ),
        "struct by band, flux": (parquet(universe(flux)), Given(unit=FLUX.unit)),
        "HDF5, flux": (hdf5, FLUX),
    }


def universe(flux: np.ndarray) -> pa.Array:
    """The image struct of the Multimodal Universe, flux and inverse variance of each band."""
    kind = pa.list_(pa.list_(pa.list_(pa.float32())))
    planes = pa.array(flux.tolist(), kind)
    rows = len(flux)
    names = pa.array([["DES-G", "DES-R", "DES-Z"]] * rows)
    scale = pa.array([[0.262] * 3] * rows)
    return pa.StructArray.from_arrays([names, planes, planes, scale], ["band", "flux", "ivar", "scale"])


def png(image: np.ndarray) -> bytes:
    """Encode one image."""
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "png")
    return sink.getvalue()


def read(uri: str, given: Given | None) -> float:
    """Read and decode all rows; returns rows per second of CPU time, which other work on the machine does not touch."""
    catalog = open_catalog(uri, given)
    rows, started = 0, time.process_time()
    for file in catalog.files:
        groups = range(len(file.row_groups))
        for batch in read_batches(uri, file.path, groups, BATCH_ROWS, ["image"], form=catalog.form):
            pixels, failures = decode_batch(batch["image"], catalog.image)
            rows += len(pixels) - len(failures)
    return rows / (time.process_time() - started)


if __name__ == "__main__":
    main()
