"""Write HATS catalogs of any rows in bounded memory: partitions by count or bytes, sorted, with a margin."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.hats.catalog import HatsCatalog
from surveyproc.catalog.hats.collection import collection_file, margin_properties
from surveyproc.catalog.hats.layout import (
    COLLECTION,
    FOLDER_SUFFIX,
    HEALPIX_29,
    choose_occupied_pixels,
    leaf_path,
    metadata_files,
)
from surveyproc.catalog.hats.margin import Cover, margin_rows
from surveyproc.catalog.hats.parquet import ROW_GROUP_ROWS, parquet_settings
from surveyproc.catalog.hats.reader import open_hats
from surveyproc.catalog.sky import healpix29, parent_pixel
from surveyproc.catalog.storage import UNFINISHED
from surveyproc.catalog.writer import require_writable_output
from surveyproc.columns import known
from surveyproc.errors import InputError
from surveyproc.storage import Storage
from surveyproc.voparquet import with_votable

FINEST = 12
MOST_ROWS = 1_000_000
MEMORY_BYTES = 256 << 20
Source = Callable[[], Iterable[pa.RecordBatch]]


class HatsWriter:
    """Write the leaves of one HATS catalog; its metadata come last, so that readers see a whole one or none.

    Parameters
    ----------
    storage : Storage
        The catalog's folder.
    name : str
        ``obs_collection``.
    schema : pyarrow.Schema
        Of the leaves, with ``ra``, ``dec`` and ``_healpix_29``.
    multipart : bool
        Whether leaves are folders, to which many may write a part.
    kind : str
        ``dataproduct_type``.
    provenance : mapping of str to str, optional
        Further properties.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        schema: pa.Schema,
        multipart: bool = False,
        kind: str = "object",
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        self.storage, self.name, self.kind, self.multipart = storage, name, kind, multipart
        self.schema = with_votable(schema, name)
        self.rows: dict[tuple[int, int], int] = {}
        self._parts: dict[tuple[int, int], int] = {}
        self._provenance = provenance or {}

    def write(self, order: int, pixel: int, table: pa.Table) -> None:
        """Write the rows of a pixel, sorted by their index; of a multipart catalog, a further part of it.

        Raises
        ------
        ValueError
            When a row lies in another pixel, or a single leaf is written twice.
        """
        place = order, pixel
        index = table[HEALPIX_29].to_numpy()
        if self.kind != "margin" and (parent_pixel(index, order) != pixel).any():
            raise ValueError(f"rows lie outside of pixel {pixel} of order {order}")
        if place in self.rows and not self.multipart:
            raise ValueError(f"pixel {pixel} of order {order} is written twice")
        number = self._parts[place] = self._parts.get(place, -1) + 1
        path = leaf_path(order, pixel, f"part-{number:05d}" if self.multipart else None)
        table = table.select(self.schema.names).take(pa.array(np.argsort(index, kind="stable")))
        with self.storage.writing(path) as sink:
            parquet = pq.ParquetWriter(pa.PythonFile(sink, "w"), self.schema, **parquet_settings(self.schema))
            parquet.write_table(table.cast(self.schema), row_group_size=ROW_GROUP_ROWS)
            parquet.close()
        self.rows[place] = self.rows.get(place, 0) + table.num_rows

    def close(self) -> None:
        """Write the metadata."""
        pixels = [(*place, rows) for place, rows in self.rows.items()]
        suffix = FOLDER_SUFFIX if self.multipart else ".parquet"
        for name, data in metadata_files(
            self.name, self.schema, pixels, self._provenance, self.kind, suffix
        ).items():
            self.storage.replace(name, data)


