"""Read the rows of a table that lie in a region: few files, few row groups, then the exact test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.ranges import RangeFile, StoreObject, read_footer
from surveyproc.catalog.sky import ORDER, pixel_centres, pixel_radius
from surveyproc.catalog.sky_regions import Cone, Region
from surveyproc.errors import InputError, UsageError, did_you_mean
from surveyproc.stores import is_local
from surveyproc.threads import map_ahead

DISTANCE = "distance_arcsec"
READ_THREADS = 8
_DISTANCE_FIELD = pa.field(
    DISTANCE,
    pa.float64(),
    metadata={"unit": "arcsec", "ucd": "pos.angDistance", "description": "distance from the cone's centre"},
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One Parquet file, and the pixel all its rows are in; ``order`` is None where nothing is known of that."""

    path: str
    order: int | None = None
    pixel: int = 0


@dataclass(frozen=True)
class SkyTable:
    """Where the rows of a table with positions are.

    Attributes
    ----------
    uri : str
        For messages.
    filesystem : fsspec.AbstractFileSystem
    leaves : sequence of Leaf
    ra, dec : str
        Columns with the positions, degrees.
    healpix : str or None
        Column with nested pixels of the positions, by which row groups are skipped.
    healpix_order : int
        Their order.
    default_columns : sequence of str or None
        What is read unless columns are named; None for all that are neither nested nor binary.
    """

    uri: str
    filesystem: Any
    leaves: Sequence[Leaf]
    ra: str = "ra"
    dec: str = "dec"
    healpix: str | None = "_healpix_29"
    healpix_order: int = ORDER
    default_columns: Sequence[str] | None = None


@dataclass(frozen=True)
class Target:
    """A leaf to read, and the one range of pixels at order 29 in which its rows can be inside."""

    leaf: Leaf
    low: int
    high: int


def search(table: SkyTable, region: Region, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Read the rows inside a region, leaf by leaf.

    Parameters
    ----------
    table : SkyTable
    region : Region
        For a `Cone` the column ``distance_arcsec`` comes first.
    columns : sequence of str, optional
        ``["all"]`` is every column.

    Yields
    ------
    pyarrow.Table
        At least one, so that columns are known when no row is inside; types and metadata as stored.

    Raises
    ------
    UsageError
        For columns that are not there.
    InputError
        When the table has no positions, or a file cannot be read.
    """
    schema = _schema(table)
    names = _wanted(table, schema, columns)
    yield _shape(pa.Table.from_batches([], schema).select(names), region, np.zeros(0), np.zeros(0))

    def read(target: Target) -> list[pa.Table]:
        return _read(table, target, region, names)

    for tables in map_ahead(read, targets(table.leaves, region), READ_THREADS):
        yield from tables


def cone_search(table: SkyTable, cone: Cone, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows inside a cone, nearest first; `search` has the parameters."""
    found = pa.concat_tables(search(table, cone, columns), promote_options="permissive")
    return found.take(pa.array(np.argsort(found[DISTANCE].to_numpy(), kind="stable")))


def targets(leaves: Sequence[Leaf], region: Region) -> list[Target]:
    """Choose the leaves that may hold rows of a region, each with one range of pixels.

    Notes
    -----
    A range from the first to the last pixel is read faster than an exact list of ranges, and the exact
    test follows anyway; but one for each leaf, since the pixels of a small region that lies across base pixels
    are far apart.
    """
    cover = region.cover()
    chosen = [Target(leaf, 0, 12 << 2 * ORDER) for leaf in leaves if leaf.order is None]
    placed = [leaf for leaf in leaves if leaf.order is not None]
    orders, pixels = (np.array([getattr(leaf, n) for leaf in placed], np.int64) for n in ("order", "pixel"))
    shift = 2 * (ORDER - orders)
    first, last = pixels << shift, (pixels + 1) << shift
    begin = np.searchsorted(cover[:, 1], first, side="right")
    end = np.searchsorted(cover[:, 0], last, side="left")
    meets = end > begin
    for order in np.unique(orders[meets]):
        here = np.flatnonzero(meets & (orders == order))
        meets[here] = region.near(*pixel_centres(int(order), pixels[here]), pixel_radius(int(order)))
    for i in np.flatnonzero(meets):
        low, high = max(first[i], cover[begin[i], 0]), min(last[i], cover[end[i] - 1, 1])
        chosen.append(Target(placed[i], int(low), int(high)))
    return chosen


def _read(table: SkyTable, target: Target, region: Region, columns: list[str]) -> list[pa.Table]:
    found = []
    with _opened(table.filesystem, target.leaf.path) as file:
        for group in _groups(file.metadata, table, target):
            keys = file.read_row_group(group, columns=[table.ra, table.dec], use_threads=False)
            ra, dec = (_degrees(keys[name], name, target.leaf.path) for name in (table.ra, table.dec))
            inside = region.contains(ra, dec)
            if inside.any():
                rows = file.read_row_group(group, columns=columns, use_threads=False).select(columns)
                found.append(_shape(rows.filter(pa.array(inside)), region, ra[inside], dec[inside]))
    return found


def _shape(rows: pa.Table, region: Region, ra: np.ndarray, dec: np.ndarray) -> pa.Table:
    """Add the distance where there is a centre."""
    if not isinstance(region, Cone):
        return rows
    if DISTANCE in rows.column_names:
        rows = rows.drop_columns([DISTANCE])
    return rows.add_column(0, _DISTANCE_FIELD, pa.array(region.distance_arcsec(ra, dec)))


def _groups(metadata: pq.FileMetaData, table: SkyTable, target: Target) -> Iterator[int]:
    """Row groups whose statistics do not exclude the range; all of them where there are none."""
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    position = paths.index(table.healpix) if table.healpix in paths else None
    shift = 2 * (ORDER - table.healpix_order)
    low, high = target.low >> shift, (target.high - 1) >> shift
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group).column(position).statistics if position is not None else None
        if found is None or not found.has_min_max or (found.max >= low and found.min <= high):
            yield group


