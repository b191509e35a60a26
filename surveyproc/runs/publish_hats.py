"""Tables to a HATS collection, pixel by pixel: units with commits, and a margin of the first table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from surveyproc.catalog.hats.collection import collection_file, extension_file, margin_properties
from surveyproc.catalog.hats.layout import (
    COLLECTION,
    CREATION_DATE,
    HEALPIX_29,
    choose_pixels,
    leaf_path,
    metadata_files,
)
from surveyproc.catalog.hats.margin import Cover, margin_rows
from surveyproc.catalog.hats.parquet import ROW_GROUP_ROWS, parquet_settings
from surveyproc.catalog.sky import pixel_range
from surveyproc.errors import InputError
from surveyproc.identifiers import id_sum
from surveyproc.runs import skymap
from surveyproc.runs.ledger import Attempt, Commit, Ledger, Part, part_path
from surveyproc.runs.merge import DESCRIPTIONS, TABLE_BYTES
from surveyproc.runs.publish_names import Names
from surveyproc.runs.publish_source import SourceTable
from surveyproc.runs.skymap import SkyMap
from surveyproc.voparquet import with_votable

CELL = "_cell"  # number of a margin's cell, a column of parts only


@dataclass(frozen=True)
class HatsTable:
    """A table on its way to a HATS catalog.

    Attributes
    ----------
    source : SourceTable
    names : Names
    pixels : list of (int, int)
        Order and pixel of its partitions.
    sky : SkyMap
        Which files have rows in which pixels.
    margin_arcsec : float or None
        Width of the margin that is made with it.
    """

    source: SourceTable
    names: Names
    pixels: list[tuple[int, int]]
    sky: SkyMap
    margin_arcsec: float | None

    @property
    def name(self) -> str:
        """Name of the table."""
        return self.source.name

    @property
    def margin_name(self) -> str:
        """Name of its margin."""
        return f"{self.name}_{self.margin_arcsec:g}arcs"

    @cached_property
    def cover(self) -> Cover:
        """The sky as its partitions and what is between them."""
        return Cover.of(self.pixels)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the leaves."""
        return with_votable(self.names.schema(self._stored), self.name, DESCRIPTIONS.get(self.name, ""))

    @property
    def _stored(self) -> pa.Schema:
        schema = self.source.schema
        return schema if HEALPIX_29 in schema.names else schema.append(pa.field(HEALPIX_29, pa.int64()))

    def unit(self, order: int, pixel: int) -> str:
        """Name of the unit of a partition."""
        return f"publish-{self.name}-{order}-{pixel}"

    def margin_unit(self, order: int, pixel: int) -> str:
        """Name of the unit of a partition of the margin."""
        return f"margin-{self.name}-{order}-{pixel}"


