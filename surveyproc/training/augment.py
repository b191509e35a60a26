"""Random views of galaxies that have no up: rotation, mirror, zoom and shift, on a whole batch at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

OVERSAMPLE = 2
GEOMETRY = (
    5  # random numbers of a view: angle, mirror, zoom, two shifts; then brightness and one for each band
)


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
    brightness, colour : float
        Largest natural logarithm of a random factor on all bands together, and on each band by itself.
    noise : float
        Standard deviation of Gaussian noise, on the scale of the pixels.
    """

    zoom: float = 1.1
    shift: float = 0.03
    rotate: bool = True
    brightness: float = 0.0
    colour: float = 0.0
    noise: float = 0.0


def draw(count: int, bands: int, generator: torch.Generator) -> torch.Tensor:
    """``(count, GEOMETRY + 1 + bands)`` uniform random numbers: all that makes one view differ from another."""
    return torch.rand(count, GEOMETRY + 1 + bands, generator=generator)


def random_views(
    canvases: torch.Tensor, size: int, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Draw and apply: one random view of each canvas; see `views_of`."""
    drawn = draw(len(canvases), canvases.shape[1], generator)
    return views_of(canvases, size, augmentation, drawn, generator)


def views_of(
    canvases: torch.Tensor,
    size: int,
    augmentation: Augmentation,
    drawn: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Sample one view of each canvas, on the canvases' device.

    Parameters
    ----------
    canvases : torch.Tensor
        ``(N, C, S, S)`` float32 with ``OVERSAMPLE`` canvas pixels to a view pixel: sampled bilinearly at
        that density and averaged down, so that a random view is as sharp as `images.views.prepare`'s.
    size : int
        Side of the views; the unrotated, unshifted view is the canvas's centre.
    drawn : torch.Tensor
        From `draw`, one row for each canvas.
    generator : torch.Generator
        Of the noise, on the CPU.

    Returns
    -------
    torch.Tensor
        ``(N, C, size, size)``.
    """
    count, side = len(canvases), canvases.shape[-1]
    drawn = drawn.to(canvases.device, non_blocking=True)

    def uniform(column: int, reach: float) -> torch.Tensor:
        return (drawn[:, column] * 2.0 - 1.0) * reach

    still = torch.zeros(count, device=canvases.device)
    angle = uniform(0, math.pi) if augmentation.rotate else still
    mirror = torch.where(drawn[:, 1] < 0.5, -1.0, 1.0) if augmentation.rotate else still + 1.0
    extent = size * OVERSAMPLE / side * torch.exp(uniform(2, math.log(augmentation.zoom)))
    cos, sin = extent * torch.cos(angle), extent * torch.sin(angle)
    reach = augmentation.shift * size * OVERSAMPLE / side * 2.0
    rows = [
        torch.stack([mirror * cos, -sin, uniform(3, reach)], dim=1),
        torch.stack([mirror * sin, cos, uniform(4, reach)], dim=1),
    ]
    shape = [count, canvases.shape[1], size * OVERSAMPLE, size * OVERSAMPLE]
    grid = functional.affine_grid(torch.stack(rows, dim=1), shape, align_corners=False)
    sampled = functional.grid_sample(canvases, grid, padding_mode="reflection", align_corners=False)
    views = functional.avg_pool2d(sampled, OVERSAMPLE)
    if augmentation.brightness or augmentation.colour:
        by_band = (drawn[:, GEOMETRY + 1 :] * 2.0 - 1.0) * augmentation.colour
        views = (
            views * torch.exp(uniform(GEOMETRY, augmentation.brightness)[:, None] + by_band)[..., None, None]
        )
    if augmentation.noise:
        noise = torch.randn(views.shape, generator=generator)
        views = views + augmentation.noise * noise.to(views.device, non_blocking=True)
    return views
