"""Batches of canvases and targets on the device."""

from __future__ import annotations

import numpy as np
import torch

from surveyproc.training.augment import Augmentation, views_of
from surveyproc.training.examples import Examples
from surveyproc.training.losses import check_targets
from surveyproc.votes import VoteSchema, pseudo_counts

RESIDENT = 0.4  # of the free memory of a GPU


class Feed:
    """Examples of one process; on a GPU the canvases live there when they leave room for the work.

    Parameters
    ----------
    examples : Examples
        Canvases ``(N, S, S, C)`` uint8 and targets.

    Raises
    ------
    InputError
        When a target is not a number or out of range.
    """

    def __init__(self, examples: Examples, schema: VoteSchema, device: str) -> None:
        given = None if examples.counts is None else examples.counts.numpy()
        check_targets(examples.joint.numpy(), given, schema)
        joint = examples.joint.double().numpy()
        counts = examples.counts
        if counts is None:
            counts = torch.from_numpy(pseudo_counts(joint, schema)).float()
        known = torch.from_numpy(schema.known(joint)[:, schema.question_of]).float()
        self._targets = [t.to(device) for t in (examples.joint, counts, known)]
        self._device = device
        self._canvases = torch.from_numpy(examples.pixels)
        if device != "cpu" and self._canvases.nbytes < RESIDENT * torch.cuda.mem_get_info()[0]:
            self._canvases = self._canvases.to(device)

    def views(
        self,
        rows: np.ndarray,
        size: int,
        augmentation: Augmentation,
        drawn: torch.Tensor,
        noise: torch.Generator,
    ) -> torch.Tensor:
        """Random views ``(n, C, size, size)`` of some rows, on the device; see `training.augment.views_of`."""
        chosen, canvases = torch.from_numpy(rows), self._canvases
        if canvases.device.type == self._device:
            chosen = chosen.to(canvases.device)
        else:
            canvases, chosen = canvases[chosen].to(self._device), torch.arange(len(rows), device=self._device)
        return views_of(canvases.permute(0, 3, 1, 2), size, augmentation, drawn, noise, chosen)

    def targets(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``(n, K)`` joint values, counts, and 1 where known of some rows."""
        index = torch.from_numpy(rows).to(self._device)
        joint, counts, known = (t[index] for t in self._targets)
        return joint, counts, known
