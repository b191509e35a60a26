"""What several verbs share."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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


def names(text: str) -> tuple[str, ...]:
    """Split a list of names with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def add_leaf(parser: argparse.ArgumentParser) -> None:
    """Declare where the leaves of a HATS catalog are."""
    parser.add_argument(
        "--leaf",
        metavar="PATTERN",
        help="path of the leaves in a HATS catalog that keeps them elsewhere than the standard says, for instance "
        "'parquet/{order}_{pixel}.parquet'",
    )


def leaf_of(args: argparse.Namespace) -> str:
    """The pattern that was given, or the standard's."""
    from surveyproc.catalog.hats.layout import STANDARD_LEAF

    return args.leaf or STANDARD_LEAF


def own_command() -> list[str]:
    """Words of this command, fit to be given again: without secrets, and without beginning anew."""
    from surveyproc.stores import without_secrets

    return ["surveyproc", *(word for word in without_secrets(sys.argv[1:]) if word != "--overwrite")]


@contextmanager
def resumable() -> Iterator[None]:
    """Where the block is interrupted, say how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\ninterrupted; resume with:\n  {shlex.join(own_command())}", file=sys.stderr)
        raise


def outcome_lines(report: Any, came_in: str, made: str) -> list[str]:
    """Tell of the rows of an ingest or a repack: how many of what came in became what, and why others did not."""
    rejects = sum(report.rejects.values())
    counts = f"{report.rows_in:,} {came_in} = {report.rows_out:,} cutouts + {rejects:,} rejects"
    if report.nothing_to_do:
        lines = [f"{report.output} is finished: nothing to do ({counts})"]
    else:
        rate = report.rows_out / max(report.seconds, 1e-9)
        lines = [f"{counts} in {report.seconds:.1f} s ({rate:,.0f} {made}/s)"]
    lines += [f"  {count:>9,} {reason}" for reason, count in report.rejects.items()]
    return [*lines, f"  each is listed in {report.output}/rejects.parquet"] if rejects else lines
