"""The rotation-invariant network of Dieleman, Willett and Dambre (2015, MNRAS 450, 1441), arXiv:1503.07077."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from surveyproc.errors import InputError
from surveyproc.models.encoders import build_encoder, embedding_size
from surveyproc.models.morphology import Morphology

PARTS = 16
POOL = 2
PAPER_CONVOLUTIONS = ((32, 6, True), (64, 5, True), (128, 3, False), (128, 3, True))


def smallest_input(view: int) -> int:
    """Return the smallest input side from which a view turned by 45 degrees has no empty corner.

    Its parity is the view's, so that both have one centre: 99 px for views of 69 px.
    """
    needed = math.ceil((view - 1) * math.sqrt(2)) + 1
    return needed + (needed - view) % 2


def make_views(images: torch.Tensor, view: int) -> list[torch.Tensor]:
    """Cut the centre upright and turned by 45 degrees anticlockwise, and mirror both.

    Parameters
    ----------
    images : torch.Tensor
        ``(N, C, S, S)``, float32.
    view : int
        Side of the views in pixels, on the scale of the input.

    Returns
    -------
    list of torch.Tensor
        Four of ``(N, C, view, view)``: upright, its mirror image, turned, its mirror image.

    Raises
    ------
    InputError
        When S is less than `smallest_input`, or one of S and ``view`` is even and the other odd.
    """
    height, width = images.shape[-2:]
    if height != width or width < smallest_input(view) or (width - view) % 2:
        raise InputError(
            f"views of {view} px cannot be cut from an input of {width} x {height} px",
            fix=f"use an input size of {smallest_input(view)} px, or more by an even number",
        )
    margin = (width - view) // 2
    upright = images[..., margin : margin + view, margin : margin + view]
    step = view / width * math.sqrt(0.5)
    turn = images.new_tensor([[step, -step, 0.0], [step, step, 0.0]]).expand(len(images), 2, 3)
    grid = functional.affine_grid(turn, [*images.shape[:2], view, view], align_corners=False)
    turned = functional.grid_sample(images, grid, mode="bilinear", align_corners=False)
    return [upright, upright.flip(-1), turned, turned.flip(-1)]


def make_parts(images: torch.Tensor, view: int, part: int) -> torch.Tensor:
    """Cut the four overlapping corners of each view, turned so that the galaxy's centre is at the lower right.

    Parameters
    ----------
    images : torch.Tensor
        ``(N, C, S, S)``, float32.
    view, part : int
        Sides in pixels.

    Returns
    -------
    torch.Tensor
        ``(16 N, C, part, part)``, the N images of one part after the other.
    """
    corners = [
        torch.rot90(one, quarter, (-2, -1))[..., :part, :part]
        for one in make_views(images, view)
        for quarter in range(4)
    ]
    return torch.cat(corners)


def part_orders(views: int) -> torch.Tensor:
    """Which parts of an image are those of its symmetries.

    Turning or mirroring an image permutes its parts: with the quarter turn R, the mirror M and the turn by
    45 degrees T, ``T R = R T``, ``M R = R^-1 M`` and ``T M = R M T``.

    Returns
    -------
    torch.Tensor
        ``(views, 16)``: part ``[k, p]`` of the image is part p of symmetry k (``k % 4`` quarter turns, mirrored
        first from 4 on), up to interpolation.
    """
    orders = []
    for k in range(views):
        turns, mirrored = k % 4, k >= 4
        # View after view: upright, its mirror image, turned, its mirror image.
        sources = (1, 0, 3, 2) if mirrored else (0, 1, 2, 3)
        shifts = (turns, -turns, turns + mirrored, -turns - mirrored)
        orders.append(
            [
                4 * source + (quarter + shift) % 4
                for source, shift in zip(sources, shifts)
                for quarter in range(4)
            ]
        )
    return torch.tensor(orders)


class Maxout(nn.Module):
    """A linear layer of which each output is the larger of two (Goodfellow et al. 2013).

    With a ``rank`` its matrix is the product of two, ``(units x 2, rank)`` and ``(rank, features)``.
    """

    def __init__(self, features: int, units: int, rank: int | None = None) -> None:
        super().__init__()
        self.project = nn.Identity() if rank is None else nn.Linear(features, rank, bias=False)
        self.linear = nn.Linear(rank or features, POOL * units)
        # The larger of two unit Gaussians has a mean square of 1: the size of features is kept.
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        nn.init.constant_(self.linear.bias, 0.01)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map ``(N, D)`` to ``(N, units)``."""
        return self.linear(self.project(features)).unflatten(1, (-1, POOL)).max(-1).values


