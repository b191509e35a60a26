"""Trainings that differ in a few settings, numbered, compared on the validation split alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TABLE = "sweep.json"


@dataclass(frozen=True)
class Member:
    """One training of a sweep.

    Attributes
    ----------
    name : str
        ``000``, ``001``, ...: its bundle's folder in the sweep's, its workspace is ``000.train``.
    settings : list of str
        The overrides that make it.
    validation_rmse : float or None
        Of the weights that would ship; None before its training ends.
    """

    name: str
    settings: list[str]
    validation_rmse: float | None = None
    images_seen: int = 0
    seconds: float = 0.0


def run_sweep(
    folder: Path, members: Sequence[list[str]], train: Callable[[Path, list[str]], dict[str, Any]]
) -> list[Member]:
    """Train every member in turn; the table ``sweep.json`` grows as they end.

    No figure of the test split is made: one is chosen by validation first.

    Parameters
    ----------
    members : sequence of list of str
        Overrides of each.
    train : callable
        Trains into an output with some overrides, or resumes, and returns the log (`training.loop.train`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    width = max(3, len(str(len(members) - 1)))
    found = [Member(f"{n:0{width}d}", settings) for n, settings in enumerate(members)]
    for number, member in enumerate(found):
        log = train(folder / member.name, member.settings)
        figure = shipped_figure(log)
        found[number] = Member(member.name, member.settings, figure, log["images_seen"], log["seconds"])
        temporary = folder / f".{TABLE}.tmp"
        temporary.write_text(json.dumps([asdict(m) for m in found], indent=1) + "\n")
        os.replace(temporary, folder / TABLE)
    return found


def shipped_figure(log: dict[str, Any]) -> float:
    """Validation RMSE of the weights that would ship."""
    recipe = log["recipe"]
    best = recipe["keep"] == "best" or recipe["patience"] > 0
    return float(log["best"]["rmse"] if best else log["validation"][-1]["rmse"])


def best_of(members: Sequence[Member]) -> Member:
    """The member with the lowest validation RMSE."""
    return min(members, key=lambda m: float("inf") if m.validation_rmse is None else m.validation_rmse)