def write_hats(
    output: str | Path,
    source: Source,
    name: str,
    *,
    most_rows: int = MOST_ROWS,
    most_bytes: int | None = None,
    margin_arcsec: float | None = None,
    multipart: bool = False,
    provenance: Mapping[str, str] | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> HatsCatalog:
    """Write rows in any order as a HATS catalog.

    Parameters
    ----------
    output : str or Path
        Folder or URL to create.
    source : callable
        Gives the rows as an iterable of record batches; it is called twice and must give the same each time.
        Columns ``ra`` and ``dec`` are degrees ICRS; ``_healpix_29`` is computed.
    name : str
        Of the catalog.
    most_rows : int
        Rows of one partition, unless pixels at order 12 hold more.
    most_bytes : int, optional
        Bytes of one partition in memory, instead of ``most_rows``; for rows with pixels.
    margin_arcsec : float, optional
        Write a collection of the catalog ``<name>`` and its margin ``<name>_<n>arcs``.
    multipart : bool
        Make leaves folders of parts, each sorted; otherwise one sorted file, for which rows beyond
        ``memory_bytes`` pass through the temporary folder (``TMPDIR``).
    provenance : mapping of str to str, optional
        Further properties.
    memory_bytes : int
        Rows held at once, besides one partition.

    Returns
    -------
    HatsCatalog

    Raises
    ------
    InputError
        When something is at ``output``, or a row has no usable position.
    """
    root = require_writable_output(output)
    root.create(UNFINISHED, secrets.token_bytes(8))
    try:
        schema, pixels, rows, row_bytes = _survey(source)
        most = max(1, most_bytes // max(1, row_bytes)) if most_bytes else most_rows
        chosen = list(choose_occupied_pixels(pixels, rows, FINEST, most))
        folder = root if margin_arcsec is None else Storage(f"{root.uri}/{name}")
        writer = HatsWriter(folder, name, schema, multipart, provenance=provenance)
        cover = Cover.of(chosen)
        with ExitStack() as stack:
            margin = None
            if margin_arcsec is not None:
                margin = stack.enter_context(_Spill(memory_bytes))
            _distribute(source, writer, cover, memory_bytes, margin, margin_arcsec)
            writer.close()
            if margin is not None and margin_arcsec is not None:
                _write_margin(root, writer, cover, margin, margin_arcsec)
    except BaseException:
        root.delete_folder("")
        raise
    root.delete([UNFINISHED])
    return open_hats(root.uri)


def margin_name(name: str, threshold_arcsec: float) -> str:
    """Name of a catalog's margin."""
    return f"{name}_{threshold_arcsec:g}arcs"


def positioned(batch: pa.RecordBatch) -> pa.Table:
    """Add ``_healpix_29``, computed from ``ra`` and ``dec``.

    Raises
    ------
    InputError
        When the columns are missing, or a row has no usable position.
    """
    names = batch.schema.names
    if not {"ra", "dec"} <= set(names):
        raise InputError("a HATS catalog needs the columns ra and dec", where=f"columns: {', '.join(names)}")
    index = healpix29(*(batch.column(c).to_numpy(zero_copy_only=False) for c in ("ra", "dec")))
    bad = int(np.ma.getmaskarray(index).sum())
    if bad:
        raise InputError(
            f"{bad} rows have no usable position, for which a HATS catalog has no place",
            where="columns ra and dec",
            fix="leave those rows out: -360 <= ra <= 360 and -90 <= dec <= 90 degrees",
        )
    table = pa.Table.from_batches([batch])
    if HEALPIX_29 in names:
        table = table.drop_columns([HEALPIX_29])
    return table.append_column(known(HEALPIX_29, pa.int64()), pa.array(index.data))


def _survey(source: Source) -> tuple[pa.Schema, np.ndarray, np.ndarray, int]:
    """Read all rows once: schema, occupied pixels at order `FINEST`, rows in each, bytes of a row."""
    schema: pa.Schema | None = None
    pixels, rows, nbytes = np.empty(0, np.int64), np.empty(0, np.int64), 0
    for batch in source():
        table = positioned(batch)
        schema = schema or table.schema
        found, counts = np.unique(parent_pixel(table[HEALPIX_29].to_numpy(), FINEST), return_counts=True)
        merged, places = np.unique(np.concatenate([pixels, found]), return_inverse=True)
        rows = np.bincount(places, np.concatenate([rows, counts])).astype(np.int64)
        pixels, nbytes = merged, nbytes + table.nbytes
    if schema is None or not len(pixels):
        raise InputError("there are no rows to write")
    return schema, pixels, rows, int(nbytes // rows.sum())


class _Spill:
    """Rows gathered by key: in memory up to a bound, beyond it in files of the temporary folder."""

    def __init__(self, memory_bytes: int) -> None:
        self._bound, self._held = memory_bytes, 0
        self._tables: dict[int, list[pa.Table]] = {}
        self._files: dict[int, list[Path]] = {}

    def __enter__(self) -> _Spill:
        self._folder = tempfile.TemporaryDirectory(prefix="surveyproc-hats-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def add(self, key: int, table: pa.Table) -> None:
        """Keep rows."""
        self._tables.setdefault(key, []).append(table)
        self._held += table.nbytes
        if self._held >= self._bound:
            self._spill()

    def keys(self) -> list[int]:
        """Keys that have rows."""
        return sorted(self._tables.keys() | self._files.keys())

    def take(self, key: int) -> pa.Table:
        """All rows of a key, in the order they came."""
        spilled = []
        for path in self._files.pop(key, []):
            with pa.OSFile(str(path)) as file:
                spilled.append(pa.ipc.open_file(file).read_all())
            path.unlink()
        return pa.concat_tables([*spilled, *self._tables.pop(key, [])])

    def _spill(self) -> None:
        for key, tables in self._tables.items():
            files = self._files.setdefault(key, [])
            path = Path(self._folder.name, f"{key}-{len(files)}.arrow")
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, tables[0].schema) as writer:
                writer.write_table(pa.concat_tables(tables))
            files.append(path)
        self._tables, self._held = {}, 0


def _distribute(
    source: Source,
    writer: HatsWriter,
    cover: Cover,
    memory_bytes: int,
    margin: _Spill | None,
    threshold: float | None,
) -> None:
    with _Spill(memory_bytes) as spill:
        held = 0
        for batch in source():
            table = positioned(batch)
            for key, rows in _split(cover.find(table[HEALPIX_29].to_numpy())):
                spill.add(key, table.take(pa.array(rows)))
            if margin is not None and threshold is not None:
                ra, dec = (table[c].to_numpy() for c in ("ra", "dec"))
                near, targets = margin_rows(ra, dec, cover, threshold)
                for key, pairs in _split(targets):
                    margin.add(key, table.take(pa.array(near[pairs])))
            held += table.nbytes
            if writer.multipart and held >= memory_bytes // 2:
                held = _write_all(spill, writer, cover)
        _write_all(spill, writer, cover)


def _write_all(spill: _Spill, writer: HatsWriter, cover: Cover) -> int:
    for key in spill.keys():  # noqa: SIM118
        writer.write(int(cover.orders[key]), int(cover.pixels[key]), spill.take(key))
    return 0


def _split(keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Positions of each key."""
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    for key, positions in zip(found, np.split(order, starts[1:])):
        yield int(key), positions


def _write_margin(root: Storage, primary: HatsWriter, cover: Cover, margin: _Spill, threshold: float) -> None:
    name = margin_name(primary.name, threshold)
    properties = margin_properties(primary.name, threshold)
    writer = HatsWriter(
        Storage(f"{root.uri}/{name}"), name, primary.schema, kind="margin", provenance=properties
    )
    _write_all(margin, writer, cover)
    writer.close()
    root.replace(COLLECTION, collection_file(primary.name, primary.name, [name]))
