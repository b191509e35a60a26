"""What several verbs share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from surveyproc.errors import UsageError

_SETTING = re.compile(r"^[+~]{0,2}[A-Za-z_][\w./@]*=")


def require(args: argparse.Namespace, *names: str) -> None:
    """Refuse when flags are missing; all of them are named at once.

    Raises
    ------
    UsageError
    """
    missing = [f"--{n.replace('_', '-')}" for n in names if getattr(args, n) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be given", fix="see --help for examples")


def split_overrides(
    words: Sequence[str] | None, overrides: Sequence[str]
) -> tuple[list[str] | None, list[str]]:
    """Separate the values of a list flag from settings that argparse took along with them."""
    values = [w for w in words or [] if not _SETTING.match(w)]
    settings = [w for w in words or [] if _SETTING.match(w)]
    return values or None, [*settings, *overrides]
