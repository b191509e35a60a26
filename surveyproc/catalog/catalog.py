"""Open a cutout catalog: footers only, no pixels."""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import overload

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.hats.reader import is_hats
from surveyproc.catalog.ranges import StoreObject, read_footer
from surveyproc.catalog.storage import Location, list_parquet, locate, stat
from surveyproc.cutouts import METADATA_KEY, ImageSpec
from surveyproc.errors import InputError, did_you_mean
from surveyproc.stores import is_local
from surveyproc.threads import map_ahead

HEALPIX_COLUMN = "_healpix_29"
_FOOTER_THREADS = 8
_PAIR = struct.Struct("<qq")
_INGEST = "write it with `surveyproc ingest`, or CatalogWriter in Python"


@dataclass(frozen=True)
class RowGroup:
    """Rows of one row group and its bytes once uncompressed."""

    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RowGroups(Sequence[RowGroup]):
    """The row groups of a file at 16 bytes each: a survey has millions of them.

    Attributes
    ----------
    packed : bytes
        Rows and bytes of each row group as little-endian int64.
    """

    packed: bytes

    @classmethod
    def of(cls, groups: Iterable[tuple[int, int]]) -> RowGroups:
        """Pack pairs of rows and bytes."""
        return cls(b"".join(_PAIR.pack(*pair) for pair in groups))

    def __len__(self) -> int:
        return len(self.packed) // _PAIR.size

    def __iter__(self) -> Iterator[RowGroup]:
        return (RowGroup(*pair) for pair in _PAIR.iter_unpack(self.packed))

    @overload
    def __getitem__(self, index: int) -> RowGroup: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RowGroup]: ...
    def __getitem__(self, index: int | slice) -> RowGroup | Sequence[RowGroup]:
        if isinstance(index, slice):
            return tuple(self)[index]
        return RowGroup(*_PAIR.unpack_from(self.packed, range(len(self))[index] * _PAIR.size))


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """One Parquet file of a catalog, as its footer had it when the catalog was opened.

    Attributes
    ----------
    path : str
        Relative to the catalog's root.
    size : int
        Bytes on disk.
    version : str
        Modification time in ns on a disk, ETag in a store: what `read_batches` pins with ``expect``.
    rows : int
        Rows in the file.
    row_groups : sequence of RowGroup
        In the order of the file.
    """

    path: str
    size: int
    version: str
    rows: int
    row_groups: Sequence[RowGroup] = field(repr=False)


@dataclass(frozen=True)
class Catalog:
    """A cutout catalog that has been checked but not read.

    Attributes
    ----------
    uri : str
        As given.
    schema : pyarrow.Schema
        Columns of the files; the same in each.
    image : ImageSpec
        What the pixels are.
    files : tuple of CatalogFile
        Sorted by path.
    """

    uri: str
    schema: pa.Schema
    image: ImageSpec
    files: tuple[CatalogFile, ...]

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(f.rows for f in self.files)

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return sum(f.size for f in self.files)

    @property
    def has_positions(self) -> bool:
        """Whether there are ``ra`` and ``dec`` columns."""
        return {"ra", "dec"} <= set(self.schema.names)

    @property
    def id_type(self) -> pa.DataType:
        """Type of ``object_id`` as it is read: int64 or string."""
        return id_type_of(self.schema.field("object_id").type)

    def __repr__(self) -> str:
        image = self.image
        height, width, channels = image.shape
        return (
            f"Catalog {self.uri}\n"
            f"  {self.rows:,} rows in {len(self.files):,} files, {self.bytes / 1e6:,.1f} MB on disk\n"
            f"  image: {image.encoding} {image.dtype} {height} x {width} px, {channels} bands "
            f"({', '.join(image.bands)}), stretch {image.stretch}\n"
            f"  columns: {', '.join(self.schema.names)}"
        )


def id_type_of(stored: pa.DataType) -> pa.DataType | None:
    """Type an id column is read as: int64, string, or None when it cannot hold ids."""
    if pa.types.is_dictionary(stored):
        stored = stored.value_type
    if pa.types.is_integer(stored):
        return pa.int64()
    if pa.types.is_string(stored) or pa.types.is_large_string(stored) or pa.types.is_string_view(stored):
        return pa.string()
    return None


