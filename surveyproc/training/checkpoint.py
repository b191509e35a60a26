"""Checkpoints: one safetensors file each, the counters as JSON in its header; nothing is ever unpickled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from surveyproc.errors import InputError
from surveyproc.storage import sync_folder
from surveyproc.training.state import COUNTERS, State

SUFFIX = ".safetensors"
KEPT = 2


def write_state(path: Path, state: State) -> None:
    """Write everything that a resumed training needs, whole or not at all."""
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.items()}
    for index, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": v for k, v in moments.items()}
    write_tensors(path, tensors, {name: getattr(state, name) for name in COUNTERS})


def read_state(path: Path, state: State) -> None:
    """Put a checkpoint into a state that was built from the same recipe.

    Raises
    ------
    InputError
        When the file is damaged.
    """
    tensors, counters = read_tensors(path)
    parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "ema": {}, "optimiser": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    state.model.load_state_dict(parts["model"])
    for name, tensor in parts["ema"].items():
        state.ema[name].copy_(tensor)
    moments: dict[int, dict[str, torch.Tensor]] = {}
    weights = [p for group in state.optimiser.param_groups for p in group["params"]]
    for name, tensor in parts["optimiser"].items():
        index, _, rest = name.partition(".")
        if tensor.shape == weights[int(index)].shape:
            # The fused optimiser goes through memory: moments must be laid out as their weights are.
            tensor = torch.empty_like(weights[int(index)], device="cpu").copy_(tensor)
        moments.setdefault(int(index), {})[rest] = tensor
    groups = state.optimiser.state_dict()["param_groups"]
    state.optimiser.load_state_dict({"state": moments, "param_groups": groups})
    for name in COUNTERS:
        setattr(state, name, counters[name])


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], counters: dict[str, Any]) -> None:
    """Write tensors and JSON values under a temporary name, flush them to the disk, then give the name."""
    temporary = path.with_name(f".{path.name}.tmp")
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with temporary.open("wb") as file:
        file.write(save(plain, {"counters": json.dumps(counters)}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises
    ------
    InputError
        When the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            counters = json.loads(file.metadata()["counters"])
            return {name: file.get_tensor(name) for name in file.keys()}, counters  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the checkpoint cannot be read: {error}",
            where=str(path),
            fix="delete it to resume from the one before, or start anew with --overwrite",
        ) from error


def checkpoints(folder: Path, kind: str = "checkpoint") -> list[Path]:
    """Files of one kind, the earliest first."""
    return sorted(folder.glob(f"{kind}-*{SUFFIX}"))


def checkpoint_name(images_seen: int, kind: str = "checkpoint") -> str:
    """Name that sorts by the images seen."""
    return f"{kind}-{images_seen:012d}{SUFFIX}"
