"""Astropy without its warnings: what matters of them is checked here, and users cannot act on the rest."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings for a moment; by one thread at a time, as Python keeps one set of filters for all."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
