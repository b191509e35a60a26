"""What numpy arrays and torch tensors have in common."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def namespace(array: Any) -> Any:
    """Numpy or torch, whichever the array is of."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def doubles(array: Any) -> Any:
    """A float64 array of the same kind, with 0 where it is not finite; the array itself where it is that already."""
    xp = namespace(array)
    wide = array.astype(np.float64, copy=False) if xp is np else array.to(xp.float64)
    finite = xp.isfinite(wide)
    if xp is np and finite.all():
        return wide
    return xp.where(finite, wide, xp.zeros_like(wide))


def stack_last(planes: list[Any]) -> Any:
    """Join arrays of one shape along a new last axis."""
    return (
        np.stack(planes, -1) if isinstance(planes[0], np.ndarray) else namespace(planes[0]).stack(planes, -1)
    )


def levels(array: Any) -> Any:
    """[0, 1] to 0, 1, ... 255 as floats: clipped, times 255, rounded half up."""
    xp = namespace(array)
    return xp.floor(xp.clip(array, 0.0, 1.0) * 255.0 + 0.5)


def to_bytes(array: Any) -> Any:
    """[0, 1] to uint8, by `levels`."""
    return as_bytes(levels(array))


def as_bytes(whole: Any) -> Any:
    """Whole numbers of 0 to 255 to uint8."""
    return whole.astype(np.uint8) if isinstance(whole, np.ndarray) else whole.to(namespace(whole).uint8)


def percentile(planes: Any, percent: float) -> Any:
    """Percentile of each plane ``(..., H, W)``, linear between order statistics; shape ``(..., 1, 1)``.

    `torch.quantile` refuses more than 16 million values, and numpy's rounds otherwise.
    """
    flat = planes.reshape(*planes.shape[:-2], planes.shape[-2] * planes.shape[-1])
    place = percent / 100.0 * (flat.shape[-1] - 1)
    low = math.floor(place)
    high = min(low + 1, flat.shape[-1] - 1)
    if isinstance(flat, np.ndarray):
        ordered = np.partition(flat, (low, high), axis=-1)
        below, above = ordered[..., low], ordered[..., high]
    else:
        below, above = (flat.kthvalue(rank + 1, dim=-1).values for rank in (low, high))
    return (below + (above - below) * (place - low))[..., None, None]
