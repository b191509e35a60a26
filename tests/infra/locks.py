"""What infra/locks pins."""

from __future__ import annotations

import re
from functools import cache

from drive import REPOSITORY

LOCKS = REPOSITORY / "infra" / "locks"


@cache
def locked(name: str) -> dict[str, str]:
    """Package to version of ``infra/locks/<name>.lock``."""
    text = (LOCKS / f"{name}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==(\S+)", text, flags=re.MULTILINE))
