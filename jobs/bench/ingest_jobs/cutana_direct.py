"""Cutana's in-process path, which returns arrays; they are written as they are: file, sources, output, size, repeats."""

import os
import sys

import numpy as np
from cutana import create_cutouts_direct
from cutana_common import config_of, sources_of
from measured import report

tile, path, output, size, repeats = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
config, sources = config_of(output, size), sources_of(tile, path, size)


def cut() -> int:
    """Cut all sources."""
    done = create_cutouts_direct(sources, config, log_set_progress=False)
    stacks = [batch["cutouts"] for batch in done]
    wrong = [s for s in stacks if s.shape[1:] != (size, size, 1) or str(s.dtype) != "float32"]
    if wrong:
        raise SystemExit(f"{wrong[0].shape} {wrong[0].dtype}")
    os.makedirs(output)
    for number, stack in enumerate(stacks):
        np.save(os.path.join(output, f"{number}.npy"), stack)
    return sum(map(len, stacks))


report(cut, repeats, output)
