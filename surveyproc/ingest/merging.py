"""The second pass: a HEALPix pixel that several units feed, in the memory of one partition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.storage import Storage
from surveyproc.threads import map_ahead

READ_THREADS = 4


def merged_rows(work: Storage, parts: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """Join parts that are sorted by ``_healpix_29`` into tables of ``rows`` rows, the last one shorter.

    Of rows at one place those of the earlier part come first, so that the result follows from the parts alone.
    """

    def read(path: str) -> pa.Table:
        with work.open(path) as raw:
            return pq.read_table(raw, use_threads=False)

    whole = pa.concat_tables(map_ahead(read, parts, READ_THREADS))
    order = np.argsort(whole["_healpix_29"].to_numpy(), kind="stable")
    for start in range(0, len(order), rows):
        yield whole.take(pa.array(order[start : start + rows]))
