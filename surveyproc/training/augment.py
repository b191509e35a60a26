"""Random views of galaxies that have no up: rotation, mirror, zoom and shift, on a whole batch at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

OVERSAMPLE = 2
# Random numbers of a view: angle, mirror, zoom, two shifts; then brightness and one for each band.
GEOMETRY = 5
CHUNK = 2  # images at once on a CPU: their canvases stay in its cache


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
    chosen: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sample one view of each canvas, on the canvases' device.

    Parameters
    ----------
    canvases : torch.Tensor
        ``(N, C, S, S)``, floats or uint8, with ``OVERSAMPLE`` canvas pixels to a view pixel: sampled bilinearly
        at that density and averaged down, so that a random view is as sharp as `images.views.prepare`'s.
    size : int
        Side of the views; the unrotated, unshifted view is the canvas's centre.
    drawn : torch.Tensor
        From `draw`, one row for each canvas.
    generator : torch.Generator
        Of the noise, on the CPU.
    chosen : torch.Tensor, optional
        Row numbers of the N canvases among those given; all of them when left out.

    Returns
    -------
    torch.Tensor
        ``(N, C, size, size)`` float32; uint8 canvases give [0, 1].
    """
    chosen = torch.arange(len(canvases), device=canvases.device) if chosen is None else chosen
    count, side = len(chosen), canvases.shape[-1]
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
    chunk = CHUNK if canvases.device.type == "cpu" else count
    parts = zip(chosen.split(chunk), torch.stack(rows, dim=1).split(chunk))
    views = torch.cat([_sample(_floats(canvases, some), how, size * OVERSAMPLE) for some, how in parts])
    if canvases.dtype == torch.uint8:
        views = views / 255.0
    if augmentation.brightness or augmentation.colour:
        by_band = (drawn[:, GEOMETRY + 1 :] * 2.0 - 1.0) * augmentation.colour
        views = (
            views * torch.exp(uniform(GEOMETRY, augmentation.brightness)[:, None] + by_band)[..., None, None]
        )
    if augmentation.noise:
        noise = torch.randn(views.shape, generator=generator)
        views = views + augmentation.noise * noise.to(views.device, non_blocking=True)
    return views


def _sample(canvases: torch.Tensor, transforms: torch.Tensor, side: int) -> torch.Tensor:
    """Views of ``side`` pixels, averaged down.

    `torch.nn.functional.affine_grid` and `avg_pool2d` give the same and take several times as long on a CPU.
    """
    places = (torch.arange(side, device=canvases.device) * 2.0 + 1.0) / side - 1.0
    grid = torch.empty(len(canvases), side, side, 2, device=canvases.device)
    for axis in (0, 1):
        x, y, shift = transforms[:, axis].unbind(1)
        across, down = x[:, None] * places + shift[:, None], y[:, None] * places
        torch.add(across[:, None, :], down[:, :, None], out=grid[..., axis])
    fine = functional.grid_sample(canvases, grid, padding_mode="reflection", align_corners=False)
    for axis in (-2, -1):
        fine = sum(fine.unflatten(axis, (-1, OVERSAMPLE)).unbind(axis))
    return fine / OVERSAMPLE**2


def _floats(canvases: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Some of the canvases as float32; on a CPU without a copy of them as they are."""
    if canvases.device.type != "cpu":
        return canvases[chosen].float()
    count, bands, height, width = len(chosen), *canvases.shape[1:]
    found = torch.empty(count, height, width, bands).permute(0, 3, 1, 2)
    for place, row in enumerate(chosen.tolist()):
        found[place].copy_(canvases[row])
    return found
