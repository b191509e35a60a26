"""The layer that sees the bands: fitting it to encoders of other bands."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from surveyproc.errors import InputError


def adapt_first_layer(
    state: dict[str, torch.Tensor], module: nn.Module, in_chans: int
) -> dict[str, torch.Tensor]:
    """Fit the first layer of weights to an encoder of other channels.

    With B channels in the weights and n in the encoder, copy k of ``max(B, n)`` puts the kernel of channel
    ``k mod B`` on channel ``k mod n``, divided by the number of copies that channel has. So an image that is
    equal in all bands gives the response it gave before, for every n; one band takes the sum of the kernels.

    Parameters
    ----------
    state : dict
        Weights under timm's names.
    module : torch.nn.Module
        A timm model for ``in_chans`` channels.
    in_chans : int
        Channels n of ``module``.

    Returns
    -------
    dict
        The same state with new tensors for the first layer.

    Notes
    -----
    `timm.models.adapt_input_conv` scales all copies by ``3 / n`` instead, which is the same for 1 and for
    multiples of 3, but alters the response to grey images for 4 bands.
    """
    adapted = dict(state)
    for key in first_layers(module):
        if key not in state:
            continue
        weight, target = state[key], module.state_dict()[key]
        source_chans = weight.shape[1] * in_chans / target.shape[1]
        if weight.shape == target.shape:
            continue
        if weight.ndim != 4 or source_chans != int(source_chans) or source_chans < 1:
            raise InputError(
                f"the first layer {key} {tuple(weight.shape)} cannot be adapted to {in_chans} channels",
                fix="train it instead: first_layer=fresh",
            )
        adapted[key] = _spread(weight, int(source_chans), in_chans)
    return adapted


def first_layers(module: nn.Module) -> list[str]:
    """Names of the weights that see the channels of the image; empty when timm does not say."""
    named: Any = cast(Any, module).pretrained_cfg.get("first_conv") or ()
    keys = [f"{conv}.weight" for conv in ((named,) if isinstance(named, str) else named)]
    return [key for key in keys if key in module.state_dict()]


def channels_of(state: dict[str, torch.Tensor], rgb: nn.Module) -> int:
    """Channels that the first layer of weights takes, by their shape in a model ``rgb`` for three.

    config.json may say others than the file has.
    """
    for key in first_layers(rgb):
        if key in state:
            return max(1, round(3 * state[key].shape[1] / rgb.state_dict()[key].shape[1]))
    return 3


def _spread(weight: torch.Tensor, source: int, target: int) -> torch.Tensor:
    """``(O, g * source, h, w)`` kernels to ``(O, g * target, h, w)``; g > 1 where a stem folds pixels into channels."""
    out, channels, height, width = weight.shape
    kernels = weight.reshape(out, channels // source, source, height, width)
    spread = kernels.new_zeros(out, channels // source, target, height, width)
    copies = max(source, target)
    for k in range(copies):
        times = len(range(k % source, copies, source))
        spread[:, :, k % target] += kernels[:, :, k % source] / times
    return spread.reshape(out, -1, height, width)
