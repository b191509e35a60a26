"""Galaxy Zoo morphology: a timm encoder and one linear head of Dirichlet concentrations."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from surveyproc.models.encoders import build_encoder, embedding_size

CONCENTRATION_RANGE = 100.0


class Morphology(nn.Module):
    """Encoder plus head for the vote fractions of a Galaxy Zoo decision tree.

    Each question's answers get the concentrations of a Dirichlet distribution over its vote fractions.
    The output ``a = 1 + 100 sigmoid(z)`` lies in (1, 101) as in Zoobot (Walmsley et al. 2022, MNRAS 509,
    3966): every distribution is unimodal, and the sharpest is about that of 100 votes. There is no
    departure from that form; the linear layer always runs in float32 because the fractions need it.

    Attributes
    ----------
    product : str
        ``morphology``: what the head's output means to the engine.
    embedding_size : int
        Length D of the features.
    dropout : float
        Rate of the dropout on the features before the head: applied by training, and by the engine with
        keyed masks; never inside `head`.
    """

    product = "morphology"

    def __init__(self, encoder: nn.Module, answers: list[int], dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.embedding_size = embedding_size(encoder)
        self.dropout = dropout
        self.answers = list(answers)
        self.classifier = nn.Linear(self.embedding_size, sum(answers))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, size, size)`` normalised pixels to ``(N, D)`` features."""
        return self.encoder(images)

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Map ``(N, D)`` features to ``(N, K)`` float32 concentrations in VoteSchema answer order."""
        with torch.autocast(features.device.type, enabled=False):
            return 1.0 + CONCENTRATION_RANGE * torch.sigmoid(self.classifier(features.float()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Train-time path: encode, drop features, head."""
        features = nn.functional.dropout(self.encode(images).float(), self.dropout, self.training)
        return self.head(features)


def build(
    encoder: str,
    answers: list[int],
    encoder_arguments: dict[str, Any] | None = None,
    dropout: float = 0.2,
    in_chans: int = 3,
) -> Morphology:
    """Build the architecture with fresh weights; nothing is downloaded.

    Parameters
    ----------
    encoder : str
        timm model name.
    answers : list of int
        Number of answers of each question, in VoteSchema order.
    encoder_arguments : dict, optional
        More arguments of `timm.create_model`, e.g. ``{"channels": [48, 96, 192, 384]}`` for a narrow ResNet.
    dropout : float
        Rate on the features before the head.
    in_chans : int
        Channels of the input.
    """
    return Morphology(build_encoder(encoder, in_chans, encoder_arguments), answers, dropout)
