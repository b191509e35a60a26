"""How far an embedding is from a bundle's training galaxies."""

from __future__ import annotations

import torch
from torch.nn import functional


def directions_from(centre: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """``(N, D)`` L2-normalised differences to the ``(D,)`` mean of the training galaxies.

    Features that are never negative all point one way: without the difference even noise is close to everything.
    """
    return functional.normalize(embeddings.float() - centre.float(), dim=1)


def domain_distance(embeddings: torch.Tensor, centre: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """``(N,)`` distance to the nearest of ``(M, D)`` centroids of training directions: ``1 - max cosine``."""
    nearest = directions_from(centre, embeddings) @ functional.normalize(centroids.float(), dim=1).T
    return 1.0 - nearest.amax(dim=1)
