"""Find ids that occur twice, in bounded memory, by external hash buckets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from surveyproc.identifiers import hash_ids

ROWS_PER_BUCKET = 4_000_000
MOST_BUCKETS = 512  # files open at once
GATHER_ROWS = 1_000_000
ENTRY = np.dtype([("hash", "<u8"), ("second", "<u8"), ("shard", "<i4"), ("row", "<i4")])


def find_duplicates(
    columns: Iterable[tuple[int, np.ndarray, pa.Array]],
    total_rows: int,
    rows_per_bucket: int = ROWS_PER_BUCKET,
) -> dict[int, np.ndarray]:
    """Find the rows whose id was seen before in plan order.

    Parameters
    ----------
    columns : iterable of (int, numpy.ndarray, pyarrow.Array)
        Shard number, positions in the shard, ids.
    total_rows : int
        Rows to expect; decides the number of buckets.
    rows_per_bucket : int
        Memory bound: about 50 bytes for each row of one bucket, beside 24 bytes for each of `GATHER_ROWS`
        and 8 for each duplicate. It is exceeded where more than `MOST_BUCKETS` buckets would be needed.

    Returns
    -------
    dict of int to numpy.ndarray
        Shard number to the sorted positions of rows to drop.

    Notes
    -----
    24 bytes for each row are written to the temporary folder (``TMPDIR``).
    """
    buckets = min(MOST_BUCKETS, max(1, -(-total_rows // rows_per_bucket)))
    with tempfile.TemporaryDirectory(prefix="surveyproc-ids-") as scratch, ExitStack() as stack:
        files = [stack.enter_context(Path(scratch, f"{b}.bin").open("w+b")) for b in range(buckets)]
        for entries in _gathered(columns):
            _scatter(entries, files)
        found = []
        for file in files:
            file.seek(0)
            later = _later_ones(np.fromfile(file, ENTRY))
            found.append(later["shard"].astype(np.int64) << 32 | later["row"])
            file.truncate(0)
    places = np.sort(np.concatenate(found))
    shards, starts = np.unique(places >> 32, return_index=True)
    rows = (places & 0xFFFFFFFF).astype(np.int32)
    return {int(s): part for s, part in zip(shards, np.split(rows, starts[1:]))}


def _gathered(columns: Iterable[tuple[int, np.ndarray, pa.Array]]) -> Iterator[np.ndarray]:
    """Join the entries of small shards, so that few pieces are written to each bucket."""
    pieces: list[np.ndarray] = []
    held = 0
    for shard, rows, ids in columns:
        entries = np.empty(len(ids), ENTRY)
        entries["hash"], entries["second"] = hash_ids(ids), hash_ids(ids, salt=b"second")
        entries["shard"], entries["row"] = shard, rows
        pieces.append(entries)
        held += len(entries)
        if held >= GATHER_ROWS:
            yield np.concatenate(pieces)
            pieces, held = [], 0
    if pieces:
        yield np.concatenate(pieces)


def _scatter(entries: np.ndarray, files: Sequence[IO[bytes]]) -> None:
    bucket = (entries["hash"] % np.uint64(len(files))).astype(np.int16)
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(len(files) + 1))
    entries = entries[order]
    for file, start, stop in zip(files, ends[:-1], ends[1:]):
        file.write(entries[start:stop].tobytes())


def _later_ones(entries: np.ndarray) -> np.ndarray:
    """Entries that are equal to an earlier one; only those that share a hash are compared in full."""
    order = np.argsort(entries["hash"])
    hashes = entries["hash"][order]
    same = hashes[1:] == hashes[:-1]
    shared = np.zeros(len(entries), dtype=bool)
    shared[1:] |= same
    shared[:-1] |= same
    entries = np.sort(entries[order[shared]], order=["hash", "second", "shard", "row"])
    equal = (entries["hash"][1:] == entries["hash"][:-1]) & (entries["second"][1:] == entries["second"][:-1])
    return entries[1:][equal]
