"""The domain reference of a bundle: what its training galaxies look like in embedding space."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from surveyproc.images.views import D4_ORDER
from surveyproc.inference.symmetries import encode_views

CENTROIDS = 64
PERCENTILES = 101


@torch.inference_mode()
def embed(model: Any, prepared: np.ndarray, views: int = D4_ORDER, batch: int = 256) -> torch.Tensor:
    """``(N, D)`` L2-normalised mean over the symmetries of the features of ``(N, C, size, size)`` pixels."""
    found = []
    for start in range(0, len(prepared), batch):
        images = torch.from_numpy(prepared[start : start + batch])
        found.append(encode_views(model, images, views).mean(0))
    return functional.normalize(torch.cat(found), dim=1)


def cosine_distance(embeddings: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """``(N,)`` distance to the nearest centroid: ``1 - max cosine``; both sides L2-normalised."""
    return 1.0 - (embeddings @ centroids.T).max(dim=1).values


def domain_reference(
    training: torch.Tensor, calibration: torch.Tensor, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Summarise the training set, and the distances that unseen galaxies of the same kind have to it.

    Parameters
    ----------
    training, calibration : torch.Tensor
        ``(N, D)`` L2-normalised embeddings of the two splits.

    Returns
    -------
    dict
        ``domain.centroids`` ``(M, D)`` L2-normalised k-means centres of the training split, and
        ``domain.quantiles`` ``(101,)`` distances of the calibration split at 0, 1, ..., 100 %. Both are
        rounded to half precision first, as the bundle stores them.
    """
    from sklearn.cluster import KMeans

    count = min(CENTROIDS, len(training))
    centres = KMeans(count, n_init=3, random_state=seed).fit(training.numpy()).cluster_centers_
    centroids = functional.normalize(torch.from_numpy(centres).float(), dim=1).half()
    rounded = functional.normalize(centroids.float(), dim=1)
    distances = cosine_distance(calibration, rounded)
    quantiles = torch.quantile(distances, torch.linspace(0, 1, PERCENTILES))
    return {"domain.centroids": centroids, "domain.quantiles": quantiles.half()}
