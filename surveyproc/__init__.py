"""Survey-scale galaxy morphology, clumps, embeddings and similarity search.

The command line verbs exist here as functions of the same name. They are loaded when first used, so
that ``import surveyproc`` stays cheap and needs neither torch nor ray.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_API = (
    "Run",
    "cone",
    "ingest",
    "ingest_tiles",
    "open",
    "publish",
    "repack",
    "repair",
    "run",
    "show",
    "similar",
    "sql",
    "verify",
)

__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(importlib.import_module("surveyproc.api"), name)
    raise AttributeError(f"module 'surveyproc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
