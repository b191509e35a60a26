"""Named steps of the work, so that tests can stop a process exactly there.

Every place where dying would leave another state behind calls `step`. It does nothing unless the
environment names a hook, ``SURVEYPROC_STEP_HOOK=package.module:function``, which is then called with
the step's name and its subject (a shard, a file).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import cache

HOOK = "SURVEYPROC_STEP_HOOK"


def step(name: str, subject: str = "") -> None:
    """Tell the hook, if there is one, that the work has reached a step."""
    if HOOK in os.environ:
        _hook(os.environ[HOOK])(name, subject)


@cache
def _hook(path: str) -> Callable[[str, str], None]:
    module, function = path.split(":")
    return getattr(importlib.import_module(module), function)
