"""The files of a catalog as their footers describe them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.ranges import StoreObject, read_footer
from surveyproc.catalog.storage import Location, stat
from surveyproc.errors import InputError
from surveyproc.stores import is_local

_PAIR = struct.Struct("<qq")


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


def read_parquet_footer(location: Location, name: str) -> tuple[CatalogFile, pa.Schema]:
    """Read what the footer of a Parquet file says.

    Raises
    ------
    InputError
        When it is empty, or no Parquet file.
    """
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
    except ValueError as error:  # of an extension type that Ray has registered in this process
        raise InputError(
            f"the type of a column cannot be read without opening a pickle: {str(error).splitlines()[0]}",
            where=path,
            fix="give --shape to `surveyproc repack`, which does not load Ray, or write the column again",
        ) from error
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    row_groups = RowGroups.of((g.num_rows, g.total_byte_size) for g in groups)
    return CatalogFile(name, size, version, metadata.num_rows, row_groups), schema
