"""From head outputs to the columns astronomers read (DESIGN section 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from surveyproc.columns import described
from surveyproc.inference.domain import domain_distance
from surveyproc.inference.posterior import matched_concentration, mixture_interval
from surveyproc.models.bundle import DOMAIN_PREFIX, Bundle
from surveyproc.quality import describe_bits
from surveyproc.votes import VoteSchema

ASKED_BY_HALF = 0.5
QUALITY = described("quality", pa.int32(), describe_bits(), ucd="meta.code.qual")
LEVEL = 0.9
PROBABILITY = "stat.probability;src.morph"


class MorphologyProduct:
    """Tables ``morphology`` and ``morphology_posterior`` of a Dirichlet head over a VoteSchema."""

    def __init__(self, bundle: Bundle) -> None:
        self.votes = VoteSchema.from_dict(bundle.record["outputs"]["vote_schema"])
        self._slices = list(self.votes.slices.items())
        fraction = [
            field
            for column in self.votes.columns
            for field in (
                _column(f"{column}_fraction", "expected vote fraction where asked", PROBABILITY),
                _column(
                    f"{column}_fraction_lower", "5 % quantile of the vote fraction", f"{PROBABILITY};stat.min"
                ),
                _column(
                    f"{column}_fraction_upper",
                    "95 % quantile of the vote fraction",
                    f"{PROBABILITY};stat.max",
                ),
            )
        ]
        asked = [
            _column(f"{question}_proportion_asked", "expected share of volunteers asked", "stat.probability")
            for question, _ in self._slices
        ]
        rest = [
            _column("difficulty", "mean normalised entropy over the asked questions", "stat.value"),
            _column("domain_distance", "distance to the training set, as a quantile", "stat.percentile"),
            QUALITY,
        ]
        mean = [
            _column(f"{column}_mean", "expected fraction given that the question is asked", PROBABILITY)
            for column in self.votes.columns
        ]
        concentration = [
            _column(
                f"{column}_concentration", "concentration of the matched Dirichlet", "stat.param;src.morph"
            )
            for column in self.votes.columns
        ]
        self.fields = {"morphology": fraction + asked + rest, "morphology_posterior": mean + concentration}

    def columns(
        self, concentrations: torch.Tensor, domain_distance: np.ndarray, quality: np.ndarray
    ) -> dict[str, dict[str, Any]]:
        """Summarise the components of each object.

        Parameters
        ----------
        concentrations : torch.Tensor
            ``(M, N, K)``: M views and draws, N objects, K answers; float32, positive.
        domain_distance, quality : numpy.ndarray
            ``(N,)``.

        Returns
        -------
        dict
            Table name to column name to array of N values.
        """
        means = torch.empty_like(concentrations)
        totals = torch.empty_like(concentrations)
        matched = torch.empty_like(concentrations[0])
        for _, answers in self._slices:
            total = concentrations[..., answers].sum(-1)
            totals[..., answers] = total.unsqueeze(-1)
            means[..., answers] = concentrations[..., answers] / total.unsqueeze(-1)
            matched[..., answers] = matched_concentration(means[..., answers], total).unsqueeze(-1)
        lower, upper = (b.cpu().numpy() for b in mixture_interval(concentrations, totals, LEVEL))
        components = means.cpu().numpy()
        mean = components.mean(0)
        asked = np.mean([self.votes.proportion_asked(c) for c in components], axis=0)
        concentration = mean * matched.cpu().numpy()
        return {
            "morphology": self._friendly(mean, lower, upper, asked)
            | {"domain_distance": domain_distance, "quality": quality},
            "morphology_posterior": {f"{c}_mean": mean[:, k] for k, c in enumerate(self.votes.columns)}
            | {f"{c}_concentration": concentration[:, k] for k, c in enumerate(self.votes.columns)},
        }

    def _friendly(
        self, mean: np.ndarray, lower: np.ndarray, upper: np.ndarray, asked: np.ndarray
    ) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        entropies = np.zeros((len(mean), len(self._slices)), dtype=np.float32)
        for q, (question, answers) in enumerate(self._slices):
            columns[f"{question}_proportion_asked"] = asked[:, q].astype(np.float32)
            p = mean[:, answers]
            entropies[:, q] = -(p * np.log(np.clip(p, 1e-12, 1))).sum(1) / np.log(p.shape[1])
            hidden = asked[:, q] < ASKED_BY_HALF
            for k in range(answers.start, answers.stop):
                name = self.votes.columns[k]
                columns[f"{name}_fraction"] = pa.array(mean[:, k], mask=hidden)
                columns[f"{name}_fraction_lower"] = pa.array(lower[:, k], mask=hidden)
                columns[f"{name}_fraction_upper"] = pa.array(upper[:, k], mask=hidden)
        weight = asked >= ASKED_BY_HALF
        columns["difficulty"] = (entropies * weight).sum(1) / np.maximum(weight.sum(1), 1)
        return columns


def _column(name: str, description: str, ucd: str) -> pa.Field:
    """A number without unit."""
    return described(name, pa.float32(), description, ucd=ucd)


PRODUCTS = {"morphology": MorphologyProduct}


class DomainReference:
    """Distance of an embedding to the training set, as a quantile of held-out embeddings' distances."""

    def __init__(self, bundle: Bundle) -> None:
        names = [f"{DOMAIN_PREFIX}{part}" for part in ("centre", "centroids", "quantiles")]
        self._known = all(name in bundle.tensors for name in names)
        if self._known:
            self._centre, self._centroids, quantiles = (bundle.tensors[name] for name in names)
            self._quantiles = quantiles.float().numpy()

    def distance(self, embeddings: torch.Tensor) -> np.ndarray:
        """Quantile in [0, 1] of ``(N, D)`` embeddings, NaN when the bundle has no reference.

        The distance is `surveyproc.inference.domain.domain_distance`; beyond the largest distance seen it stays
        at 1.
        """
        if not self._known:
            return np.full(len(embeddings), np.nan, dtype=np.float32)
        distance = domain_distance(embeddings.float().cpu(), self._centre, self._centroids).numpy()
        grid = np.linspace(0, 1, len(self._quantiles))
        return np.interp(distance, self._quantiles, grid).astype(np.float32)
