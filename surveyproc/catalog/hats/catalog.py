"""What an opened HATS catalog is: its properties, its partitions, the files of each, and their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from surveyproc.catalog.hats.layout import FOLDER_SUFFIX, HEALPIX_29, STANDARD_LEAF, leaf_name
from surveyproc.catalog.hats.properties import split_list
from surveyproc.catalog.sky import ORDER, pixel_range
from surveyproc.catalog.storage import arrow_filesystem, is_data_file
from surveyproc.errors import InputError, did_you_mean
from surveyproc.storage import Storage
from surveyproc.stores import explain_store_errors


@dataclass(frozen=True, order=True)
class Partition:
    """One partition: everything of the catalog that lies in a nested HEALPix pixel."""

    order: int
    pixel: int

    @property
    def range29(self) -> tuple[int, int]:
        """Indices at order 29 that it covers: the first, and one past the last."""
        return pixel_range(self.order, self.pixel)


@dataclass(frozen=True)
class HatsCatalog:
    """A HATS catalog of any type, opened from its small files; no data has been read.

    Attributes
    ----------
    uri : str
        As given.
    storage : Storage
        The catalog's own folder: of a collection, that of its primary table.
    kind : str
        ``dataproduct_type``: object, source, margin, association, index, map.
    properties : mapping of str to str
        As they stand in the file.
    schema : pyarrow.Schema
        Of all columns.
    partitions : tuple of Partition
        In sky order (by the first index at order 29); empty for an index, which has none.
    leaf : str
        Path of a leaf below the catalog's folder, with ``{order}``, ``{dir}``, ``{pixel}``, ``{suffix}``.
    margins, indexes, extensions : mapping of str to str
        What else is in the collection: margin name, indexed column, alias of the extension; and its URI.
    default_margin : str or None
        Name of the margin that readers use unasked.
    """

    uri: str
    storage: Storage
    kind: str
    properties: Mapping[str, str] = field(repr=False)
    schema: pa.Schema = field(repr=False)
    partitions: tuple[Partition, ...] = field(repr=False)
    leaf: str = STANDARD_LEAF
    margins: Mapping[str, str] = field(default_factory=dict)
    indexes: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, str] = field(default_factory=dict)
    default_margin: str | None = None

    @property
    def name(self) -> str:
        """``obs_collection``."""
        return self.properties["obs_collection"]

    @property
    def rows(self) -> int | None:
        """Rows as the properties state them; `count_rows` counts. None where they do not."""
        stated = self.properties.get("hats_nrows")
        return int(stated) if stated and stated.isdigit() else None

    @property
    def position_columns(self) -> tuple[str, str] | None:
        """Names of the columns of right ascension and declination, in degrees; None when there are none."""
        names = self.properties.get("hats_col_ra", ""), self.properties.get("hats_col_dec", "")
        if names[0] in self.schema.names and names[1] in self.schema.names:
            return names[0], names[1]
        return None

    @property
    def healpix_column(self) -> tuple[str, int] | None:
        """Column of the nested HEALPix index and its order, often ``("_healpix_29", 29)``; None when there is none."""
        name = self.properties.get("hats_col_healpix") or HEALPIX_29
        if name not in self.schema.names:
            return None
        stated = self.properties.get("hats_col_healpix_order")
        return name, int(stated) if stated else ORDER

    @property
    def default_columns(self) -> list[str]:
        """Columns to read unasked: ``hats_cols_default`` with position and index, or all."""
        stated = split_list(self.properties.get("hats_cols_default"))
        if not stated:
            return list(self.schema.names)
        keys = [*(self.position_columns or ()), *(self.healpix_column or ())[:1]]
        wanted = {*stated, *keys}
        return [name for name in self.schema.names if name in wanted]

    @property
    def suffix(self) -> str:
        """What follows ``Npix=n``: an ending, or ``/`` when leaves are folders of files."""
        stated = self.properties.get("hats_npix_suffix", ".parquet")
        return "/" if stated == "\\" else stated

    @property
    def leaf_names(self) -> list[str]:
        """Names of the leaves, files or folders, relative to `storage`."""
        return [leaf_name(self.leaf, p.order, p.pixel, self.suffix) for p in self.partitions]

    def files(self, partition: Partition | None = None) -> list[str]:
        """List the data files of a partition, or all of them, as names relative to `storage`.

        Only a catalog whose leaves are folders has to be listed for it.

        Raises
        ------
        InputError
            When the folder of a partition has no file.
        """
        if partition is None:
            if self.kind == "index":
                return [n for n in self.storage.walk("dataset") if is_data_file(n)]
            return [file for one in self.partitions for file in self.files(one)]
        name = leaf_name(self.leaf, partition.order, partition.pixel, self.suffix)
        if self.suffix != FOLDER_SUFFIX:
            return [name]
        found = [n for n in self.storage.walk(name) if is_data_file(n)]
        if not found:
            raise missing_leaf(self.storage.path(name))
        return found

    def uris(self, partition: Partition | None = None) -> list[str]:
        """List the same files as full paths; with the protocol, except on a local disk."""
        paths = [self.storage.path(name) for name in self.files(partition)]
        return paths if self.storage.is_local else [self.storage.fs.unstrip_protocol(path) for path in paths]

    def batches(
        self,
        columns: Sequence[str] | None = None,
        partitions: Iterable[Partition] | None = None,
        filter: ds.Expression | None = None,
        batch_rows: int = 65_536,
    ) -> Iterator[pa.RecordBatch]:
        """Stream rows, partition by partition in sky order and in the order of the files.

        Parameters
        ----------
        columns : sequence of str, optional
            `default_columns` unless given.
        partitions : iterable of Partition, optional
            All unless given.
        filter : pyarrow.dataset.Expression, optional
            Rows to keep; pushed down to row groups.
        batch_rows : int
            Most rows of one batch.

        Yields
        ------
        pyarrow.RecordBatch
            With the columns in the order asked for, of the types of `schema`.

        Raises
        ------
        InputError
            A column that is not there; a leaf that is missing or no Parquet.
        """
        wanted = self.default_columns if columns is None else list(columns)
        self._require(wanted)
        if self.kind == "index":
            sources: Iterable[list[str]] = [self.files()]
        else:
            sources = (self.files(p) for p in (self.partitions if partitions is None else partitions))
        for names in sources:
            yield from self._stream(names, wanted, filter, batch_rows)

    def table(
        self,
        columns: Sequence[str] | None = None,
        partitions: Iterable[Partition] | None = None,
        filter: ds.Expression | None = None,
    ) -> pa.Table:
        """Read what `batches` streams into memory."""
        wanted = self.default_columns if columns is None else list(columns)
        batches = list(self.batches(wanted, partitions, filter))
        return pa.Table.from_batches(batches, pa.schema([self.schema.field(name) for name in wanted]))

    def count_rows(self, partition: Partition | None = None) -> int:
        """Count rows from the footers of the files of a partition, or of all.

        Raises
        ------
        InputError
            When a leaf is missing or no Parquet.
        """
        total = 0
        for name in self.files(partition):
            with self._explained(name), self.storage.open(name) as file:
                total += pq.read_metadata(file).num_rows
        return total

    def __repr__(self) -> str:
        orders = [p.order for p in self.partitions]
        spread = f" of orders {min(orders)} to {max(orders)}" if orders else ""
        rows = "unknown" if self.rows is None else f"{self.rows:,}"
        return (
            f"HatsCatalog {self.uri}\n"
            f"  {self.kind} {self.name!r}: {rows} rows in {len(self.partitions):,} partitions{spread}\n"
            f"  columns: {', '.join(self.schema.names)}"
        )

    def _stream(
        self, names: list[str], columns: list[str], filter: ds.Expression | None, rows: int
    ) -> Iterator[pa.RecordBatch]:
        paths = [self.storage.path(name) for name in names]
        with self._explained(names[0]):
            dataset = ds.dataset(
                paths, self.schema, format="parquet", filesystem=arrow_filesystem(self.storage.fs)
            )
            batches = dataset.to_batches(columns=columns, filter=filter, batch_size=rows, use_threads=False)
            yield from (batch for batch in batches if batch.num_rows)

    def _require(self, columns: Iterable[str]) -> None:
        for name in columns:
            if name not in self.schema.names:
                raise InputError(
                    f"no column {name!r} in the catalog.{did_you_mean(name, self.schema.names)}",
                    where=f"{self.uri}; columns: {', '.join(self.schema.names[:20])}",
                    fix="choose a column of the catalog",
                )

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Say of a leaf that is missing, or no Parquet, which one it is."""
        where = self.storage.path(name)
        try:
            with explain_store_errors(where):
                yield
        except FileNotFoundError as error:
            raise missing_leaf(where) from error
        except pa.ArrowException as error:
            raise InputError(
                f"a leaf cannot be read: {str(error).splitlines()[0]}",
                where=where,
                fix="fetch that file again",
            ) from error


def missing_leaf(where: str) -> InputError:
    """A partition is listed, but its file is not there."""
    return InputError(
        "a partition of the catalog has no file",
        where=where,
        fix="fetch it again, or mend partition_info.csv; where leaves lie elsewhere than the standard says, say so: "
        "--leaf PATTERN",
    )
