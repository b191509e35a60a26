"""The cutting alone, batch by batch in memory: pattern, sources, (output), size, repeats."""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measured import report

from surveyproc.catalog.sky import healpix29
from surveyproc.ingest.tiles import CutSettings, cut_tile, find_tiles, read_layout

pattern, path, _, size, repeats = sys.argv[1:]
settings = CutSettings(("VIS",), int(size))
tile = find_tiles(read_layout(pattern, ("VIS",)))[0]
sources = pq.read_table(path, columns=["object_id", "ra", "dec"])
order = np.argsort(healpix29(sources["ra"].to_numpy(), sources["dec"].to_numpy()).data)
sources = sources.take(pa.array(order))
report(lambda: sum(batch.rows.num_rows for batch in cut_tile(tile, sources, settings)), int(repeats))
