"""The engine: every encoder once per batch, all heads on its features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError, UsageError
from surveyproc.identifiers import ROW, hash_ids
from surveyproc.images.inputs import mismatches
from surveyproc.inference.passes import group_passes
from surveyproc.inference.products import QUALITY
from surveyproc.inference.screen import screen_pixels
from surveyproc.inference.settings import EngineSettings
from surveyproc.models.bundle import Bundle
from surveyproc.quality import quality_bits

REJECTS_SCHEMA = pa.schema([("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


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
        Further catalog columns to copy into ``morphology``, or into ``embeddings`` where no bundle has a head.

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
        self._passes = group_passes(bundles, settings, image)
        tables = {name for encoder_pass in self._passes for name, _, _ in encoder_pass.tables()}
        self._carrier = "morphology" if "morphology" in tables else "embeddings"
        row = [pa.field(ROW, pa.int32())]
        self.schemas: dict[str, pa.Schema] = {}
        self.provenance: dict[str, dict[str, Any]] = {}
        for encoder_pass in self._passes:
            for name, fields, bundle in encoder_pass.tables():
                extra = [] if QUALITY in fields else [QUALITY]
                extra += [f for f in self._carry if name == self._carrier and f.name != QUALITY.name]
                self._claim(name, pa.schema([*row, *keys, *fields, *extra]), bundle)
        self.schemas["rejects"] = pa.schema([*row, *keys, *REJECTS_SCHEMA, QUALITY])
        self._needs_scale = any(p.needs_pixel_scale for p in self._passes)

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
        condemned: dict[int, tuple[str, str]] | None = None,
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
        condemned : dict, optional
            Rows that must not reach the model, with reason and detail.

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
        stages |= {row: ("model", *why) for row, why in (condemned or {}).items()}
        quality[list(failures)] = 0  # nothing was decoded there to have a flaw
        if "quality" in columns.schema.names:
            quality |= quality_bits(columns["quality"])
        scales = self._pixel_scales(columns, stages) if self._needs_scale else None
        batch = self._pad(pixels, stages)
        ids = columns["object_id"]
        keys = hash_ids(ids.fill_null("" if pa.types.is_string(ids.type) else 0))
        values: dict[str, dict[str, Any]] = {}
        finite = np.ones(count, dtype=bool)
        with torch.inference_mode():
            for encoder_pass in self._passes:
                values |= encoder_pass(batch, keys, quality, finite, scales)
        for row in np.flatnonzero(~finite):
            stages.setdefault(int(row), ("model", "nonfinite_output", "the model's output is not finite"))
        return self._tables(columns, values, stages, quality, first_row)

    def _pad(self, pixels: np.ndarray, stages: dict[int, tuple[str, str, str]]) -> torch.Tensor:
        whole = len(pixels) == self.settings.batch_size and not stages and pixels.flags.writeable
        if not whole:
            padded = np.zeros((self.settings.batch_size, *pixels.shape[1:]), dtype=pixels.dtype)
            padded[: len(pixels)] = pixels
            padded[list(stages)] = 0
            pixels = padded
        return torch.from_numpy(pixels).to(self.settings.device, non_blocking=True)

    def _pixel_scales(
        self, columns: pa.RecordBatch | pa.Table, stages: dict[int, tuple[str, str, str]]
    ) -> np.ndarray:
        """Pixel scale of each row of a padded batch; rows that do not say it are rejects."""
        scales = np.ones(self.settings.batch_size)
        count = columns.num_rows
        if "pixel_scale_arcsec" in columns.schema.names:
            scales[:count] = columns["pixel_scale_arcsec"].cast(pa.float64()).to_numpy(zero_copy_only=False)
        else:
            scales[:count] = np.nan
        for row in np.flatnonzero(~(scales > 0)):
            stages[int(row)] = ("pixels", "no_pixel_scale", "pixel_scale_arcsec is needed by the stretch")
        return np.where(scales > 0, scales, 1.0)

    def _tables(
        self,
        columns: pa.RecordBatch | pa.Table,
        values: dict[str, dict[str, Any]],
        stages: dict[int, tuple[str, str, str]],
        quality: np.ndarray,
        first_row: int,
    ) -> dict[str, pa.Table]:
        count = len(quality)
        keys: dict[str, Any] = {ROW: pa.array(np.arange(first_row, first_row + count, dtype=np.int32))}
        keys |= {name: columns[name] for name in self._keys.names}
        bad = sorted(stages)
        keep = np.ones(count, dtype=bool)
        keep[bad] = False
        tables = {}
        for name in self.per_object:
            carried = {c: columns[c] for c in self._carry.names} if name == self._carrier else {}
            arrays = keys | values[name] | carried | {QUALITY.name: quality}
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
        rejected = rejected.append_column(QUALITY, pa.array(quality[bad], QUALITY.type))
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


def check_domain(
    bundles: Sequence[Bundle],
    image: ImageSpec,
    pixel_scale_arcsec: float | None,
    has_pixel_scale: bool = False,
) -> None:
    """Refuse a catalog that is not what the bundles were trained on, and cannot be made so.

    Raises
    ------
    InputError
        With every mismatch; ``--force-domain`` skips the check.
    """
    lines = [
        f"{bundle.name}: {line}"
        for bundle in bundles
        for line in mismatches(bundle.contract, image, pixel_scale_arcsec, has_pixel_scale)
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
