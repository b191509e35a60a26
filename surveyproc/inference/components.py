"""The components of a predicted mixture: every view, dropout draw and member through the head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from surveyproc.inference.posterior import keyed_dropout


def mixture_components(
    model: Any, features: torch.Tensor, keys: np.ndarray | None = None, draws: int = 1
) -> torch.Tensor:
    """Repeat only the head of a model: the encoder has made the features of each view once.

    Parameters
    ----------
    model : Model
        Its head gives ``(n, K)``, or ``(n, M, K)`` for M members of an ensemble.
    features : torch.Tensor
        ``(V, N, D)`` of V views.
    keys : numpy.ndarray, optional
        ``(N,)`` uint64 hashes of the ids, which the dropout draws follow from.
    draws : int
        Dropout draws T; with 1, or without dropout in the model, features are taken whole.

    Returns
    -------
    torch.Tensor
        ``(V x T x M, N, K)`` float32.
    """
    rows, size = features.shape[1:]
    if keys is not None and draws > 1 and model.dropout > 0:
        masks = keyed_dropout(keys, draws, size, model.dropout).to(features.device)
        features = features.unsqueeze(1) * masks
    outputs = model.head(features.reshape(-1, size)).float()
    outputs = outputs.reshape(-1, rows, *outputs.shape[1:])
    return outputs if outputs.ndim == 3 else outputs.movedim(2, 1).flatten(0, 1)
