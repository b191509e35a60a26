"""Encoder passes: features once for each encoder and view, all heads on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from surveyproc.columns import described
from surveyproc.cutouts import ImageSpec, InputContract
from surveyproc.errors import UsageError
from surveyproc.images.inputs import BundleInput
from surveyproc.inference.components import mixture_components
from surveyproc.inference.products import PRODUCTS, DomainReference
from surveyproc.inference.settings import EngineSettings
from surveyproc.inference.symmetries import encode_views
from surveyproc.models.bundle import Bundle, Model


class EncoderPass:
    """One encoder over one view of the pixels, and the heads on its features."""

    def __init__(
        self,
        bundles: Sequence[Bundle],
        contract: InputContract,
        views: int,
        settings: EngineSettings,
        name: str,
        image: ImageSpec,
    ) -> None:
        self._bundles, self._views, self._settings = bundles, views, settings
        self._input = BundleInput(contract, image)
        self._models: list[Model] = [b.build() for b in bundles]
        self._heads = [
            (model, PRODUCTS[model.product](bundle), bundle)
            for model, bundle in zip(self._models, bundles)
            if model.product is not None
        ]
        self._domain = DomainReference(bundles[0])
        self._embeddings = name
        encoder: Any = self._models[0]
        self._dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        for model in self._models:
            module: Any = model
            if model is not encoder:
                module.encoder = torch.nn.Identity()
            module.to(settings.device)
        encoder.encoder.to(dtype=self._dtype, memory_format=torch.channels_last)
        self._encoder: Model = encoder

    @property
    def needs_pixel_scale(self) -> bool:
        """Whether each row must say its ``pixel_scale_arcsec``."""
        return self._input.needs_pixel_scale

    def tables(self) -> list[tuple[str, list[pa.Field], Bundle]]:
        """Names and fields of the tables this pass fills."""
        size = self._encoder.embedding_size
        embedding = described(
            "embedding", pa.list_(pa.float16(), size), "features of the encoder", ucd="src.morph.param"
        )
        found = [(self._embeddings, [embedding], self._bundles[0])]
        for _, product, bundle in self._heads:
            found += [(name, fields, bundle) for name, fields in product.fields.items()]
        return found

    def __call__(
        self,
        batch: torch.Tensor,
        keys: np.ndarray,
        quality: np.ndarray,
        finite: np.ndarray,
        pixel_scale_arcsec: np.ndarray | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Fill the columns of this pass for the first ``len(keys)`` rows of a padded batch.

        All arithmetic is on the whole batch: the last bit of a sum can depend on the shape of the array.
        """
        count = len(keys)
        quality = np.pad(quality, (0, len(batch) - count))
        images = self._input(batch, pixel_scale_arcsec)
        features = encode_views(self._encoder, images.to(self._dtype), self._views)
        embedding = features.mean(0)
        finite &= torch.isfinite(embedding).all(1)[:count].cpu().numpy()
        half = embedding.clamp(-65504, 65504).half().cpu().numpy()
        flat = pa.array(half.reshape(-1))
        size = self._encoder.embedding_size
        values: dict[str, dict[str, Any]] = {
            self._embeddings: {"embedding": pa.FixedSizeListArray.from_arrays(flat, size)}
        }
        distance = self._domain.distance(embedding)
        for model, product, bundle in self._heads:
            outputs = self._outputs(model, bundle, features, keys)
            finite &= torch.isfinite(outputs).all(-1).all(0)[:count].cpu().numpy()
            values |= product.columns(outputs, distance, quality)
        return {
            table: {name: column[:count] for name, column in columns.items()}
            for table, columns in values.items()
        }

    def _outputs(
        self, model: Model, bundle: Bundle, features: torch.Tensor, keys: np.ndarray
    ) -> torch.Tensor:
        draws = self._settings.draws or bundle.record.get("inference", {}).get("draws", 1)
        padded = np.zeros(features.shape[1], dtype=np.uint64)
        padded[: len(keys)] = keys
        return mixture_components(model, features, padded, draws)


def group_passes(bundles: Sequence[Bundle], settings: EngineSettings, image: ImageSpec) -> list[EncoderPass]:
    """Group bundles into passes: those with one encoder, one input contract and one set of views share.

    Raises
    ------
    UsageError
        For a number of views that is no subgroup of the square's symmetries.
    InputError
        When the catalog's pixels lack a band.
    """
    groups: dict[str, list[Bundle]] = {}
    for bundle in bundles:
        views = settings.views or bundle.record.get("inference", {}).get("views", 1)
        if views not in (1, 2, 4, 8):
            raise UsageError(f"{views} views: the square has 8 symmetries", fix="use 1, 2, 4 or 8")
        key = json.dumps([bundle.encoder_hash, bundle.contract.to_dict(), views], sort_keys=True)
        groups.setdefault(key, []).append(bundle)
    passes = []
    for number, (key, members) in enumerate(groups.items()):
        name = "embeddings" if number == 0 else f"embeddings_{members[0].name}"
        passes.append(EncoderPass(members, members[0].contract, json.loads(key)[2], settings, name, image))
    return passes
