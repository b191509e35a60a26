"""What is repacked: rows of any catalog, in units, with their pixels decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from surveyproc.catalog import Catalog, read_batches
from surveyproc.catalog.adapters.needs import guess_positions
from surveyproc.catalog.sky import healpix29
from surveyproc.columns import known
from surveyproc.cutouts import ImageSpec
from surveyproc.images.decode import (
    BadImage,
    Failures,
    check_shape,
    decode_batch,
    decode_image,
    find_unusable,
)
from surveyproc.ingest.loading import resized
from surveyproc.ingest.repack.converting import PLACED, SCALED, Wanted, narrowed
from surveyproc.ingest.sources import PRINTED
from surveyproc.quality import quality_bits
from surveyproc.runs.plan import Shard, cut_shards, input_digest

BATCH_BYTES = 8 << 20
KEY_ROWS = 65_536
HEALPIX = "_healpix_29"


@dataclass(frozen=True)
class Batch:
    """Rows of the new catalog before they are written, and why others are not among them.

    Attributes
    ----------
    columns : pyarrow.Table
        All N rows, without ``image``.
    pixels : numpy.ndarray
        ``(N, H, W, C)`` of the new catalog; zeros where a row failed.
    failures : dict of int to (str, str)
        Reason and detail of the rows that failed.
    """

    columns: pa.Table
    pixels: np.ndarray
    failures: Failures


class Source(Protocol):
    """What a repack reads; small and picklable."""

    @property
    def spec(self) -> ImageSpec:
        """Pixels of the new catalog."""
        ...

    @property
    def columns(self) -> pa.Schema:
        """Its other columns, ids first; with ``_healpix_29`` where there are positions."""
        ...

    @property
    def left_out(self) -> list[str]:
        """Columns that are not kept."""
        ...

    @property
    def rows(self) -> int:
        """Rows in all."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        ...

    @property
    def note(self) -> str:
        """What the user may want to know."""
        ...

    def digest(self) -> str:
        """Digest of the names, sizes and versions of the files."""
        ...

    def shards(self, rows: int) -> Iterator[Shard]:
        """Cut the rows into units of about so many."""
        ...

    def keys(self, shard: Shard) -> pa.Table:
        """Ids, positions and ``_healpix_29`` of the rows of a unit, as far as there are any."""
        ...

    def batches(self, shard: Shard) -> Iterator[Batch]:
        """Read and decode a unit."""
        ...


