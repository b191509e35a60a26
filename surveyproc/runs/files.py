"""Read a file of a run back and count what is in it, a few megabytes at a time."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.hats.checks import rows_outside
from surveyproc.identifiers import id_sum
from surveyproc.runs.accounts import NOTHING, Count
from surveyproc.runs.ledger import Part
from surveyproc.runs.manifest import columns_of
from surveyproc.storage import Storage

BLOCK_BYTES = 4 * 2**20
BATCH_ROWS = 65_536
READERS = max(4, len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Stated:
    """What must be found in a file; ``pixel`` and ``columns`` are None where nothing is said of them."""

    path: str
    part: Part
    pixel: tuple[int, int] | None = None
    columns: dict[str, str] | None = None


@dataclass(frozen=True)
class Found:
    """What was found: for each kind of check that failed why, and the rows and ids when they could be read.

    The kinds are ``present``, ``digest``, ``rows``, ``ids``, ``schema`` and ``pixel``.
    """

    problems: dict[str, str]
    count: Count | None = None


def stated_file(entry: dict[str, Any], columns: dict[str, str] | None = None) -> Stated:
    """Read the entry of a file in a manifest."""
    part = Part(entry["path"], entry["rows"], entry["bytes"], entry["sha256"], int(entry["id_sum"]))
    order_pixel = entry.get("pixel")
    return Stated(part.path, part, tuple(order_pixel) if order_pixel else None, columns)


def damage(storage: Storage, path: str, part: Part) -> dict[str, str]:
    """Compare the size and the digest of the file at ``path`` with those of ``part``; empty when they agree."""
    size = storage.size(path)
    if size is None:
        return {"present": f"{path} is missing"}
    if size != part.bytes:
        return {"present": f"{path} has {size} bytes, not {part.bytes}"}
    if digest_of(storage, path) == part.sha256:
        return {}
    return {"digest": f"{path} has other bytes than were written"}


def digest_of(storage: Storage, path: str) -> str:
    """Read a file and compute its sha256."""
    digest = hashlib.sha256()
    with storage.open(path) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def inspect(storage: Storage, stated: Stated) -> Found:
    """Check a file: size, digest, rows; of Parquet also ids, columns, and that every row is in its pixel."""
    problems = damage(storage, stated.path, stated.part)
    if problems:
        return Found(problems)
    try:
        with storage.open(stated.path) as raw:
            if stated.path.endswith(".faiss"):
                return _compare(stated, Count(_vectors(raw), 0), {})
            return _read(pq.ParquetFile(raw), stated)
    except (
        pa.ArrowException,
        OSError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        struct.error,
    ) as error:
        return Found({"rows": f"{stated.path} cannot be read ({error})"})


def _vectors(raw: IO[bytes]) -> int:
    """Read how many vectors FAISS says an index holds: after four letters and the dimension."""
    return int(struct.unpack("<4siq", raw.read(16))[2])


def _read(file: pq.ParquetFile, stated: Stated) -> Found:
    keys = ["object_id", *(["ra", "dec", "_healpix_29"] if stated.pixel else [])]
    count, outside = NOTHING, 0
    for batch in file.iter_batches(BATCH_ROWS, columns=keys, use_threads=False):
        count = count.plus(batch.num_rows, id_sum(batch.column("object_id").drop_null()))
        if stated.pixel:
            outside += _outside(batch, *stated.pixel)
    problems = {}
    if stated.columns is not None and list(columns_of(file.schema_arrow).items()) != list(
        stated.columns.items()
    ):
        problems["schema"] = f"{stated.path} has other columns"
    if outside:
        problems["pixel"] = f"{outside} rows of {stated.path} lie in another pixel"
    return _compare(stated, count, problems)


def _compare(stated: Stated, count: Count, problems: dict[str, str]) -> Found:
    if count.rows != stated.part.rows:
        problems["rows"] = f"{stated.path} has {count.rows} rows, not {stated.part.rows}"
    if count.id_sum != stated.part.id_sum:
        problems["ids"] = f"{stated.path} has other ids than were written"
    return Found(problems, count)


def _outside(batch: pa.RecordBatch, order: int, pixel: int) -> int:
    ra, dec, index = (batch.column(n).to_numpy(zero_copy_only=False) for n in ("ra", "dec", "_healpix_29"))
    return rows_outside(order, pixel, index, (ra, dec))
