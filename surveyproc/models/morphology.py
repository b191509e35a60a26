"""Galaxy Zoo morphology: an encoder, a linear layer and a head of Dirichlet concentrations."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from surveyproc.models.heads import head_function, initial_scale, make_classifier


class Morphology(nn.Module):
    """Encoder plus head for the vote fractions of a Galaxy Zoo decision tree.

    Each question's answers get the concentrations ``a`` of a Dirichlet distribution over its vote fractions;
    the expected fractions are ``a / sum a``. The head runs in float32 because the fractions need it.

    Attributes
    ----------
    product : str
        ``morphology``: what the head's output means to the engine.
    embedding_size : int
        Length D of the features.
    dropout : float
        Rate of the dropout on the features before the head: applied by training, and by the engine with
        keyed masks; never inside `head`.
    concentration_scale : torch.Tensor
        ``(K,)`` factors on the head's output, constant over each question: set by calibration.
    """

    product = "morphology"
    concentration_scale: torch.Tensor

    def __init__(
        self, encoder: nn.Module, answers: list[int], dropout: float, head: str = "dirichlet"
    ) -> None:
        super().__init__()
        self.encoder = encoder
        # MobileNet-like encoders pool before a last wide layer; timm names its width apart.
        self.embedding_size = int(getattr(encoder, "head_hidden_size", None) or encoder.num_features)  # type: ignore[arg-type]
        self.dropout = dropout
        self.answers = list(answers)
        self.classifier = make_classifier(head, self.embedding_size, answers)
        self.register_buffer("concentration_scale", initial_scale(head, answers))
        self._concentrations = head_function(head)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, size, size)`` normalised pixels to ``(N, D)`` features."""
        return self.encoder(images)

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Map ``(N, D)`` features to ``(N, K)`` float32 concentrations in VoteSchema answer order."""
        with torch.autocast(features.device.type, enabled=False):
            logits = self.classifier(features.float())
            return self.concentration_scale * self._concentrations(logits, self.answers)

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
    head: str = "dirichlet",
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
    head : str
        ``dirichlet``, ``fractions`` or ``classes``: `surveyproc.models.heads`.
    """
    trunk = timm.create_model(
        encoder, pretrained=False, num_classes=0, in_chans=in_chans, **(encoder_arguments or {})
    )
    return Morphology(trunk, answers, dropout, head)
