"""Cutana's worker processes, which write Zarr: file, sources, output, size, repeats."""

import glob
import os
import sys

import pandas as pd
from cutana import Orchestrator
from cutana_common import config_of, sources_of
from measured import report


def cut() -> int:
    """Run the workers; returns the rows of what they wrote."""
    os.makedirs(output)
    sources_of(tile, path, size).to_csv(config.source_catalogue, index=False)
    Orchestrator(config).run()
    found = glob.glob(f"{output}/**/images_metadata.parquet", recursive=True)
    return sum(len(pd.read_parquet(name)) for name in found)


if __name__ == "__main__":
    tile, path, output, size, repeats = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
    config = config_of(output, size)
    config.source_catalogue = os.path.join(output, "sources.csv")
    config.max_workers = os.cpu_count()
    report(cut, repeats, output)