def survey(source: SourceTable, names: Names, margin_arcsec: float | None) -> HatsTable:
    """Read where the rows are, and choose the partitions.

    Raises
    ------
    InputError
        When the table has no positions.
    """
    if not source.has_positions:
        raise InputError(
            f"the table {source.name!r} has no positions (columns ra and dec), so that HATS has no place for it",
            where=source.files[0].storage.uri,
            fix="publish it with --format parquet, fits or votable; a run of a catalog with ra and dec has them",
        )
    sky = SkyMap()
    for number in range(len(source.files)):
        pieces = [t[HEALPIX_29].to_numpy() for t in source.read_positioned(number, [HEALPIX_29])]
        sky.add(np.concatenate(pieces) if pieces else np.empty(0, np.int64))
    size = sum(file.bytes for file in source.files)
    most = max(1, TABLE_BYTES * source.rows // max(1, size))
    pixels = list(choose_pixels(sky.histogram, skymap.ORDER, most))
    return HatsTable(source, names, pixels, sky, margin_arcsec)


def write_leaf(ledger: Ledger, table: HatsTable, place: tuple[int, int]) -> Commit:
    """Write one partition, and beside it which of its rows belong to the margins of others; commit both."""
    order, pixel = place
    unit = table.unit(order, pixel)
    done = ledger.commit_of(unit)
    if done is not None:
        return done
    attempt = ledger.begin(unit)
    pieces = [
        piece
        for number in table.sky.shards_in(order, pixel)
        for piece in _pieces(table, int(number), order, pixel)
    ]
    rows = pa.concat_tables(pieces)
    rows = rows.take(pa.array(np.argsort(rows[HEALPIX_29].to_numpy(), kind="stable")))
    published = table.names.apply(rows)
    part = _write(attempt, table.name, published, table.schema, id_sum(rows["object_id"]))
    facts: dict[str, Any] = {"pixel": [order, pixel], "cells": []}
    facts["targets"] = [[table.name, f"{table.name}/{leaf_path(order, pixel)}"]]
    if table.margin_arcsec is not None:
        ra, dec = (rows[name].to_numpy() for name in ("ra", "dec"))
        near, cells = margin_rows(ra, dec, table.cover, table.margin_arcsec)
        if len(near):
            facts["cells"] = np.unique(cells).tolist()
            outside = published.take(pa.array(near)).append_column(CELL, pa.array(cells, pa.int64()))
            _write(attempt, "margin", outside, outside.schema, 0)
    return attempt.commit(part.rows, 0, facts)


def write_margin_leaf(ledger: Ledger, table: HatsTable, margin: tuple[int, int, int, list[Commit]]) -> Commit:
    """Write one partition of the margin from what the leaves around it set aside; see `margin_cells`."""
    order, pixel, cell, leaves = margin
    unit = table.margin_unit(order, pixel)
    done = ledger.commit_of(unit)
    if done is not None:
        return done
    attempt = ledger.begin(unit)
    pieces = []
    for leaf in leaves:
        with ledger.storage.open(leaf.parts["margin"].path) as file:
            found = pq.read_table(file, use_threads=False)
        pieces.append(found.filter(pc.equal(found[CELL], cell)).drop_columns([CELL]))
    rows = pa.concat_tables(pieces)
    rows = rows.take(pa.array(np.argsort(rows[HEALPIX_29].to_numpy(), kind="stable")))
    part = _write(attempt, table.margin_name, rows, table.schema, 0)
    target = f"{table.margin_name}/{leaf_path(order, pixel)}"
    return attempt.commit(part.rows, 0, {"pixel": [order, pixel], "targets": [[table.margin_name, target]]})


def margin_cells(table: HatsTable, leaves: list[Commit]) -> Iterator[tuple[int, int, int, list[Commit]]]:
    """List the partitions of the margin: order, pixel, number of the cell, and the leaves with rows for it."""
    by_cell: dict[int, list[Commit]] = {}
    for leaf in leaves:
        for cell in leaf.facts["cells"]:
            by_cell.setdefault(cell, []).append(leaf)
    for cell, found in sorted(by_cell.items()):
        yield int(table.cover.orders[cell]), int(table.cover.pixels[cell]), cell, found


def catalog_files(
    table: HatsTable, leaves: list[Commit], margins: list[Commit], provenance: dict[str, str]
) -> dict[str, bytes]:
    """Make the small files of a published table and its margin, by their paths in the collection."""

    def files(name: str, commits: list[Commit], kind: str, more: dict[str, str]) -> dict[str, bytes]:
        pixels = [(*commit.facts["pixel"], commit.rows) for commit in commits]
        made = metadata_files(name, table.schema, pixels, provenance | more, kind)
        return {f"{name}/{file}": data for file, data in made.items()}

    found = files(table.name, leaves, "object", {})
    if table.margin_arcsec is not None:
        more = margin_properties(table.name, table.margin_arcsec)
        found |= files(table.margin_name, margins, "margin", more)
    return found


def collection_files(name: str, tables: list[HatsTable], provenance: dict[str, str]) -> dict[str, bytes]:
    """Make ``collection.properties``, and the description of each further table as an extension of the first."""
    primary, *others = tables
    dated = {CREATION_DATE: provenance[CREATION_DATE]}
    key = primary.names.id_column
    files = {
        f"{other.name}.properties": extension_file(
            other.name,
            name,
            other.name,
            [column for column in other.schema.names if column not in (key, "ra", "dec", HEALPIX_29)],
            key,
            dated,
        )
        for other in others
    }
    margins = [primary.margin_name] if primary.margin_arcsec is not None else []
    extensions = {other.name: f"{other.name}.properties" for other in others}
    files[COLLECTION] = collection_file(name, primary.name, margins, extensions, provenance)
    return files


def _pieces(table: HatsTable, number: int, order: int, pixel: int) -> Iterator[pa.Table]:
    low, high = pixel_range(order, pixel)
    for piece in table.source.read_positioned(number):
        index = piece[HEALPIX_29]
        yield piece.filter(pc.and_(pc.greater_equal(index, low), pc.less(index, high)))


def _write(attempt: Attempt, name: str, rows: pa.Table, schema: pa.Schema, ids: int) -> Part:
    path = part_path(attempt.unit, attempt.id, name)
    with attempt.ledger.storage.writing(path) as sink:
        writer = pq.ParquetWriter(pa.PythonFile(sink, "w"), schema, **parquet_settings(schema))
        writer.write_table(rows.cast(schema), row_group_size=ROW_GROUP_ROWS)
        writer.close()
    part = Part(path, rows.num_rows, sink.nbytes, sink.sha256, ids)
    attempt.add_part(name, part)
    return part
