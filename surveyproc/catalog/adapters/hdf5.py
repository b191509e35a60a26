"""HDF5 files with a data set of cutouts and data sets of columns beside it, as Galaxy10 and ssl-legacysurvey have.

Data sets at the root count: those of three or four axes hold cutouts, those of one or two axes and the same length
are columns. What is in groups, or of another length, is left alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pyarrow as pa

from surveyproc.catalog.adapters.recognise import AXES
from surveyproc.catalog.files import CatalogFile, RowGroups
from surveyproc.catalog.storage import HDF5_SUFFIXES, Location, stat
from surveyproc.errors import InputError, ResourceError
from surveyproc.stores import explain_store_errors, is_local

GROUP_BYTES = 16 << 20
# Chunks that cross batches are unpacked once; h5py itself keeps 1 MiB of them.
CACHE_BYTES, CACHE_SLOTS = 64 << 20, 10_007
# Galaxy10's name of the pixel scale in arcsec.
RENAMED = {"pxscale": "pixel_scale_arcsec"}


def is_hdf5(name: str) -> bool:
    """Whether a file is HDF5 by its name."""
    return name.lower().endswith(HDF5_SUFFIXES)


def read_hdf5_footer(location: Location, name: str) -> tuple[CatalogFile, pa.Schema]:
    """Say what an HDF5 file holds; its row groups are whole chunks of about 16 MiB of pixels.

    Raises
    ------
    InputError
        When it is no HDF5 file, or has no cutouts.
    """
    path = location.path(name)
    size, version = stat(location.filesystem, path)
    with _opened(location.filesystem, path) as file:
        images, columns = _datasets(file, path)
        first = next(iter(images.values()))
        rows, row_bytes = len(first), math.prod(first.shape[1:]) * first.dtype.itemsize
        chunk = first.chunks[0] if first.chunks else 1
        step = max(1, round(GROUP_BYTES / max(1, row_bytes) / chunk)) * chunk
        fields = [_field(column, dataset) for column, dataset in columns.items()]
        fields += [_image_field(column, dataset) for column, dataset in images.items()]
    counts = [min(step, rows - start) for start in range(0, rows, step)]
    groups = RowGroups.of((count, count * row_bytes) for count in counts)
    return CatalogFile(name, size, version, rows, groups), pa.schema(fields)


def read_hdf5_batches(
    filesystem: Any, path: str, groups: Sequence[int] | None, batch_rows: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Stream columns of an HDF5 file; ``groups`` are those of `read_hdf5_footer`, None for all rows.

    Cutouts come as fixed-size lists.
    """
    located = Location(filesystem, path.rpartition("/")[0])
    footer, schema = read_hdf5_footer(located, path.rpartition("/")[2])
    ends = np.cumsum([0, *(group.rows for group in footer.row_groups)])
    with _opened(filesystem, path) as file:
        images, others = _datasets(file, path)
        datasets = {**images, **others}
        spans = [(0, int(ends[-1]))] if groups is None else [(int(ends[g]), int(ends[g + 1])) for g in groups]
        for low, high in spans:
            for start in range(low, high, batch_rows):
                rows = slice(start, min(start + batch_rows, high))
                arrays = [_array(datasets[name], rows, schema.field(name), path) for name in columns]
                yield pa.record_batch(arrays, names=list(columns))


@contextmanager
def _opened(filesystem: Any, path: str) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise ResourceError(
            "HDF5 files need the package h5py", where=path, fix="install it: pip install h5py"
        ) from error
    local = is_local(filesystem)
    with nullcontext() if local else explain_store_errors(path):
        source: Any = path if local else filesystem.open(path, "rb", block_size=1 << 20)
        try:
            file = h5py.File(source, "r", rdcc_nbytes=CACHE_BYTES, rdcc_nslots=CACHE_SLOTS, rdcc_w0=1)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InputError(
                f"not a readable HDF5 file: {str(error).splitlines()[0]}",
                where=path,
                fix="remove it or write it again; a truncated copy looks like this",
            ) from error
        try:
            with file:
                yield file
        finally:
            if source is not path:
                source.close()


def _datasets(file: Any, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Data sets of cutouts and of columns, by the names they are read by."""
    found = {name: item for name, item in file.items() if hasattr(item, "shape") and item.shape}
    images = {n: d for n, d in found.items() if len(d.shape) in (3, 4) and d.dtype.kind in "uif"}
    if not images:
        names = ", ".join(f"{n} {d.shape}" for n, d in list(found.items())[:10]) or "none"
        raise InputError(
            "no cutouts in the HDF5 file: no data set at its root has three or four axes of numbers",
            where=f"{path}; data sets: {names}",
            fix="give a file such as Galaxy10 or ssl-legacysurvey has: `images` (N, H, W, C) or (N, C, H, W)",
        )
    rows = len(max(images.values(), key=lambda dataset: dataset.size))
    images = {name: dataset for name, dataset in images.items() if len(dataset) == rows}
    columns = {n: d for n, d in found.items() if len(d.shape) < 3 and len(d) == rows and _type(d) is not None}
    return images, {RENAMED.get(name, name): dataset for name, dataset in columns.items()}


def _type(dataset: Any) -> pa.DataType | None:
    kind = dataset.dtype
    if kind.kind in "OS":
        import h5py

        text = h5py.check_string_dtype(kind) is not None and len(dataset.shape) == 1
        return pa.string() if text else None
    if kind.kind not in "uifb":
        return None
    number = pa.from_numpy_dtype(kind.newbyteorder("="))
    return number if len(dataset.shape) == 1 else pa.list_(number, dataset.shape[1])


def _field(name: str, dataset: Any) -> pa.Field:
    return pa.field(name, _type(dataset))


def _image_field(name: str, dataset: Any) -> pa.Field:
    axes = dataset.shape[1:]
    number = pa.from_numpy_dtype(dataset.dtype.newbyteorder("="))
    metadata = {AXES: json.dumps(list(axes)).encode()}
    return pa.field(name, pa.list_(number, math.prod(axes)), metadata=metadata)


def _array(dataset: Any, rows: slice, field: pa.Field, path: str) -> pa.Array:
    if pa.types.is_string(field.type):
        try:
            return pa.array(dataset.asstr("utf-8")[rows].tolist(), pa.string())
        except UnicodeDecodeError as error:
            raise InputError(
                f"data set {field.name!r} has text that is not UTF-8, between rows {rows.start} and {rows.stop - 1}",
                where=path,
                fix="write it again as UTF-8 (in h5py: dtype=h5py.string_dtype())",
            ) from error
    values = dataset[rows]
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if pa.types.is_fixed_size_list(field.type):
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), field.type.list_size)
    return pa.array(values)
