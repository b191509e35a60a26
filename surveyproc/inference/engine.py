"""The engine: every encoder once per batch, all heads on its features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from surveyproc.cutouts import ImageSpec, InputContract
from surveyproc.errors import InputError, ResourceError, UsageError
from surveyproc.identifiers import hash_ids
from surveyproc.images.views import d4, prepare
from surveyproc.inference.posterior import keyed_dropout
from surveyproc.inference.products import PRODUCTS, DomainReference, described
from surveyproc.inference.screen import screen_pixels
from surveyproc.models.bundle import Bundle, Model

ROW = "_row"
KEYS = ("object_id", "ra", "dec", "_healpix_29")
REJECTS_SCHEMA = pa.schema([("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True)
class EngineSettings:
    """How the engine computes; every field can change values and is in the run's fingerprint.

    Attributes
    ----------
    batch_size : int
        Rows of the one shape every batch is padded to.
    device : str
        ``cpu`` or ``cuda``.
    precision : str
        ``bf16`` or ``fp32``, of the encoder; heads and posteriors are always float32.
    threads : int
        Torch threads of one engine on a CPU.
    views, draws : int, optional
        Symmetries of the square that are averaged, and dropout draws of the head; None takes the bundle's.
    """

    batch_size: int = 64
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    views: int | None = None
    draws: int | None = None


def resolve_device(device: str) -> str:
    """Resolve ``auto`` and refuse a device that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ResourceError(
            "there is no CUDA device here", where="engine.device", fix="use engine.device=cpu"
        )
    return device


def resolve_precision(precision: str, device: str) -> str:
    """Resolve ``auto`` to bf16 where the hardware computes it, and refuse it where it does not."""
    able = torch.cuda.is_bf16_supported() if device != "cpu" else _cpu_has_bf16()
    if precision == "auto":
        return "bf16" if able else "fp32"
    if precision == "bf16" and not able:
        raise ResourceError(
            f"this {device} does not compute bf16", where="engine.precision", fix="use engine.precision=fp32"
        )
    return precision


def _cpu_has_bf16() -> bool:
    supported = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(supported) and torch.cpu._is_avx512_bf16_supported()


