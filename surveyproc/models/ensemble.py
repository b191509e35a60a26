"""Several trained networks as one bundle: the features of all side by side, and a head of each on its own."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from surveyproc.errors import InputError


class Member(nn.Module):
    """The encoder of one network, and how it wants to see the pixels of the ensemble.

    Parameters
    ----------
    encoder : torch.nn.Module
        Maps ``(N, C, size, size)`` to ``(N, D)``.
    size : int
        Side of its input in pixels.
    crop : float
        Central fraction of the ensemble's input that it sees.
    mean, std : float
        Of its pixels, after the crop.
    gain : float
        Factor on its features in the ensemble's; a power of two, which no type rounds.
    """

    def __init__(
        self, encoder: nn.Module, size: int, crop: float, mean: float, std: float, gain: float
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.size, self.crop, self.mean, self.std, self.gain = size, crop, mean, std, gain

    def see(self, images: torch.Tensor) -> torch.Tensor:
        """Bring ``(N, C, S, S)`` images of the ensemble to ``(N, C, size, size)``, in float32 and of their type again."""
        side = images.shape[-1]
        margin = round(side * (1 - self.crop) / 2)
        kept = images[..., margin : side - margin, margin : side - margin].float()
        if kept.shape[-1] != self.size:
            kept = functional.interpolate(
                kept, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True
            )
        return ((kept - self.mean) / self.std).to(images.dtype).contiguous(memory_format=torch.channels_last)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Map what `see` gives to ``(N, D)`` features, not yet scaled."""
        return self.encoder(images)


class EnsembleEncoder(nn.Module):
    """Features of all members, one after the other."""

    def __init__(self, members: Sequence[Member], num_features: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.num_features = num_features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, S, S)`` pixels in [0, 1] to ``(N, D)``."""
        members: Any = self.members
        return torch.cat([member.encode(member.see(images)) * member.gain for member in members], dim=1)


class Ensemble(nn.Module):
    """Networks trained apart on one decision tree; each is a component of the predicted mixture.

    Attributes
    ----------
    product, embedding_size, dropout, concentration_scale
        As of `surveyproc.models.morphology.Morphology`; the embedding is that of all members, each scaled by
        its ``gain``, so that none rules the distances.
    """

    product = "morphology"
    concentration_scale: torch.Tensor

    def __init__(self, networks: Sequence[Any], inputs: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        for name in ("answers", "dropout"):
            values = [getattr(network, name) for network in networks]
            if any(value != values[0] for value in values):
                raise InputError(
                    f"the members of an ensemble differ in {name}: {', '.join(map(str, values))}",
                    fix=f"train them with one {name}",
                )
        self.answers, self.dropout = networks[0].answers, networks[0].dropout
        self._sizes = [network.embedding_size for network in networks]
        self._gains = [seen["gain"] for seen in inputs]
        self.embedding_size = sum(self._sizes)
        members = [Member(network.encoder, **seen) for network, seen in zip(networks, inputs)]
        self.encoder = EnsembleEncoder(members, self.embedding_size)
        self.heads = nn.ModuleList(networks)
        for network in networks:
            network.encoder = nn.Identity()
        self.register_buffer("concentration_scale", torch.ones(sum(self.answers)))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, S, S)`` pixels in [0, 1] to ``(N, D)`` features."""
        return self.encoder(images)

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Map ``(N, D)`` features to ``(N, M, K)`` float32 concentrations of the M members."""
        heads: Any = self.heads
        parts = features.float().split(self._sizes, dim=1)
        said = [head.head(part / gain) for head, part, gain in zip(heads, parts, self._gains)]
        return torch.stack(said, dim=1) * self.concentration_scale


def build(members: list[dict[str, Any]]) -> Ensemble:
    """Build the members' architectures with fresh weights.

    Parameters
    ----------
    members : list of dict
        For each network its ``architecture``, the ``arguments`` of its ``build``, and its ``input``: the
        arguments of `Member`.

    Raises
    ------
    InputError
        When their answers or dropout rates differ.
    """
    networks = [
        importlib.import_module(f"surveyproc.models.{member['architecture']}").build(**member["arguments"])
        for member in members
    ]
    return Ensemble(networks, [member["input"] for member in members])
