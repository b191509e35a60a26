"""Cutouts that are poison to the model: a mark in the pixels, and what ``SURVEYPROC_POISON`` says it does.

Threads of this process are poisoned by the fixture `poison`, forks by the step hook, and fresh processes
(children, Ray's workers) by ``poison_site/sitecustomize.py``.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import resource
import signal
import sys
from functools import wraps
from pathlib import Path

import numpy as np

DEED, FILE = "SURVEYPROC_POISON", "SURVEYPROC_POISON_FILE"
MARK = [7, 77, 177, 9, 99, 199]
MODEL, TASK = "surveyproc.inference.passes", "surveyproc.distributed.task"
TERABYTE = 2**40
DECODER_DEEDS = ("decode", "swell")


def mark(pixels: np.ndarray, rows: list[int]) -> np.ndarray:
    """Put the mark into some cutouts."""
    pixels = pixels.copy()
    for row in rows:
        pixels[row, 0, : len(MARK), 0] = MARK
    return pixels


def marked(pixels: np.ndarray) -> int:
    """How many of the cutouts have the mark."""
    return int((pixels[:, 0, : len(MARK), 0] == MARK).all(axis=1).sum())


def in_a_child() -> bool:
    return getattr(sys.modules["__main__"], "__spec__", None) is not None and (
        sys.modules["__main__"].__spec__.name == "surveyproc.distributed.child"
    )


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def act(pixels: np.ndarray) -> None:
    """Do to this process what the environment says, if the cutouts are such."""
    deed, hit = os.environ[DEED], marked(pixels)
    if deed == "always" or (deed == "each" and pixels.any()):
        raise RuntimeError("no kernel image\nis available")
    if deed == "child":
        if in_a_child():
            os.kill(os.getpid(), signal.SIGKILL)
    elif not hit:
        return
    elif deed == "raise":
        raise ValueError(f"degenerate ellipse\nin one of {len(pixels)}")
    elif deed == "once":
        if not Path(os.environ[FILE]).exists():
            Path(os.environ[FILE]).touch()
            raise OSError("a passing trouble")
    elif deed == "exit":
        os._exit(7)
    elif deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "family":
        if in_a_child():
            os.kill(parent_of(os.getppid()), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "eat":
        import torch

        resource.setrlimit(resource.RLIMIT_AS, (TERABYTE // 2, resource.getrlimit(resource.RLIMIT_AS)[1]))
        torch.empty(TERABYTE, dtype=torch.uint8)


def poisoned_model(call):
    """Wrap `EncoderPass.__call__`."""

    @wraps(call)
    def poisoned(self, batch, *rest):
        act(batch.cpu().numpy())
        return call(self, batch, *rest)

    return poisoned


def poisoned_decoder(decode_batch):
    """Wrap `decode_batch`: what the mark does happens in the decoder."""

    @wraps(decode_batch)
    def poisoned(column, spec):
        pixels, failures = decode_batch(column, spec)
        if marked(pixels):
            if os.environ[DEED] == "swell":
                raise MemoryError("too large a picture")
            os.kill(os.getpid(), signal.SIGSEGV)
        return pixels, failures

    return poisoned


def poison(module) -> None:
    """Poison a module of the program, once."""
    if hasattr(module, "poisoned"):
        return
    module.poisoned = True
    if os.environ[DEED] in DECODER_DEEDS:
        if module.__name__ == TASK:
            module.decode_batch = poisoned_decoder(module.decode_batch)
    elif module.__name__ == MODEL:
        module.EncoderPass.__call__ = poisoned_model(module.EncoderPass.__call__)


def hook(name: str, subject: str) -> None:
    """Step hook: poison the modules this process was forked with; ``vanish`` dies here, for no row's fault."""
    if (os.environ[DEED], name, subject) == ("vanish", "attempt.predicted", "shard-0000000"):
        os.kill(os.getpid(), signal.SIGKILL)
    poison(sys.modules[MODEL])
    poison(sys.modules[TASK])


class Finder(importlib.abc.MetaPathFinder):
    """Poisons the modules as they are imported."""

    def find_spec(self, name, path, target=None):
        if name not in (MODEL, TASK):
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            poison(module)

        spec.loader.exec_module = exec_module
        return spec
