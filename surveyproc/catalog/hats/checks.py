"""Check that a HATS catalog holds what it says: others' validators look neither at rows nor at their number."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa

from surveyproc.catalog.hats.catalog import HatsCatalog, Partition
from surveyproc.catalog.hats.layout import FOLDER_SUFFIX, STANDARD_LEAF
from surveyproc.catalog.sky import ORDER, healpix29, parent_pixel
from surveyproc.catalog.storage import is_data_file
from surveyproc.errors import InputError
from surveyproc.threads import map_ahead

READERS = 4


def rows_outside(
    order: int,
    pixel: int,
    index: np.ndarray | None,
    position: tuple[np.ndarray, np.ndarray] | None,
    at: int = ORDER,
) -> int:
    """Count rows whose index or position is not in a pixel; readers such as LSDB would not find them.

    Parameters
    ----------
    order, pixel : int
    index : numpy.ndarray, shape (N,), optional
        Nested HEALPix indices at order ``at``.
    position : tuple of numpy.ndarray, optional
        Right ascension and declination in degrees. They are compared at the pixel's order: rounding in the
        last bits of order 29 may differ between machines.
    at : int
        Order of ``index``.
    """
    outside = np.zeros(1, bool)
    if index is not None:
        outside = outside | (np.asarray(index, np.int64) >> (2 * (at - order)) != pixel)
    if position is not None:
        outside = outside | (parent_pixel(np.ma.filled(healpix29(*position), -1), order) != pixel)
    return int(np.count_nonzero(outside))


def catalog_problems(catalog: HatsCatalog) -> Iterator[str]:
    """Say what is wrong with a catalog; nothing when all is well.

    Every leaf is read, a few columns in batches: rows that lie in another pixel (of a margin: in their own),
    leaves that are missing, unreadable or not listed, partitions that overlap, a number of rows that is not
    the stated one.

    Yields
    ------
    str
    """
    end, last = 0, None
    for partition in catalog.partitions:
        low, high = partition.range29
        if low < end:
            yield f"{_name(partition)} overlaps {_name(last)}"
        end, last = max(end, high), partition
    total = 0
    for rows, problems in map_ahead(partial(_read, catalog), catalog.partitions, READERS):
        total += rows
        yield from problems
    yield from _unlisted(catalog)
    if catalog.kind == "index":
        total = catalog.count_rows()
    if catalog.rows is not None and catalog.rows != total:
        yield f"the catalog has {total} rows, but hats_nrows says {catalog.rows}"


def _read(catalog: HatsCatalog, partition: Partition) -> tuple[int, list[str]]:
    """Count the rows of a partition, and say what is wrong with it."""
    position, index = catalog.position_columns, catalog.healpix_column
    wanted = [*(position or ()), *(index[:1] if index else ())]
    margin = catalog.kind == "margin"
    try:
        rows = catalog.count_rows(partition)
        outside = 0
        for batch in catalog.batches(wanted, [partition]) if wanted else ():
            outside += rows_outside(
                partition.order,
                partition.pixel,
                _numbers(batch, index[0]) if index and not (margin and position) else None,
                (_numbers(batch, position[0]), _numbers(batch, position[1])) if position else None,
                index[1] if index else ORDER,
            )
    except InputError as error:
        return 0, [f"{_name(partition)}: {error.what} ({error.where})"]
    if margin and outside != rows:
        return rows, [f"{rows - outside} rows of the margin of {_name(partition)} lie in that pixel itself"]
    if outside and not margin:
        return rows, [f"{outside} rows of {_name(partition)} lie in another pixel"]
    return rows, []


def _numbers(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return batch.column(name).to_numpy(zero_copy_only=False)


def _unlisted(catalog: HatsCatalog) -> Iterator[str]:
    if catalog.leaf != STANDARD_LEAF or catalog.kind == "index":
        return
    listed = set(catalog.leaf_names)
    for name in catalog.storage.walk("dataset"):
        leaf = name.rsplit("/", 1)[0] if catalog.suffix == FOLDER_SUFFIX else name
        if is_data_file(name) and leaf not in listed:
            yield f"{name} is not listed in partition_info.csv"


def _name(partition: Partition | None) -> str:
    return f"pixel {partition.pixel} of order {partition.order}" if partition else ""
