"""Find ids that occur twice, in bounded memory, by external hash buckets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from surveyproc.identifiers import hash_ids

ROWS_PER_BUCKET = 4_000_000
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
        Memory bound: 24 bytes for each row of one bucket.

    Returns
    -------
    dict of int to numpy.ndarray
        Shard number to the sorted positions of rows to drop.
    """
    buckets = max(1, -(-total_rows // rows_per_bucket))
    drops: list[np.ndarray] = []
    with tempfile.TemporaryDirectory(prefix="surveyproc-ids-") as scratch:
        files = [Path(scratch, f"{b}.bin").open("w+b") for b in range(buckets)]  # noqa: SIM115
        try:
            for shard, rows, ids in columns:
                entries = np.empty(len(ids), ENTRY)
                entries["hash"], entries["second"] = hash_ids(ids), hash_ids(ids, salt=b"second")
                entries["shard"], entries["row"] = shard, rows
                if buckets == 1:
                    files[0].write(entries.tobytes())
                    continue
                bucket = entries["hash"] % np.uint64(buckets)
                for b in range(buckets):
                    files[b].write(entries[bucket == b].tobytes())
            for file in files:
                file.seek(0)
                drops.append(_later_ones(np.frombuffer(file.read(), ENTRY)))
        finally:
            for file in files:
                file.close()
    found = np.concatenate(drops)
    return {int(s): np.sort(found["row"][found["shard"] == s]) for s in np.unique(found["shard"])}


def _later_ones(entries: np.ndarray) -> np.ndarray:
    entries = np.sort(entries, order=["hash", "second", "shard", "row"])
    same = (entries["hash"][1:] == entries["hash"][:-1]) & (entries["second"][1:] == entries["second"][:-1])
    return entries[1:][same]