class Engine:
    """Runs bundles over batches of cutouts.

    Parameters
    ----------
    bundles : sequence of Bundle
        Two that share encoder, input contract and views share one pass.
    settings : EngineSettings
        With device and precision resolved.
    image : ImageSpec
        The catalog's pixels.
    keys : pyarrow.Schema
        The key columns every table starts with: ``object_id``, then ``ra, dec, _healpix_29`` if known.
    carry : pyarrow.Schema
        Further catalog columns to copy into ``morphology``.

    Attributes
    ----------
    schemas : dict of str to pyarrow.Schema
        What `__call__` returns, ``rejects`` included; ``_row`` is the position in the shard.
    provenance : dict of str to dict
        For each table the bundle and the encoder hash it came from.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        settings: EngineSettings,
        image: ImageSpec,
        keys: pa.Schema,
        carry: pa.Schema | None = None,
    ) -> None:
        self.settings, self._image, self._keys = settings, image, keys
        self._carry = carry or pa.schema([])
        self._passes = _group_passes(bundles, settings)
        row = [pa.field(ROW, pa.int32())]
        self.schemas: dict[str, pa.Schema] = {}
        self.provenance: dict[str, dict[str, Any]] = {}
        for encoder_pass in self._passes:
            for name, fields, bundle in encoder_pass.tables():
                extra = list(self._carry) if name == "morphology" else []
                self._claim(name, pa.schema([*row, *keys, *fields, *extra]), bundle)
        self.schemas["rejects"] = pa.schema([*row, *keys, *REJECTS_SCHEMA])

    @property
    def per_object(self) -> list[str]:
        """Tables with one row for each object that is no reject."""
        return [name for name in self.schemas if name != "rejects"]

    @property
    def passes(self) -> int:
        """Encoder passes over each batch: one for each distinct encoder, contract and views."""
        return len(self._passes)

    def __call__(
        self,
        columns: pa.RecordBatch | pa.Table,
        pixels: np.ndarray,
        failures: dict[int, tuple[str, str]],
        first_row: int = 0,
    ) -> dict[str, pa.Table]:
        """Process one batch.

        Parameters
        ----------
        columns : pyarrow.RecordBatch
            Key and carried columns of n <= batch_size rows.
        pixels : numpy.ndarray
            ``(n, H, W, C)``.
        failures : dict
            Rows whose pixels could not be decoded, with reason and detail.
        first_row : int
            Position of the batch's first row in its shard.

        Returns
        -------
        dict of str to pyarrow.Table
            One table for each of `schemas`; n rows are in each per-object table or in ``rejects``.
        """
        count = len(pixels)
        if count > self.settings.batch_size:
            raise ValueError(f"{count} rows in a batch of {self.settings.batch_size}")
        pixels, quality, unusable = screen_pixels(pixels)
        stages = {row: ("pixels", *why) for row, why in unusable.items()}
        stages |= {row: ("decode", *why) for row, why in failures.items()}
        stages |= _bad_positions(columns) | _missing_ids(columns)
        if "quality" in columns.schema.names:
            quality |= columns["quality"].fill_null(0).to_numpy(zero_copy_only=False).astype(np.int32)
        batch = self._pad(pixels, stages)
        ids = columns["object_id"]
        keys = hash_ids(ids.fill_null("" if pa.types.is_string(ids.type) else 0))
        values: dict[str, dict[str, Any]] = {}
        finite = np.ones(count, dtype=bool)
        with torch.inference_mode():
            for encoder_pass in self._passes:
                values |= encoder_pass(batch, keys, quality, finite)
        for row in np.flatnonzero(~finite):
            stages.setdefault(int(row), ("model", "nonfinite_output", "the model's output is not finite"))
        return self._tables(columns, values, stages, count, first_row)

    def _pad(self, pixels: np.ndarray, stages: dict[int, tuple[str, str, str]]) -> torch.Tensor:
        whole = len(pixels) == self.settings.batch_size and not stages and pixels.flags.writeable
        if not whole:
            padded = np.zeros((self.settings.batch_size, *pixels.shape[1:]), dtype=pixels.dtype)
            padded[: len(pixels)] = pixels
            padded[list(stages)] = 0
            pixels = padded
        return torch.from_numpy(pixels).to(self.settings.device, non_blocking=True)

    def _tables(
        self,
        columns: pa.RecordBatch | pa.Table,
        values: dict[str, dict[str, Any]],
        stages: dict[int, tuple[str, str, str]],
        count: int,
        first_row: int,
    ) -> dict[str, pa.Table]:
        keys: dict[str, Any] = {ROW: pa.array(np.arange(first_row, first_row + count, dtype=np.int32))}
        keys |= {name: columns[name] for name in self._keys.names}
        bad = sorted(stages)
        keep = np.ones(count, dtype=bool)
        keep[bad] = False
        tables = {}
        for name in self.per_object:
            carried = {c: columns[c] for c in self._carry.names} if name == "morphology" else {}
            arrays = keys | values[name] | carried
            schema = self.schemas[name]
            table = pa.table([_cast(arrays[f.name], f) for f in schema], schema=schema)
            tables[name] = table if keep.all() else table.filter(pa.array(keep))
        rejected = pa.table(
            [_cast(keys[f.name], f) for f in self.schemas["rejects"] if f.name in keys],
            names=[ROW, *self._keys.names],
        ).take(pa.array(bad, type=pa.int64()))
        for position, field in enumerate(REJECTS_SCHEMA):
            why = pa.array([stages[row][position] for row in bad], type=field.type)
            rejected = rejected.append_column(field, why)
        tables["rejects"] = rejected.cast(self.schemas["rejects"])
        return tables

    def _claim(self, name: str, schema: pa.Schema, bundle: Bundle) -> None:
        if name in self.schemas:
            raise UsageError(
                f"bundles {self.provenance[name]['bundle']!r} and {bundle.name!r} both write the table {name!r}",
                where="--bundle",
                fix="run them into two run folders",
            )
        self.schemas[name] = schema
        self.provenance[name] = {
            "bundle": bundle.name,
            "weights_sha256": bundle.sha256,
            "encoder_sha256": bundle.encoder_hash,
        }


class EncoderPass:
    """One encoder over one view of the pixels, and the heads on its features."""

    def __init__(
        self,
        bundles: Sequence[Bundle],
        contract: InputContract,
        views: int,
        settings: EngineSettings,
        name: str,
    ) -> None:
        self._bundles, self._contract, self._views, self._settings = bundles, contract, views, settings
        self._models: list[Model] = [b.build() for b in bundles]
        self._products = [PRODUCTS[m.product](b) for m, b in zip(self._models, bundles)]
        self._domain = DomainReference(bundles[0])
        self._embeddings = name
        encoder: Any = self._models[0]
        self._dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        for model in self._models:
            module: Any = model
            module.to(settings.device)
        encoder.encoder.to(dtype=self._dtype, memory_format=torch.channels_last)
        self._encoder: Model = encoder

    def tables(self) -> list[tuple[str, list[pa.Field], Bundle]]:
        """Names and fields of the tables this pass fills."""
        size = self._encoder.embedding_size
        embedding = described("embedding", pa.list_(pa.float16(), size), "features of the encoder")
        found = [(self._embeddings, [embedding], self._bundles[0])]
        for product, bundle in zip(self._products, self._bundles):
            found += [(name, fields, bundle) for name, fields in product.fields.items()]
        return found

    def __call__(
        self, batch: torch.Tensor, keys: np.ndarray, quality: np.ndarray, finite: np.ndarray
    ) -> dict[str, dict[str, Any]]:
        """Fill the columns of this pass for the first ``len(keys)`` rows of a padded batch."""
        count = len(keys)
        images = prepare(batch, self._contract)
        features = torch.stack(
            [
                self._encoder.encode(
                    d4(images, view).to(self._dtype).contiguous(memory_format=torch.channels_last)
                ).float()
                for view in range(self._views)
            ]
        )
        embedding = features.mean(0)[:count]
        finite &= torch.isfinite(embedding).all(1).cpu().numpy()
        half = embedding.clamp(-65504, 65504).half().cpu().numpy()
        flat = pa.array(half.reshape(-1))
        size = self._encoder.embedding_size
        values: dict[str, dict[str, Any]] = {
            self._embeddings: {"embedding": pa.FixedSizeListArray.from_arrays(flat, size)}
        }
        distance = self._domain.distance(embedding)
        for model, product, bundle in zip(self._models, self._products, self._bundles):
            outputs = self._heads(model, bundle, features, keys)[:, :count]
            finite &= torch.isfinite(outputs).all(-1).all(0).cpu().numpy()
            values |= product.columns(outputs, distance, quality)
        return values

    def _heads(self, model: Model, bundle: Bundle, features: torch.Tensor, keys: np.ndarray) -> torch.Tensor:
        rows, size = features.shape[1:]
        draws = self._settings.draws or bundle.record.get("inference", {}).get("draws", 1)
        if draws > 1 and model.dropout > 0:
            padded = np.zeros(rows, dtype=np.uint64)
            padded[: len(keys)] = keys
            masks = keyed_dropout(padded, draws, size, model.dropout).to(features.device)
            features = features.unsqueeze(1) * masks
        outputs = model.head(features.reshape(-1, size))
        return outputs.reshape(-1, rows, outputs.shape[-1]).float()


def _group_passes(bundles: Sequence[Bundle], settings: EngineSettings) -> list[EncoderPass]:
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
        passes.append(EncoderPass(members, members[0].contract, json.loads(key)[2], settings, name))
    return passes


def check_domain(bundles: Sequence[Bundle], image: ImageSpec, pixel_scale_arcsec: float | None) -> None:
    """Refuse a catalog that is not what the bundles were trained on.

    Raises
    ------
    InputError
        With every mismatch; ``--force-domain`` skips the check.
    """
    lines = [
        f"{bundle.name}: {line}"
        for bundle in bundles
        for line in bundle.contract.mismatches(image, pixel_scale_arcsec)
    ]
    if lines:
        raise InputError(
            "the catalog is not what the bundle was trained on:\n    " + "\n    ".join(lines),
            where="--input and --bundle",
            fix="choose another bundle, or say --force-domain if you know that the figures will still hold",
        )


def _bad_positions(columns: pa.RecordBatch | pa.Table) -> dict[int, tuple[str, str, str]]:
    if "_healpix_29" not in columns.schema.names:
        return {}
    missing = np.flatnonzero(columns["_healpix_29"].is_null().to_numpy(zero_copy_only=False))
    detail = "ra or dec is missing or out of range"
    return {int(row): ("position", "bad_position", detail) for row in missing}


def _missing_ids(columns: pa.RecordBatch | pa.Table) -> dict[int, tuple[str, str, str]]:
    missing = np.flatnonzero(columns["object_id"].is_null().to_numpy(zero_copy_only=False))
    return {int(row): ("id", "missing_id", "object_id is null") for row in missing}


def _cast(value: Any, field: pa.Field) -> pa.Array:
    if isinstance(value, pa.ChunkedArray):
        value = value.combine_chunks()
    array = value if isinstance(value, pa.Array) else pa.array(value)
    return array if array.type == field.type else array.cast(field.type)