@dataclass(frozen=True)
class CatalogSource:
    """A catalog in any form that `open_catalog` reads.

    Attributes
    ----------
    catalog : Catalog
    wanted : Wanted
    """

    catalog: Catalog
    wanted: Wanted

    @cached_property
    def spec(self) -> ImageSpec:
        """Pixels of the new catalog."""
        return self.wanted.spec(self.catalog.image)

    @cached_property
    def columns(self) -> pa.Schema:
        """Its other columns, ids first."""
        kept = [field for field in self.catalog.schema if self._keeps(field)]
        fields = [known("object_id", self.catalog.id_type)]
        if self.catalog.has_positions:
            fields += position_fields()
        names = {"object_id", "ra", "dec", HEALPIX, "image"}
        fields += [field for field in kept if field.name not in names]
        if self.spec.dtype != self.catalog.image.dtype and "quality" not in self.catalog.schema.names:
            fields.append(known("quality", pa.int32()))
        return pa.schema(fields)

    @property
    def left_out(self) -> list[str]:
        """Columns that are not kept: lists, structs and bytes, but for those by band and planes of the same pixels."""
        return [
            field.name for field in self.catalog.schema if field.name != "image" and not self._keeps(field)
        ]

    @property
    def rows(self) -> int:
        """Rows in all."""
        return self.catalog.rows

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self.catalog.bytes

    @property
    def note(self) -> str:
        """Positions that could have been meant."""
        return "" if self.catalog.has_positions else guess_positions(self.catalog.schema.names)

    def digest(self) -> str:
        """Digest of the files."""
        return input_digest(self.catalog)

    def shards(self, rows: int) -> Iterator[Shard]:
        """Cut at row groups."""
        return cut_shards(self.catalog, rows)

    def keys(self, shard: Shard) -> pa.Table:
        """Ids and positions."""
        names = ["object_id"] if not self.catalog.form.numbered else []
        names += ["ra", "dec"] if self.catalog.has_positions else []
        if not names:
            return pa.table({"object_id": np.arange(shard.first_row, shard.first_row + shard.rows)})
        tables, first = [], 0
        for batch in self._read(shard, KEY_ROWS, names):
            tables.append(self._standard(batch, shard, first))
            first += batch.num_rows
        return pa.concat_tables(tables)

    def batches(self, shard: Shard) -> Iterator[Batch]:
        """Read and decode a unit."""
        numbered = ["object_id"] if self.catalog.form.numbered else []
        made = {HEALPIX, *numbered}
        if "quality" not in self.catalog.schema.names:
            made.add("quality")
        names = [name for name in self.columns.names if name not in made]
        size = max(self.catalog.image.nbytes, self.spec.nbytes)
        rows, first = max(1, min(1024, BATCH_BYTES // size)), 0
        for batch in self._read(shard, rows, [*names, "image"]):
            pixels, failures, quality = self._decode(batch["image"])
            columns = self._standard(batch.drop_columns(["image"]), shard, first)
            columns = self._rescaled(columns, quality)
            yield Batch(columns.select(self.columns.names).cast(self.columns), pixels, failures)
            first += batch.num_rows

    def _keeps(self, field: pa.Field) -> bool:
        kind = field.type
        scalars = pa.types.is_primitive(kind) or pa.types.is_dictionary(kind) or is_text(kind)
        small = pa.types.is_fixed_size_list(kind) and kind.list_size == len(self.catalog.image.bands)
        plane = pa.types.is_fixed_size_binary(kind) and self.spec.shape == self.catalog.image.shape
        return field.name == "object_id" or scalars or small or plane

    def _read(self, shard: Shard, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return read_batches(
            self.catalog.uri,
            shard.file,
            range(shard.group_start, shard.group_stop),
            rows,
            columns,
            expect=(shard.size, shard.version),
            form=self.catalog.form,
        )

    def _standard(self, batch: pa.RecordBatch, shard: Shard, first: int) -> pa.Table:
        """Rows with ids as they are meant, and the index of their positions."""
        columns = {name: batch.column(name) for name in batch.schema.names if name != HEALPIX}
        if self.catalog.form.numbered:
            start = shard.first_row + first
            columns = {"object_id": pa.array(np.arange(start, start + batch.num_rows))} | columns
        if pa.types.is_string(columns["object_id"].type):
            columns["object_id"] = unprinted(columns["object_id"])
        if self.catalog.has_positions:
            columns[HEALPIX] = sky_index(columns["ra"], columns["dec"])
        return pa.table(columns)

    def _decode(self, column: pa.Array) -> tuple[np.ndarray, Failures, np.ndarray]:
        if self.catalog.image.encoding == "raw" and self.wanted.size is None:
            pixels, failures = decode_batch(column, self.catalog.image)
        else:
            pixels, failures = self._one_by_one(column)
        for row, why in find_unusable(pixels).items():
            failures.setdefault(row, why)
        pixels, quality = narrowed(pixels, np.dtype(self.spec.dtype))
        return pixels, failures, quality

    def _one_by_one(self, column: pa.Array) -> tuple[np.ndarray, Failures]:
        """Decode rows of any size, JPEG and PNG alike."""
        pixels = np.zeros((len(column), *self.spec.shape), self.catalog.image.dtype)
        raw = None
        failures: Failures = {}
        if self.catalog.image.encoding == "raw":
            raw, failures = decode_batch(column, self.catalog.image)
        for row in range(len(column)):
            if row in failures:
                continue
            try:
                pixels[row] = self._one(column[row], None if raw is None else raw[row])
            except BadImage as error:
                failures[row] = (error.reason, error.detail)
        return pixels, failures

    def _one(self, value: pa.Scalar, found: np.ndarray | None) -> np.ndarray:
        if found is None:
            if not value.is_valid:
                raise BadImage("missing_image", "the image is null")
            found = decode_image(value.as_buffer())
        if self.wanted.size is not None:
            found = resized(found, self.wanted.size, self.spec.shape[2])
        check_shape(found.shape, self.spec.shape)
        return found

    def _rescaled(self, columns: pa.Table, quality: np.ndarray) -> pa.Table:
        """Columns that follow from the size of a pixel and from what the cast did."""
        old, new = self.catalog.image.shape[0], self.spec.shape[0]
        for name in columns.column_names if old != new else ():
            values = columns[name]
            if name in SCALED:
                values = pc.multiply(values, old / new)
            elif name in PLACED:
                values = pc.subtract(pc.multiply(pc.add(values, 0.5), new / old), 0.5)
            columns = columns.set_column(columns.column_names.index(name), name, values)
        if "quality" not in self.columns.names:
            return columns
        if "quality" not in columns.column_names:
            return columns.append_column("quality", pa.array(quality))
        bits = pa.array(quality | quality_bits(columns["quality"]))
        return columns.set_column(columns.column_names.index("quality"), "quality", bits)


def position_fields() -> list[pa.Field]:
    """The columns of positions."""
    return [known("ra", pa.float64()), known("dec", pa.float64()), known(HEALPIX, pa.int64())]


def sky_index(ra: pa.Array, dec: pa.Array) -> pa.Array:
    """``_healpix_29``; null where a position is not usable."""
    pixels = healpix29(*(values.to_numpy(zero_copy_only=False) for values in (ra, dec)))
    return pa.array(pixels.data, pa.int64(), mask=np.ma.getmaskarray(pixels))


def unprinted(ids: pa.Array) -> pa.Array:
    """Ids without the ``b'...'`` of printed bytes."""
    for pattern in PRINTED:
        ids = pc.replace_substring_regex(ids, pattern, r"\1")
    return ids


def is_text(kind: pa.DataType) -> bool:
    """Whether a column is text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
