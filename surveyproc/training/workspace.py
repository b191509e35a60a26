"""The folder of a training beside its bundle: settings, metrics, checkpoints."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from surveyproc.errors import ResourceError, UsageError
from surveyproc.training.checkpoint import (
    KEPT,
    checkpoint_name,
    checkpoints,
    read_state,
    read_tensors,
    write_state,
    write_tensors,
)
from surveyproc.training.recipe import NO_VALUES
from surveyproc.training.state import State

FORMAT = 1


class Workspace:
    """Files of one training: ``recipe.json``, ``metrics.jsonl``, TensorBoard events, checkpoints.

    Used as a context manager it is held by one process: a second one is refused.

    Parameters
    ----------
    folder : path
        Created on entry.
    say : callable
        Gets lines for people.
    """

    def __init__(self, folder: str | Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.folder, self.say = Path(folder), say
        self._lock: int | None = None
        self._board: Any = None

    @classmethod
    def of(cls, output: str | Path, say: Callable[[str], None] = lambda line: None) -> Workspace:
        """Folder of the training that makes the bundle ``output``: ``output.train`` beside it."""
        output = Path(output)
        return cls(output.with_name(f"{output.name}.train"), say)

    def __enter__(self) -> Workspace:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ResourceError(
                "another process is training here",
                where=str(self.folder),
                fix="wait for it, end it, or train into another --output",
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._board is not None:
            self._board.close()
        if self._lock is not None:
            os.close(self._lock)

    def clear(self) -> None:
        """Forget an earlier training."""
        for path in self.folder.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def begin(self, settings: dict[str, Any]) -> bool:
        """Claim the folder for these settings, or check that it was begun with them.

        Parameters
        ----------
        settings : dict
            Whatever shapes the training: recipe, input, identity of the data.

        Returns
        -------
        bool
            True when there is something to resume.

        Raises
        ------
        UsageError
            When the settings differ, with every difference.
        """
        path = self.folder / "recipe.json"
        settings = json.loads(json.dumps({"format": FORMAT, **settings}))
        if path.exists():
            before = json.loads(path.read_text())
            if found := differences(before, settings):
                raise UsageError(
                    "a training with other settings or data was begun here:\n    " + "\n    ".join(found),
                    where=str(path),
                    fix="repeat the settings to resume, pass another --output, or --overwrite to start anew",
                )
            return bool(checkpoints(self.folder))
        temporary = path.with_name(".recipe.json.tmp")
        temporary.write_text(json.dumps(settings, indent=1) + "\n")
        os.replace(temporary, path)
        return False

    def restore(self, state: State) -> None:
        """Put the latest checkpoint into a fresh state, and cut the metrics back to it."""
        found = checkpoints(self.folder)
        if found:
            read_state(found[-1], state)
            self.say(f"resuming after {state.images_seen} images ({found[-1].name})")
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        kept = [line for line in whole if json.loads(line)["images_seen"] <= state.images_seen]
        if len(kept) < len(lines):
            temporary = path.with_name(".metrics.jsonl.tmp")
            temporary.write_text("".join(kept))
            os.replace(temporary, path)
        self._board = _board(self.folder / "tensorboard", state.images_seen, self.say)

    def log(self, line: dict[str, float]) -> None:
        """Append one line of metrics; a name with a slash groups curves in TensorBoard."""
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.show(line)

    def show(self, line: dict[str, float]) -> None:
        """Add a line of metrics to TensorBoard's events."""
        if self._board is not None:
            for name, value in line.items():
                if name != "images_seen":
                    self._board.add_scalar(name, value, int(line["images_seen"]))

    def save(self, state: State) -> None:
        """Write a checkpoint; keep the last two, and the best weights."""
        write_state(self.folder / checkpoint_name(state.images_seen), state)
        self.prune(checkpoint_name(int(state.best["images_seen"]), "best") if state.best else "")

    def prune(self, best: str) -> None:
        """Delete all checkpoints but the last two, and all weights but the best."""
        for path in checkpoints(self.folder)[:-KEPT]:
            path.unlink()
        for path in checkpoints(self.folder, "best"):
            if path.name != best:
                path.unlink()

    def save_best(self, state: State) -> None:
        """Keep the averaged weights of this look beside the checkpoints."""
        write_tensors(self.folder / checkpoint_name(state.images_seen, "best"), state.ema, state.looks[-1])

    def best_weights(self, state: State) -> dict[str, torch.Tensor]:
        """Averaged weights of the best look."""
        if state.best is None:
            return state.ema
        return read_tensors(self.folder / checkpoint_name(int(state.best["images_seen"]), "best"))[0]


class Memory:
    """Stands in for a workspace where nothing is kept: notebooks and tests."""

    def __init__(self) -> None:
        self.lines: list[dict[str, float]] = []
        self._best: dict[str, torch.Tensor] | None = None

    def restore(self, state: State) -> None:
        """Nothing to resume."""

    def log(self, line: dict[str, float]) -> None:
        """Keep the line."""
        self.lines.append(line)

    def save(self, state: State) -> None:
        """Nothing to write."""

    def save_best(self, state: State) -> None:
        """Copy the averaged weights."""
        self._best = {k: v.clone() for k, v in state.ema.items()}

    def best_weights(self, state: State) -> dict[str, torch.Tensor]:
        """Averaged weights of the best look."""
        return self._best or state.ema


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """List the settings that differ, as ``key: there, here``."""
    old, new = _leaves(before), _leaves(now)
    return [
        f"{key}: {old.get(key, 'not set')} there, {new.get(key, 'not set')} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key.rpartition(".")[2] not in NO_VALUES
    ]


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix[:-1]: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _leaves(item, f"{prefix}{key}.")
    return found


def _board(folder: Path, images_seen: int, say: Callable[[str], None]) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        say("no TensorBoard events: tensorboardX is not installed; metrics.jsonl has all figures")
        return None
    return SummaryWriter(str(folder), purge_step=images_seen + 1 if images_seen else None, flush_secs=30)
