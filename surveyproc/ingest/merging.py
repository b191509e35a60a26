"""The second pass: a HEALPix pixel that several units feed, in the memory of one row group for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.storage import Storage

INDEX = "_healpix_29"


def merged_rows(work: Storage, parts: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """Join parts that are sorted by ``_healpix_29`` into tables of ``rows`` rows, the last one shorter.

    Of rows at one place those of the earlier part come first, so that the result follows from the parts alone.
    """
    sorted_parts = [_SortedPart(work, path) for path in parts]
    indexes = [part.index for part in sorted_parts]
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
    """Gives the rows of a part one after the other, and holds one row group.

    The file is open only while a row group is read: a pixel may have more parts than a process may open files, and
    an open Parquet file keeps the pages that it read last.

    Attributes
    ----------
    index : numpy.ndarray
        Sort keys of all rows.
    """

    def __init__(self, work: Storage, path: str) -> None:
        self._work, self._path = work, path
        with work.open(path) as raw, pq.ParquetFile(raw) as file:
            self._metadata, schema = file.metadata, file.schema_arrow
            self.index = file.read([INDEX], use_threads=False)[INDEX].to_numpy()
        self._next_group = 0
        self._nothing = self._held = schema.empty_table()

    def following(self, count: int) -> pa.Table:
        """Next ``count`` rows."""
        found = [self._held.slice(0, count)]
        missing = count - found[0].num_rows
        self._keep(self._held.slice(count))
        while missing:
            group = self._group()
            found.append(group.slice(0, missing))
            missing -= found[-1].num_rows
            self._keep(group.slice(found[-1].num_rows))
        return pa.concat_tables(found)

    def _keep(self, rest: pa.Table) -> None:
        self._held = (
            rest if rest.num_rows else self._nothing
        )  # an empty slice would keep the memory of its group

    def _group(self) -> pa.Table:
        with self._work.open(self._path) as raw, pq.ParquetFile(raw, metadata=self._metadata) as file:
            self._next_group += 1
            return file.read_row_group(self._next_group - 1, use_threads=False)
