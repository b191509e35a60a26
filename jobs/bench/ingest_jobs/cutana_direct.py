"""Cutana's in-process path, which returns arrays; they are written as they are: file, sources, output, size."""

import os
import sys

import numpy as np
from cutana import create_cutouts_direct
from cutana_common import config_of, sources_of
from measured import report

tile, path, output, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
config, sources = config_of(output, size), sources_of(tile, path, size)


def cut(count: int) -> int:
    """Cut the first sources."""
    done = create_cutouts_direct(sources.head(count), config, log_set_progress=False)
    stacks = [batch["cutouts"] for batch in done]
    wrong = [s for s in stacks if s.shape[1:] != (size, size, 1) or str(s.dtype) != "float32"]
    if wrong:
        raise SystemExit(f"{wrong[0].shape} {wrong[0].dtype}")
    for number, stack in enumerate(stacks):
        np.save(os.path.join(output, f"{number}.npy"), stack)
    return sum(map(len, stacks))


os.makedirs(output)
cut(1)
report(lambda: cut(len(sources)))
