"""Ingest a folder of images with its table: one row in, one cutout or one reject out."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from surveyproc.catalog.sky import usable_positions
from surveyproc.catalog.writer import CatalogWriter, require_writable_output
from surveyproc.errors import InputError, UsageError
from surveyproc.images.decode import BadImage
from surveyproc.ingest.files import index_images
from surveyproc.ingest.loading import COUNTS, RESIZE_METHOD, FluxUnit, Loader, plan_loading
from surveyproc.ingest.matching import match_images, reject_orphans
from surveyproc.ingest.report import IngestReport, Rejects, write_sidecars
from surveyproc.ingest.table import read_objects
from surveyproc.progress import Progress
from surveyproc.stores import local_copy

_CHUNK_ROWS = 64
_CHUNK_BYTES = 8 << 20
_MAX_WORKERS = 8
_NOT_OF_PIXELS = ("malformed_row", "missing_id", "duplicate_id", "missing_image", "image_without_row")


def ingest_images(
    images: str | Path,
    table: str | Path,
    id_column: str,
    output: str | Path,
    *,
    ra_column: str | None = None,
    dec_column: str | None = None,
    decode: bool = False,
    size: int | None = None,
    carry: Sequence[str] = (),
    bands: Sequence[str] | None = None,
    unit: str | None = None,
    zeropoints: Mapping[str, float] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> IngestReport:
    """Make a cutout catalog of a folder of images and a table.

    The image of an object is ``<images>/<id>.<jpg|jpeg|png|fits|fits.gz>``, in the folder or one level
    below. Every image is decoded in full, also when its bytes are kept. Rows are written in table
    order, the same for any number of workers.

    Parameters
    ----------
    images, table : path
        Folder; CSV, Parquet or FITS table.
    id_column : str
        Column of the ids.
    output : path
        Catalog to create.
    ra_column, dec_column : str, optional
        Columns of the positions in degrees, ICRS. They become ``ra`` and ``dec``; null where they are
        missing or not on the sky.
    decode : bool
        Store raw pixels instead of JPEG or PNG bytes. FITS images are always raw float32.
    size : int, optional
        With ``decode``: resize square images to this many pixels with PIL's LANCZOS filter, antialiased.
    carry : sequence of str
        Other columns of the table to keep.
    bands : sequence of str, optional
        Names of the channels; ``R, G, B`` for colour JPEG and PNG.
    unit : str, optional
        Flux unit that FITS pixels are brought to: ``nJy`` (default), ``nanomaggy``, ``uJy`` ...; ``counts`` keeps
        them as they are.
    zeropoints : mapping of str to float, optional
        AB magnitude of one unit of the FITS images by band; of other bands the headers say it (BUNIT, MAGZERO ...).
    workers : int, optional
        Threads; one per core by default.
    progress : Progress, optional
        Told of rows done and rejects.
    command : str
        Recorded in ``catalog.json``.

    Returns
    -------
    IngestReport
        Counts that add up.

    Raises
    ------
    InputError, UsageError
        When nothing can be written; a bad row only becomes a reject.

    Examples
    --------
    >>> ingest_images("images", "labels.csv", "GalaxyID", "gz.cat").rows_out  # doctest: +SKIP
    4057
    """
    started = time.monotonic()
    require_writable_output(output)
    with local_copy(str(table)) as path:
        objects = read_objects(path, id_column, ra_column, dec_column, list(carry))
    folder = index_images(images)
    rejects = Rejects()
    for row, text in objects.malformed:
        rejects.add(
            None, "malformed_row", f"row {row} of the table has a wrong number of fields: {text[:200]}"
        )
    rows, paths = match_images(objects, folder.images, rejects)
    orphans = reject_orphans(objects, folder.images, rejects)
    if not rows:
        ids = [str(i) for i in objects.columns["object_id"].slice(0, 3).to_pylist()]
        raise InputError(
            "no row of the table has an image",
            where=f"ids such as {', '.join(ids)}; images such as {', '.join(list(folder.images)[:3])}",
            fix="images are named after the id: <id>.jpg; check --id and --images",
        )
    loader = plan_loading(
        paths,
        decode=decode,
        size=size,
        bands=tuple(bands) if bands else None,
        flux=_flux_unit(unit, zeropoints or {}),
    )
    columns, positions_missing = _positions_on_sky(objects.columns)
    with CatalogWriter(output, loader.spec, columns.schema) as writer:
        written = _write_rows(writer, loader, columns, rows, paths, rejects, workers, progress)
        rows_in = columns.num_rows + len(objects.malformed)
        if not written:
            reasons = ", ".join(f"{count} {reason}" for reason, count in rejects.by_reason().items())
            raise InputError(
                f"no image could be used: {reasons}",
                where=f"first: {next(f'{i}: {d}' for i, r, d in rejects.rows if r not in _NOT_OF_PIXELS)}",
                fix="see what the first of them is",
            )
        if rows_in + orphans != len(written) + len(rejects.rows):
            raise RuntimeError(
                f"{rows_in} rows and {orphans} images in, {len(written)} and {len(rejects.rows)} out"
            )
        missing = None if positions_missing is None else int(positions_missing[written].sum())
        report = IngestReport(
            output=str(output),
            rows_in=rows_in,
            images_without_row=orphans,
            rows_out=len(written),
            rejects=rejects.by_reason(),
            positions_missing=missing,
            other_files=folder.others,
            image=loader.spec,
        )
        source = {
            "images": str(images),
            "table": str(table),
            "id": id_column,
            "ra": ra_column,
            "dec": dec_column,
        }
        flux = {"zeropoints": dict(zeropoints)} if zeropoints else {}
        resize = {"size": size, "resize": RESIZE_METHOD} if size else {}
        write_sidecars(writer.folder, rejects, report, source | resize | flux, command)
    size_on_disk = sum(writer.output.size(name) or 0 for name in writer.output.walk())
    return dataclasses.replace(report, bytes=size_on_disk, seconds=round(time.monotonic() - started, 3))


def _flux_unit(unit: str | None, zeropoints: Mapping[str, float]) -> FluxUnit | None:
    """What is said of the unit of FITS images; None when nothing is."""
    if unit == COUNTS and zeropoints:
        raise UsageError(
            "--unit counts keeps pixels as they are, --zeropoint makes them flux", fix="leave one of them out"
        )
    if unit == COUNTS:
        return FluxUnit(COUNTS, as_they_are=True)
    return FluxUnit(unit or FluxUnit.unit, zeropoints) if unit or zeropoints else None


def _positions_on_sky(columns: pa.Table) -> tuple[pa.Table, np.ndarray | None]:
    """Null the positions that are not on the sky; say which rows have none."""
    if "ra" not in columns.column_names:
        return columns, None
    ra, dec = (columns[name].combine_chunks() for name in ("ra", "dec"))
    good = usable_positions(ra.to_numpy(zero_copy_only=False), dec.to_numpy(zero_copy_only=False))
    nothing = pa.scalar(None, pa.float64())
    for name, values in (("ra", ra), ("dec", dec)):
        unit = pa.field(name, pa.float64(), metadata={"unit": "deg", "description": f"{name} (ICRS)"})
        columns = columns.set_column(
            columns.column_names.index(name), unit, pc.if_else(good, values, nothing)
        )
    return columns, ~good


def _write_rows(
    writer: CatalogWriter,
    loader: Loader,
    columns: pa.Table,
    rows: list[int],
    paths: list[str],
    rejects: Rejects,
    workers: int | None,
    progress: Progress | None,
) -> list[int]:
    """Load the images in order, write the good ones and reject the others; returns the table rows written."""
    step = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // loader.spec.nbytes))
    starts = range(0, len(rows), step)
    chunks = (paths[start : start + step] for start in starts)
    written: list[int] = []
    done = 0
    for start, loaded in zip(starts, _in_order(loader, chunks, workers or default_workers())):
        good = [row for row, value in zip(rows[start : start + step], loaded) if isinstance(value, bytes)]
        for row, value in zip(rows[start : start + step], loaded):
            if isinstance(value, BadImage):
                rejects.add(
                    columns["object_id"][row].as_py(), value.reason, value.detail + _advice(value, loader)
                )
        values = [value for value in loaded if isinstance(value, bytes)]
        if good:
            image = pa.array(values, writer.schema.field("image").type)
            writer.write(columns.take(good).append_column("image", [image]))
        written += good
        done += len(loaded)
        if progress is not None:
            progress.rejects = len(rejects.rows)
            progress.set(done, len(rows))
    return written


def default_workers() -> int:
    """Threads to decode with: the cores this process may use, 8 at most."""
    return min(
        _MAX_WORKERS,
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


def _in_order(loader: Loader, chunks: Iterable[list[str]], workers: int) -> Iterator[list[bytes | BadImage]]:
    """Load chunks with threads (decoding releases the GIL); a few are in flight, results come in order."""
    chunks = iter(chunks)
    pool = ThreadPoolExecutor(workers)
    try:
        flying: deque[Future[list[bytes | BadImage]]] = deque(
            pool.submit(_load_chunk, loader, chunk) for chunk in itertools.islice(chunks, workers + 2)
        )
        while flying:
            loaded = flying.popleft().result()
            for chunk in itertools.islice(chunks, 1):
                flying.append(pool.submit(_load_chunk, loader, chunk))
            yield loaded
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _load_chunk(loader: Loader, paths: list[str]) -> list[bytes | BadImage]:
    loaded: list[bytes | BadImage] = []
    for path in paths:
        try:
            loaded.append(loader.load(path))
        except BadImage as error:
            loaded.append(error)
    return loaded


def _advice(error: BadImage, loader: Loader) -> str:
    if error.reason == "wrong_shape" and loader.size is None and loader.spec.dtype == "uint8":
        return "; --decode --size N brings square images to one size"
    return ""
