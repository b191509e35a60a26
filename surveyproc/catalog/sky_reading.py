"""Read the rows of a table that lie in a region: few files, few row groups, then the exact test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.ranges import RangeFile, StoreObject, read_footer
from surveyproc.catalog.sky import ORDER, pixel_centres, pixel_radius
from surveyproc.catalog.sky_regions import Cone, Region
from surveyproc.errors import InputError, UsageError, did_you_mean
from surveyproc.storage import Storage
from surveyproc.stores import is_local
from surveyproc.threads import map_ahead

DISTANCE = "distance_arcsec"
READ_THREADS = 8
GROUP_BYTES = 16 * 2**20
_DISTANCE_FIELD = pa.field(
    DISTANCE,
    pa.float64(),
    metadata={"unit": "arcsec", "ucd": "pos.angDistance", "description": "distance from the cone's centre"},
)


def _own_path(leaf: Leaf) -> Sequence[str]:
    return (leaf.path,)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One Parquet file, and the pixel all its rows are in; ``order`` is None where nothing is known of that.

    Without a path it stands for all files of the pixel.
    """

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
    schema : pyarrow.Schema or None
        All columns; None: those of the first file.
    files : callable
        Full paths of a leaf's files.
    """

    uri: str
    filesystem: Any
    leaves: Sequence[Leaf]
    ra: str = "ra"
    dec: str = "dec"
    healpix: str | None = "_healpix_29"
    healpix_order: int = ORDER
    default_columns: Sequence[str] | None = None
    schema: pa.Schema | None = None
    files: Callable[[Leaf], Sequence[str]] = _own_path


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
    stored = schema_of(table)
    _require_positions(table, stored)
    schema = pa.schema([stored.field(n) for n in _wanted(table, stored, columns)])
    yield _shape(schema.empty_table(), region, np.zeros(0), np.zeros(0))

    def read(target: Target) -> list[pa.Table]:
        return _read(table, target, region, schema)

    for tables in map_ahead(read, targets(table.leaves, region), READ_THREADS):
        yield from tables


def cone_search(table: SkyTable, cone: Cone, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows inside a cone, nearest first; `search` has the parameters."""
    found = pa.concat_tables(search(table, cone, columns))
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


def write_found(found: Iterable[pa.Table], table: SkyTable, path: str) -> int:
    """Write what was found to a Parquet file, streaming.

    Parameters
    ----------
    found : iterable of pyarrow.Table
        Of `search`.
    table : SkyTable
        Where it comes from.
    path : str
        File, any fsspec URI.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    UsageError
        When the file would lie in the table itself.
    """
    folder, _, name = os.fspath(path).rpartition("/")
    storage = Storage(folder or ".")
    if storage.path(name) in {file for leaf in table.leaves if leaf.path for file in table.files(leaf)}:
        raise UsageError("the output would overwrite the input", where=path, fix="choose another --output")
    tables = iter(found)
    first = next(tables)
    text = [f.name for f in first.schema if pa.types.is_string(f.type) and f.name != "object_id"]
    with (
        storage.writing(name) as file,
        pq.ParquetWriter(
            file, first.schema, compression="zstd", compression_level=1, use_dictionary=text
        ) as writer,
    ):
        return sum(_write(writer, piece) for piece in _gathered(chain([first], tables)))


def _write(writer: pq.ParquetWriter, table: pa.Table) -> int:
    rows = max(1, GROUP_BYTES * table.num_rows // max(1, table.nbytes))
    writer.write_table(table, row_group_size=rows)
    return table.num_rows


def _gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join small tables until a row group is full."""
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        waiting.append(table)
        size += table.nbytes
        if size >= GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _read(table: SkyTable, target: Target, region: Region, schema: pa.Schema) -> list[pa.Table]:
    files = table.files(target.leaf)
    return [rows for path in files for rows in _read_file(table, path, target, region, schema)]


def _read_file(
    table: SkyTable, path: str, target: Target, region: Region, schema: pa.Schema
) -> Iterator[pa.Table]:
    with _opened(table.filesystem, path) as file:
        missing = {*schema.names, table.ra, table.dec} - set(file.schema_arrow.names)
        if missing:
            raise InputError(
                f"a file of the table has no column {', '.join(map(repr, sorted(missing)))}",
                where=path,
                fix="name the columns that all files have with --columns",
            )
        for group in _groups(file.metadata, table, target):
            keys = file.read_row_group(group, columns=[table.ra, table.dec], use_threads=False)
            ra, dec = (_degrees(keys[name], name, path) for name in (table.ra, table.dec))
            inside = region.contains(ra, dec)
            if inside.any():
                rows = file.read_row_group(group, columns=schema.names, use_threads=False)
                rows = rows.select(schema.names).filter(pa.array(inside)).cast(schema)
                yield _shape(rows, region, ra[inside], dec[inside])


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


def schema_of(table: SkyTable) -> pa.Schema:
    """Columns of a table: as stated, or those of its first file.

    Raises
    ------
    InputError
        When there is no file, or it cannot be read.
    """
    if table.schema is not None:
        return table.schema
    if not table.leaves:
        raise InputError("the table has no files", where=table.uri, fix="check the step that wrote it")
    with _opened(table.filesystem, table.files(table.leaves[0])[0]) as file:
        return file.schema_arrow


def _require_positions(table: SkyTable, schema: pa.Schema) -> None:
    missing = [name for name in (table.ra, table.dec) if name not in schema.names]
    if missing:
        raise InputError(
            f"no positions: no column {' and '.join(map(repr, missing))}",
            where=f"{table.uri}; columns: {', '.join(schema.names[:20])}",
            fix="choose a table that has them (--table), or join it with one in `surveyproc sql`",
        )


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
            fix="it is missing or damaged: `surveyproc verify` tells more; where the leaves of a HATS catalog lie "
            "elsewhere than the standard says, say so: --leaf PATTERN",
        ) from error
