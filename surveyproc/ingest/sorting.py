"""One chunk of the table of sources: rows to be cut, sorted by tile and place, and rejects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from surveyproc.ingest.assign import NO_TILE, Coverage, assign
from surveyproc.ingest.sources import Chunk, SourceTable, positioned
from surveyproc.ingest.tiles import Tile
from surveyproc.quality import Quality
from surveyproc.runs.duplicates import find_duplicates

STAGE = "sources"
TILE = "tile"
WHY = {
    "missing_id": "the row has no id",
    "no_position": "ra or dec is missing or not on the sky",
    "duplicate_id": "the id came earlier in the table",
    "no_tile": "no tile holds the position",
}


def reject_schema(id_type: pa.DataType) -> pa.Schema:
    """Columns of rejects."""
    return pa.schema([("object_id", id_type), *((n, pa.string()) for n in ("stage", "reason", "detail"))])


def source_schema(given: pa.Schema) -> pa.Schema:
    """Columns of sorted sources, from those of the chunks: with what is known of each before it is cut."""
    units = {"ra": "right ascension, ICRS", "dec": "declination, ICRS"}
    fields = [given.field("object_id")]
    for name, text in units.items():
        fields.append(pa.field(name, pa.float64(), metadata={"unit": "deg", "description": text}))
    about = {"description": "nested HEALPix index, order 29"}
    fields.append(pa.field("_healpix_29", pa.int64(), metadata=about))
    fields += [f for f in given if f.name not in ("object_id", "ra", "dec")]
    return pa.schema([*fields, pa.field("quality", pa.int32()), pa.field(TILE, pa.int32())])


def repeated_rows(table: SourceTable, chunk_rows: int) -> dict[int, np.ndarray]:
    """Find rows whose id came earlier, by chunk of ``chunk_rows``; a row without a usable position claims no id."""

    def ids() -> Iterator[tuple[int, np.ndarray, pa.Array]]:
        for chunk in table.chunks(chunk_rows):
            good, _ = positioned(chunk.rows)
            known = good & ~_missing(chunk.rows)
            column = chunk.rows["object_id"].combine_chunks()
            yield chunk.number, np.flatnonzero(known), column.filter(pa.array(known))

    return find_duplicates(ids(), table.rows)


def sort_out(
    chunk: Chunk, tiles: Sequence[Tile], covered: Coverage, repeated: np.ndarray | None
) -> tuple[pa.Table, pa.Table]:
    """Assign the rows of a chunk to tiles.

    Parameters
    ----------
    chunk : Chunk
    tiles : sequence of Tile
        Sorted by name.
    covered : Coverage
        Of these tiles.
    repeated : ndarray or None
        Rows of the chunk whose id came earlier.

    Returns
    -------
    sources : pyarrow.Table
        Of `source_schema`, sorted by tile, then by place on the sky, then as in the table.
    rejects : pyarrow.Table
        Of `reject_schema`, in the order of the table; malformed rows, which have no id, come last.
    """
    rows = chunk.rows
    good, healpix = positioned(rows)
    reasons = np.full(rows.num_rows, "", dtype="U16")
    reasons[~good] = "no_position"
    reasons[_missing(rows)] = "missing_id"
    if repeated is not None:
        reasons[repeated] = "duplicate_id"
    kept = np.flatnonzero(reasons == "")
    ra, dec = (rows[name].to_numpy()[kept] for name in ("ra", "dec"))
    found = assign(ra, dec, healpix[kept], tiles, covered)
    reasons[kept[found.tile == NO_TILE]] = "no_tile"
    order = np.lexsort((healpix[kept], found.tile))
    order = order[found.tile[order] != NO_TILE]
    quality = np.where(found.claims > 1, Quality.DUPLICATE_TILE, 0).astype(np.int32)
    columns = {name: rows[name].take(pa.array(kept[order])) for name in rows.column_names}
    columns |= {
        "_healpix_29": pa.array(healpix[kept][order]),
        "quality": pa.array(quality[order]),
        TILE: pa.array(found.tile[order]),
    }
    schema = source_schema(rows.schema)
    return pa.table([columns[n] for n in schema.names], schema=schema), _rejects(chunk, reasons)


def _rejects(chunk: Chunk, reasons: np.ndarray) -> pa.Table:
    schema = reject_schema(chunk.rows.schema.field("object_id").type)
    bad = np.flatnonzero(reasons != "")
    names = reasons[bad].tolist()
    arrays = [
        chunk.rows["object_id"].take(pa.array(bad)).combine_chunks(),
        pa.array([STAGE] * len(bad), pa.string()),
        pa.array(names, pa.string()),
        pa.array([WHY[name] for name in names], pa.string()),
    ]
    listed = pa.table(arrays, schema=schema)
    texts = [f"a wrong number of fields: {text[:200]}" for text in chunk.malformed]
    malformed = [
        {"object_id": None, "stage": STAGE, "reason": "malformed_row", "detail": text} for text in texts
    ]
    return pa.concat_tables([listed, pa.Table.from_pylist(malformed, schema)])


def _missing(rows: pa.Table) -> np.ndarray:
    return np.asarray(pc.is_null(rows["object_id"]))