class RotationEncoder(nn.Module):
    """Sixteen parts of an image through one trunk as one batch, concatenated, and two maxout layers."""

    def __init__(
        self,
        trunk: nn.Module,
        trunk_features: int,
        width: int,
        dropout: float,
        view: int,
        part: int,
        rank: int | None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.num_features = width
        self.view, self.part = view, part
        self.dense = nn.Sequential(
            nn.Dropout(dropout),
            Maxout(PARTS * trunk_features, width, rank),
            nn.Dropout(dropout),
            Maxout(width, width),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, S, S)`` to ``(N, width)``; pixels are interpolated in float32 whatever their type."""
        return self.dense(self._parts(images).transpose(0, 1).flatten(1))

    def forward_views(self, images: torch.Tensor, views: int) -> torch.Tensor:
        """Map ``(N, C, S, S)`` to ``(views, N, width)`` for symmetries of the square: the trunk sees each part once."""
        ordered = self._parts(images)[part_orders(views).to(images.device)]
        return self.dense(ordered.transpose(1, 2).flatten(2).flatten(0, 1)).unflatten(0, (views, len(images)))

    def _parts(self, images: torch.Tensor) -> torch.Tensor:
        """``(16, N, F)`` features of the parts."""
        with torch.autocast(images.device.type, enabled=False):
            parts = make_parts(images.float(), self.view, self.part)
        parts = parts.to(images.dtype).contiguous(memory_format=torch.channels_last)
        return self.trunk(parts).unflatten(0, (PARTS, len(images)))


def build(
    answers: list[int],
    encoder: str | None = None,
    encoder_arguments: dict[str, Any] | None = None,
    width: int = 384,
    dropout: float = 0.5,
    in_chans: int = 3,
    head: str = "fractions",
    view: int = 69,
    part: int = 45,
    rank: int | None = None,
) -> Morphology:
    """Build the architecture with fresh weights; nothing is downloaded.

    The paper cuts 424 px images to 207 px and shrinks them to 69: with the default ``view`` a bundle has an input of
    ``size`` 99 (`smallest_input`) and for such images ``crop`` 0.7, so that a view is the paper's. The paper's maxout
    layers have 2048 units: 42 million weights, 84 MB in half precision. The default of 384 makes 6.9
    million and 14 MB; ``width=2048`` is the paper's net. Departures: initial weights are scaled to their number of
    inputs instead of a fixed 0.01, and a convolution has one bias for each filter instead of each pixel.

    Parameters
    ----------
    answers : list of int
        Number of answers of each question, in VoteSchema order.
    encoder : str, optional
        timm model name of another trunk, whose pooled features are taken; None is the paper's four convolutions.
    encoder_arguments : dict, optional
        More arguments of `timm.create_model`.
    width : int
        Units of each maxout layer; the last one's are the embedding.
    dropout : float
        Rate on the input of both maxout layers and on the features before the head.
    in_chans : int
        Channels of the input.
    head : str
        ``fractions`` (the paper's divisive normalisation), ``dirichlet`` or ``classes``.
    view, part : int
        Sides of the views and of their corners, in pixels.
    rank : int, optional
        Of the first maxout layer's matrix, which has nine tenths of the weights; None is the paper's full one.
        `factor` makes it of trained weights.

    Raises
    ------
    InputError
        When the parts do not overlap, are larger than the view, or too small for the convolutions.
    """
    if not view / 2 < part <= view:
        raise InputError(
            f"parts of {part} px do not overlap at the centre of views of {view} px",
            fix="choose a part above half of the view and at most as large",
        )
    if encoder is None:
        trunk, features = _paper_trunk(in_chans, part)
    else:
        trunk = build_encoder(encoder, in_chans, encoder_arguments)
        features = embedding_size(trunk)
    turned = RotationEncoder(trunk, features, width, dropout, view, part, rank)
    return Morphology(turned, answers, dropout, head)


def factor(weights: dict[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """Replace the first maxout layer's matrix by the nearest one of a lower rank, as a product of two.

    Parameters
    ----------
    weights : dict
        ``state_dict`` of a network that was built without ``rank``.
    rank : int
        Singular values that are kept; each half of the product carries their roots.

    Returns
    -------
    dict
        ``state_dict`` of the same network built with ``rank``.
    """
    name = "encoder.dense.1.linear.weight"
    left, values, right = torch.linalg.svd(weights[name].float(), full_matrices=False)
    roots = values[:rank].sqrt()
    halves = {name: left[:, :rank] * roots, name.replace("linear", "project"): roots[:, None] * right[:rank]}
    return weights | {key: half.contiguous() for key, half in halves.items()}


def _paper_trunk(in_chans: int, part: int) -> tuple[nn.Module, int]:
    layers: list[nn.Module] = []
    channels, side = in_chans, part
    for filters, kernel, pooled in PAPER_CONVOLUTIONS:
        convolution = nn.Conv2d(channels, filters, kernel)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.constant_(convolution.bias, 0.1)  # type: ignore[arg-type]
        # Pooling first gives the same values and leaves a quarter of the pixels to the rectifier.
        layers += [convolution, *([nn.MaxPool2d(POOL)] if pooled else []), nn.ReLU(inplace=True)]
        channels, side = filters, (side - kernel + 1) // (POOL if pooled else 1)
    if side < 1:
        raise InputError(
            f"parts of {part} px are too small for the four convolutions", fix="use a part of 37 px or more"
        )
    return nn.Sequential(*layers, nn.Flatten()), channels * side * side
