"""The first step of a repack, in the driver: units, partitions of the sky, and ids that come twice."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.config.repack import UnitsConfig
from surveyproc.errors import InputError
from surveyproc.ingest.partitions import Histogram, choose_partitions
from surveyproc.ingest.plan import PARTITIONS
from surveyproc.ingest.repack import Source
from surveyproc.ingest.repack.source import HEALPIX
from surveyproc.runs.duplicates import find_duplicates
from surveyproc.runs.making import Making
from surveyproc.runs.plan import PLAN, Plan, Shard, load_plan, store_plan
from surveyproc.steps import step
from surveyproc.storage import Storage
from surveyproc.threads import map_ahead

MB = 2**20
REPEATED = "_repeated.parquet"
THREADS = 4


def planned(making: Making, source: Source, sizes: UnitsConfig) -> Plan:
    """Read the plan of a repack, or make it from the ids and positions alone.

    Raises
    ------
    InputError
        When there are positions, and none is on the sky; the folder is left as it was then.
    """
    if making.work.exists(PLAN):
        return load_plan(making.work)
    shards = list(source.shards(max(1, int(sizes.unit_mb * MB) // source.spec.nbytes)))
    on_sky = HEALPIX in source.columns.names
    histogram = Histogram()
    repeated = find_duplicates(_ids(source, shards, histogram if on_sky else None), source.rows)
    if on_sky:
        if not len(histogram.pixels):
            making.give_up()
            raise InputError(
                "no row has a position on the sky",
                where=making.catalog.uri,
                fix="check --ra and --dec (decimal degrees, ICRS)",
            )
        most = max(1, int(sizes.partition_mb * MB) // source.spec.nbytes)
        partitions = choose_partitions(histogram, most)
        table = pa.table({"order": partitions.order, "pixel": partitions.pixel})
        making.work.create(PARTITIONS, _parquet(table))
    making.work.create(REPEATED, _parquet(_repeated_table(repeated)))
    store_plan(making.work, shards)
    step("repack.planned")
    return load_plan(making.work)


def load_repeated(work: Storage) -> dict[int, np.ndarray]:
    """Positions of the rows of each unit whose id came before."""
    table = pq.read_table(io.BytesIO(work.read(REPEATED)))
    shards, rows = table["shard"].to_numpy(), table["row"].to_numpy()
    numbers, starts = np.unique(shards, return_index=True)
    return {int(n): part for n, part in zip(numbers, np.split(rows, starts[1:]))}


def _ids(
    source: Source, shards: list[Shard], histogram: Histogram | None
) -> Iterator[tuple[int, np.ndarray, pa.Array]]:
    for shard, keys in zip(shards, map_ahead(source.keys, shards, THREADS)):
        if histogram is not None:
            histogram.add(keys[HEALPIX].drop_null().to_numpy())
        ids = keys["object_id"].combine_chunks()
        known = np.flatnonzero(ids.is_valid().to_numpy(zero_copy_only=False))
        yield shard.shard, known.astype(np.int32), ids.drop_null()


def _repeated_table(repeated: dict[int, np.ndarray]) -> pa.Table:
    shards = [np.full(len(rows), shard, np.int32) for shard, rows in repeated.items()]
    columns = [np.concatenate([np.empty(0, np.int32), *parts]) for parts in (shards, repeated.values())]
    return pa.table(dict(zip(("shard", "row"), columns)))


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
