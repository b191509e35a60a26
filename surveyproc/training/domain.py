"""The domain reference of a bundle: what its training galaxies look like in embedding space."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from surveyproc.images.views import D4_ORDER
from surveyproc.inference.domain import directions_from, domain_distance
from surveyproc.inference.symmetries import encode_views

CENTROIDS = 64
PERCENTILES = 101


@torch.inference_mode()
def embed(model: Any, prepared: np.ndarray, views: int = D4_ORDER, batch: int = 256) -> torch.Tensor:
    """``(N, D)`` mean over the symmetries of the features of ``(N, C, size, size)`` pixels."""
    found = []
    for start in range(0, len(prepared), batch):
        images = torch.from_numpy(prepared[start : start + batch])
        found.append(encode_views(model, images, views).mean(0))
    return torch.cat(found)


def domain_reference(
    training: torch.Tensor, calibration: torch.Tensor, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Summarise the training set, and the distances that unseen galaxies of the same kind have to it.

    Parameters
    ----------
    training, calibration : torch.Tensor
        ``(N, D)`` embeddings of the two splits.

    Returns
    -------
    dict
        ``domain.centre`` ``(D,)`` mean of the training split, ``domain.centroids`` ``(M, D)`` L2-normalised k-means centres of the training split, and
        ``domain.quantiles`` ``(101,)`` distances of the calibration split at 0, 1, ..., 100 %. All are
        rounded to half precision first, as the bundle stores them.
    """
    from sklearn.cluster import KMeans

    count = min(CENTROIDS, len(training))
    centre = training.mean(0).half()
    directions = directions_from(centre, training)
    centres = KMeans(count, n_init=3, random_state=seed).fit(directions.numpy()).cluster_centers_
    centroids = functional.normalize(torch.from_numpy(centres).float(), dim=1).half()
    distances = domain_distance(calibration, centre, centroids)
    quantiles = torch.quantile(distances, torch.linspace(0, 1, PERCENTILES))
    return {"domain.centre": centre, "domain.centroids": centroids, "domain.quantiles": quantiles.half()}