def open_catalog(uri: str) -> Catalog:
    """Open a cutout catalog from its footers.

    Parameters
    ----------
    uri : str
        A folder of Parquet files (plain, or HATS with ``dataset/``), or one Parquet file; any fsspec URI.

    Returns
    -------
    Catalog
        Its files, rows, columns and pixels.

    Raises
    ------
    InputError
        Nothing there, a file that is not Parquet, files that differ in pixels or columns, columns
        missing or of the wrong kind, or no rows.

    Examples
    --------
    >>> catalog = open_catalog("gz.cat")  # doctest: +SKIP
    >>> catalog.rows, catalog.image.shape  # doctest: +SKIP
    (4057, (424, 424, 3))
    """
    location = locate(uri)
    names = list_parquet(location)
    footers = map_ahead(lambda name: _read_footer(location, name), names, _FOOTER_THREADS)
    first, schema = next(footers)
    if "image" not in schema.names and is_hats(str(uri)):
        raise InputError(
            f"this is a HATS catalog, but no cutout catalog: it has no column 'image' ({len(schema)} columns)",
            where=str(uri),
            fix="query it with `surveyproc cone` or `surveyproc sql`; to run bundles, make cutouts of its "
            "objects with `surveyproc ingest --tiles`",
        )
    spec = _image_spec(schema, location.path(names[0]))
    files = [first]
    for file, other in footers:
        files.append(file)
        if other.equals(schema, check_metadata=True):
            continue
        where = location.path(file.path)
        found = _image_spec(other, where)
        if found != spec:
            raise InputError(
                f"mixed shapes: {_differences(spec, found)}",
                where=f"{where} differs from {names[0]}",
                fix="keep one kind of cutout in a catalog: move these files into a catalog of their own",
            )
        _require_same_columns(schema, other, where, names[0])
    catalog = Catalog(str(uri), schema, spec, tuple(files))
    if catalog.rows == 0:
        raise InputError(
            "the catalog has no rows", where=str(uri), fix="check the step that wrote it; nothing to do here"
        )
    return catalog


def _read_footer(location: Location, name: str) -> tuple[CatalogFile, pa.Schema]:
    path = location.path(name)
    source = None if is_local(location.filesystem) else StoreObject(location.filesystem, path)
    size, version = (source.size, source.version) if source else stat(location.filesystem, path)
    if size == 0:
        raise InputError(
            "a catalog file is empty (zero bytes)",
            where=path,
            fix="remove it or write it again; an interrupted copy leaves such files",
        )
    try:
        metadata = read_footer(source) if source else pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"not a readable Parquet file: {str(error).splitlines()[0]}",
            where=path,
            fix="remove it or write it again; a truncated copy looks like this",
        ) from error
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    row_groups = RowGroups.of((g.num_rows, g.total_byte_size) for g in groups)
    return CatalogFile(name, size, version, metadata.num_rows, row_groups), schema


def _image_spec(schema: pa.Schema, where: str) -> ImageSpec:
    for name, what in (("object_id", "ids"), ("image", "cutouts")):
        count = len(schema.get_all_field_indices(name))
        if count != 1:
            hint = did_you_mean(name, schema.names) if name == "object_id" and count == 0 else ""
            raise InputError(
                f"{'no' if count == 0 else 'more than one'} column {name!r} ({what}).{hint}",
                where=f"{where}; columns: {', '.join(schema.names[:20])}",
                fix=f"a cutout catalog has the columns object_id and image: {_INGEST}",
            )
    stored = schema.field("object_id").type
    if id_type_of(stored) is None:
        raise InputError(
            f"column 'object_id' is {stored}; ids are int64 or string",
            where=where,
            fix="write the ids again as integers (not floating point: it loses digits) or text",
        )
    image = schema.field("image")
    text = (image.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise InputError(
            f"column 'image' ({image.type}) lacks the {METADATA_KEY.decode()!r} metadata",
            where=where,
            fix=_INGEST,
        )
    spec = ImageSpec.from_json(text, where)
    _check_image_type(image.type, spec, where)
    return spec


def _check_image_type(stored: pa.DataType, spec: ImageSpec, where: str) -> None:
    if pa.types.is_fixed_size_binary(stored):
        if spec.encoding == "raw" and stored.byte_width == spec.nbytes:
            return
        wanted = (
            f"{spec.shape} {spec.dtype} needs {spec.nbytes} bytes"
            if spec.encoding == "raw"
            else f"{spec.encoding} images differ in length"
        )
        raise InputError(
            f"column 'image' holds {stored.byte_width} bytes per row, but by its metadata {wanted}",
            where=where,
            fix=_INGEST,
        )
    if not (pa.types.is_binary(stored) or pa.types.is_large_binary(stored)):
        raise InputError(
            f"column 'image' is {stored}; pixels are read from binary columns only",
            where=where,
            fix="store each cutout as bytes (fixed_size_binary, or binary for JPEG/PNG), not as a list",
        )


def _differences(one: ImageSpec, other: ImageSpec) -> str:
    names = [f.name for f in fields(ImageSpec)]
    pairs = ((name, getattr(one, name), getattr(other, name)) for name in names)
    return "; ".join(
        f"{name} {found} where the others have {first}" for name, first, found in pairs if first != found
    )


def _require_same_columns(schema: pa.Schema, other: pa.Schema, where: str, first: str) -> None:
    one = {f.name: f.type for f in schema}
    two = {f.name: f.type for f in other}
    if one == two:
        return
    odd = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    raise InputError(
        f"files of the catalog have different columns: {', '.join(odd[:5])}",
        where=f"{posixpath.basename(where)} differs from {first}",
        fix="write all files with the same columns and types",
    )
