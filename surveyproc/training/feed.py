"""Batches of canvases and targets on the device."""

from __future__ import annotations

import numpy as np
import torch

from surveyproc.training.examples import Examples
from surveyproc.training.losses import pseudo_counts
from surveyproc.training.objective import balance_weights
from surveyproc.training.recipe import Recipe
from surveyproc.votes import VoteSchema

RESIDENT = 0.4  # of the free memory of a GPU


class Feed:
    """Examples of one process; on a GPU the canvases live there when they leave room for the work.

    Parameters
    ----------
    examples : Examples
        Canvases ``(N, S, S, C)`` uint8 and targets.
    """

    def __init__(self, examples: Examples, schema: VoteSchema, recipe: Recipe, device: str) -> None:
        self._device = device
        self._canvases = torch.from_numpy(examples.pixels)
        if device != "cpu" and self._canvases.nbytes < RESIDENT * torch.cuda.mem_get_info()[0]:
            self._canvases = self._canvases.to(device)
        counts = examples.counts if examples.counts is not None else pseudo_counts(examples.joint, schema)
        weights = examples.weights
        if weights is None:
            balanced = recipe.balance == "inverse"
            joint = examples.joint.double().numpy()
            weights = torch.from_numpy(
                balance_weights(joint, schema) if balanced else np.ones(len(joint), np.float32)
            )
        self._targets = [t.to(device) for t in (examples.joint, counts, weights)]

    def batch(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Canvases ``(n, S, S, C)`` uint8, joint values, counts ``(n, K)`` and weights ``(n,)`` of some rows."""
        index = torch.from_numpy(rows)
        canvases = self._canvases[index.to(self._canvases.device)].to(self._device)
        joint, counts, weights = (t[index.to(self._device)] for t in self._targets)
        return canvases, joint, counts, weights
