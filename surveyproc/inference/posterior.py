"""Posterior summaries of vote fractions: mixtures of Dirichlets over views and dropout draws."""

from __future__ import annotations

import math

import numpy as np
import torch

from surveyproc.identifiers import splitmix64

GRID = 128


def keyed_dropout(keys: np.ndarray, draws: int, size: int, rate: float) -> torch.Tensor:
    """Draw dropout masks that depend on nothing but the object and the draw.

    Parameters
    ----------
    keys : numpy.ndarray
        ``(N,)`` uint64, one for each object.
    draws, size : int
        Number of draws T and of features D.
    rate : float
        Probability of dropping a feature; the kept ones are scaled by ``1 / (1 - rate)``.

    Returns
    -------
    torch.Tensor
        ``(T, N, D)`` float32 factors.
    """
    with np.errstate(over="ignore"):
        counters = np.arange(draws * size, dtype=np.uint64).reshape(draws, 1, size)
        bits = splitmix64(keys[None, :, None] + counters * np.uint64(0xD1342543DE82EF95))
    kept = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 >= rate
    return torch.from_numpy(kept.astype(np.float32) / np.float32(1.0 - rate))


def mixture_interval(
    alpha: torch.Tensor, total: torch.Tensor, level: float = 0.9
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Central interval of an equal-weight mixture of Beta distributions, by inverting its CDF.

    Parameters
    ----------
    alpha : torch.Tensor
        ``(M, ...)`` first parameters of the M components.
    total : torch.Tensor
        ``(M, ...)`` sums of both parameters (the Dirichlet's total concentration).
    level : float
        Probability inside the interval.

    Returns
    -------
    lower, upper : torch.Tensor
        ``(...)`` each.

    Notes
    -----
    With :math:`t=\sin^2\theta` a Beta density becomes
    :math:`\propto \sin^{2a-1}\theta\,\cos^{2b-1}\theta`, whose width hardly depends on the mean; its
    mass is summed on 128 cells of :math:`\theta` and the quantiles are interpolated inside a cell. In the
    first and last cell the power law is integrated, since below a = 1/2 it has a pole there.
    """
    edges = torch.linspace(0, math.pi / 2, GRID + 1, dtype=torch.float32, device=alpha.device)
    middle = (edges[1:] + edges[:-1]) / 2
    # The difference of two float32 near 20 may be 0 where the other fractions are as small as a head allows.
    a, b = (x.float().clamp_min(1e-6).unsqueeze(-1) for x in (alpha, total - alpha))
    log_mass = (2 * a - 1) * middle.sin().log() + (2 * b - 1) * middle.cos().log()
    for cell, power in ((0, a), (-1, b)):
        log_mass[..., cell : cell + 1 or None] += (2 * power - 1) * math.log(2) - (2 * power).log()
    cumulative = log_mass.softmax(-1).mean(0).cumsum(-1)
    cumulative = torch.cat([torch.zeros_like(cumulative[..., :1]), cumulative], -1)
    bounds = []
    for quantile in ((1 - level) / 2, (1 + level) / 2):
        target = torch.full_like(cumulative[..., :1], quantile)
        above = torch.searchsorted(cumulative, target).clamp(1, GRID)
        low, high = cumulative.gather(-1, above - 1), cumulative.gather(-1, above)
        part = ((target - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        theta = edges[above - 1] + part * (edges[above] - edges[above - 1])
        bounds.append(theta.sin().square().squeeze(-1))
    return bounds[0], bounds[1]


def matched_concentration(means: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Total concentration of the one Dirichlet with the mixture's means and summed variance.

    Parameters
    ----------
    means : torch.Tensor
        ``(M, N, K)`` mean fractions of the components over one question's K answers.
    total : torch.Tensor
        ``(M, N)`` total concentrations.

    Returns
    -------
    torch.Tensor
        ``(N,)``: A in ``sum p (1 - p) / (A + 1) = total variance``.
    """
    mean = means.mean(0)
    spread = (mean * (1 - mean)).sum(-1)
    within = ((means * (1 - means)).sum(-1) / (total + 1)).mean(0)
    between = means.var(0, correction=0).sum(-1)
    return (spread / (within + between).clamp_min(1e-9) - 1).clamp_min(1e-3)
