"""Random views of galaxies that have no up: rotation, mirror, zoom and shift, on a whole batch at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

OVERSAMPLE = 2


@dataclass(frozen=True)
class Augmentation:
    """How far random views stray.

    Attributes
    ----------
    zoom : float
        Largest factor of magnification or shrinking; log-uniform.
    shift : float
        Largest shift on each axis as a fraction of the view's side.
    rotate : bool
        Rotate by any angle and mirror half of the views.
    """

    zoom: float = 1.1
    shift: float = 0.03
    rotate: bool = True


def random_views(
    canvases: torch.Tensor, size: int, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Sample one random view of each canvas.

    Parameters
    ----------
    canvases : torch.Tensor
        ``(N, C, S, S)`` float32 with ``OVERSAMPLE`` canvas pixels to a view pixel: sampled bilinearly at
        that density and averaged down, so that a random view is as sharp as `images.views.prepare`'s.
    size : int
        Side of the views; the unrotated, unshifted view is the canvas's centre.
    generator : torch.Generator
        The only source of randomness.

    Returns
    -------
    torch.Tensor
        ``(N, C, size, size)``.
    """
    count, side = len(canvases), canvases.shape[-1]

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    angle = uniform(0.0, 2.0 * math.pi) if augmentation.rotate else torch.zeros(count)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0) if augmentation.rotate else torch.ones(count)
    limit = math.log(augmentation.zoom)
    extent = size * OVERSAMPLE / side * torch.exp(uniform(-limit, limit))
    cos, sin = extent * torch.cos(angle), extent * torch.sin(angle)
    reach = augmentation.shift * size * OVERSAMPLE / side * 2.0
    rows = [
        torch.stack([mirror * cos, -sin, uniform(-reach, reach)], dim=1),
        torch.stack([mirror * sin, cos, uniform(-reach, reach)], dim=1),
    ]
    shape = [count, canvases.shape[1], size * OVERSAMPLE, size * OVERSAMPLE]
    grid = functional.affine_grid(torch.stack(rows, dim=1), shape, align_corners=False)
    sampled = functional.grid_sample(canvases, grid, padding_mode="reflection", align_corners=False)
    return functional.avg_pool2d(sampled, OVERSAMPLE)
