"""The second pass: a HEALPix pixel that several units feed, in the memory of one row group for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.storage import Storage

INDEX = "_healpix_29"


def merged_rows(work: Storage, parts: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """Join parts that are sorted by ``_healpix_29`` into tables of ``rows`` rows, the last one shorter.

    Of rows at one place those of the earlier part come first, so that the result follows from the parts alone.
    """
    with ExitStack() as stack:
        sorted_parts = [_SortedPart(stack.enter_context(work.open(path))) for path in parts]
        indexes = [part.index() for part in sorted_parts]
        owner = np.repeat(np.arange(len(parts)), [len(index) for index in indexes])
        owner = owner[np.argsort(np.concatenate(indexes), kind="stable")]
        for start in range(0, len(owner), rows):
            owners = owner[start : start + rows]
            counts = np.bincount(owners, minlength=len(parts))
            together = pa.concat_tables(
                [part.following(int(count)) for part, count in zip(sorted_parts, counts) if count]
            )
            places = np.empty(len(owners), np.int64)
            places[np.argsort(owners, kind="stable")] = np.arange(len(owners))
            yield together.take(pa.array(places))


class _SortedPart:
    """Gives the rows of a part one after the other, and holds one row group."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._file = pq.ParquetFile(raw)
        self._next_group = 0
        self._held = self._file.schema_arrow.empty_table()

    def index(self) -> np.ndarray:
        """Sort keys of all rows."""
        return self._file.read([INDEX], use_threads=False)[INDEX].to_numpy()

    def following(self, count: int) -> pa.Table:
        """Next ``count`` rows."""
        found = [self._held.slice(0, count)]
        missing = count - found[0].num_rows
        self._held = self._held.slice(count)
        while missing:
            group = self._file.read_row_group(self._next_group, use_threads=False)
            self._next_group += 1
            found.append(group.slice(0, missing))
            missing -= found[-1].num_rows
            self._held = group.slice(found[-1].num_rows)
        return pa.concat_tables(found)
