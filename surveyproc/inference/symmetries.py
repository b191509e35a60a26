"""Features of a batch under the symmetries of the square."""

from __future__ import annotations

from typing import Any

import torch

from surveyproc.images.views import d4


def encode_views(model: Any, images: torch.Tensor, views: int) -> torch.Tensor:
    """Encode the first ``views`` symmetries of each image.

    Parameters
    ----------
    model : Model
        An encoder with a method ``forward_views(images, views)`` does what the symmetries share once
        (`surveyproc.models.dieleman`), one of ``members`` (`surveyproc.models.ensemble`) leaves it to each of
        them; any other one sees each symmetry.
    images : torch.Tensor
        ``(N, C, S, S)`` normalised pixels, of the type the encoder computes in.
    views : int
        1 to 8, in the order of `surveyproc.images.views.d4`.

    Returns
    -------
    torch.Tensor
        ``(views, N, D)`` float32.
    """
    encoder = getattr(model, "encoder", None)
    if members := getattr(encoder, "members", None):
        return torch.cat([encode_views(m, m.see(images), views) * m.gain for m in members], dim=-1)
    shared = getattr(encoder, "forward_views", None)
    if shared is not None and views > 1:
        return shared(images, views).float()
    turned = (d4(images, view).contiguous(memory_format=torch.channels_last) for view in range(views))
    return torch.stack([model.encode(one).float() for one in turned])
