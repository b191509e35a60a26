"""Joint values as a run's tables give them, and the figure that training watches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from surveyproc.images.views import D4_ORDER
from surveyproc.inference.components import mixture_components
from surveyproc.inference.symmetries import encode_views
from surveyproc.training.losses import joint_means, mean_fractions
from surveyproc.votes import VoteSchema


@torch.inference_mode()
def predict(
    model: Any, prepared: np.ndarray, schema: VoteSchema, views: int = D4_ORDER, batch: int = 256
) -> torch.Tensor:
    """Predict joint values on the model's device.

    Parameters
    ----------
    prepared : numpy.ndarray
        ``(N, C, size, size)`` float32, from `images.views.prepare`.

    Returns
    -------
    torch.Tensor
        ``(N, K)`` on the CPU: mean over the symmetries of the expected fractions, then made joint.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    found = [torch.empty(0, len(schema.columns))]
    for start in range(0, len(prepared), batch):
        images = torch.from_numpy(prepared[start : start + batch]).to(device)
        features = encode_views(model, images, views)
        found.append(joint_values(model, features, schema).cpu())
    return torch.cat(found)


def joint_values(model: Any, features: torch.Tensor, schema: VoteSchema) -> torch.Tensor:
    """Joint values ``(N, K)`` of features ``(V, N, D)``: the mean over the views of the expected fractions, made joint."""
    return joint_means(mean_fractions(mixture_components(model, features), schema).mean(0), schema)


def joint_rmse(predicted: torch.Tensor, joint: torch.Tensor) -> float:
    """One root over galaxies and answers."""
    return float((predicted.double() - joint.double()).square().mean().sqrt())
