"""Parts of a pixel, sorted, become one sequence."""

import os
import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from surveyproc.ingest.merging import merged_rows
from surveyproc.storage import Storage


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_rows_come_in_sky_order_and_ties_in_the_order_of_the_parts(tmp_path, rows):
    rng = np.random.default_rng(3)
    expected, paths = [], []
    for part, (count, group) in enumerate([(40, 7), (1, 7), (55, 100), (23, 1)]):
        places = np.sort(rng.integers(0, 30, count))
        names = [f"{part}-{n}" for n in range(count)]
        table = pa.table({"_healpix_29": places, "name": names})
        pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=group)
        paths.append(f"{part}.parquet")
        expected += [(int(place), part, n) for n, place in enumerate(places)]
    tables = list(merged_rows(Storage(str(tmp_path)), paths, rows))
    assert [t.num_rows for t in tables[:-1]] == [rows] * (len(tables) - 1)
    found = pa.concat_tables(tables)
    assert found["name"].to_pylist() == [f"{part}-{n}" for _, part, n in sorted(expected)]
    assert found["_healpix_29"].to_pylist() == sorted(place for place, _, _ in expected)


def test_more_parts_than_a_process_may_open_files(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for part in range(80):
        pq.write_table(pa.table({"_healpix_29": [part, 200 - part]}), tmp_path / f"{part}.parquet")
    most = max(map(int, os.listdir("/proc/self/fd"))) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        tables = list(merged_rows(Storage(str(tmp_path)), [f"{part}.parquet" for part in range(80)], 7))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert pa.concat_tables(tables)["_healpix_29"].to_pylist() == [*range(80), *range(121, 201)]