def _degrees(column: pa.ChunkedArray, name: str, path: str) -> np.ndarray:
    try:
        return column.cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"column {name!r} is {column.type}, not degrees",
            where=path,
            fix="store positions as decimal degrees (ICRS)",
        ) from error


def _schema(table: SkyTable) -> pa.Schema:
    if not table.leaves:
        raise InputError("the table has no files", where=table.uri, fix="check the step that wrote it")
    with _opened(table.filesystem, table.leaves[0].path) as file:
        schema = file.schema_arrow
    missing = [name for name in (table.ra, table.dec) if name not in schema.names]
    if missing:
        raise InputError(
            f"no positions: no column {' and '.join(map(repr, missing))}",
            where=f"{table.uri}; columns: {', '.join(schema.names[:20])}",
            fix="name a table with positions (--table), or join one with `surveyproc sql`",
        )
    return schema


def _wanted(table: SkyTable, schema: pa.Schema, columns: Sequence[str] | None) -> list[str]:
    if columns is None:
        defaults = table.default_columns
        if defaults is not None:
            return [n for n in schema.names if n in set(defaults)]
        return [f.name for f in schema if not (pa.types.is_nested(f.type) or _is_binary(f.type))]
    if list(columns) == ["all"]:
        return list(schema.names)
    names = [c for c in dict.fromkeys(columns) if c != DISTANCE or c in schema.names]
    unknown = [c for c in names if c not in schema.names]
    if unknown:
        hints = "".join(did_you_mean(c, schema.names) for c in unknown)
        raise UsageError(
            f"no column {', '.join(map(repr, unknown))} in the table.{hints}",
            where=table.uri,
            fix=f"columns: {', '.join(schema.names[:20])}{', ...' if len(schema.names) > 20 else ''}",
        )
    return names


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


@contextmanager
def _opened(filesystem: Any, path: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; from a store little more than the wanted columns is fetched."""
    try:
        if is_local(filesystem):
            with pq.ParquetFile(path) as file:
                yield file
            return
        source = StoreObject(filesystem, path)
        with (
            RangeFile(source.fetch, source.size, []) as raw,
            pq.ParquetFile(raw, metadata=read_footer(source), pre_buffer=True) as file,
        ):
            yield file
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"a file of the table cannot be read: {str(error).splitlines()[0]}",
            where=path,
            fix="it is missing or damaged: restore it; `surveyproc verify` checks a run",
        ) from error
