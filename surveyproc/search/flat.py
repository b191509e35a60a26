"""The exact index: inner products of unit vectors, in shards small enough to hold one at a time."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from surveyproc.errors import InputError
from surveyproc.runs import Run
from surveyproc.runs.ledger import Commit, Ledger
from surveyproc.steps import step
from surveyproc.storage import Storage

SHARD_BYTES = 32 * 2**20


@dataclass(frozen=True)
class IndexUnit:
    """Row groups ``[start, stop)`` of one file of the embeddings: one shard of the index."""

    name: str
    file: str
    start: int
    stop: int


def index_units(storage: Storage, files: list[str]) -> list[IndexUnit]:
    """Cut the embeddings into index shards of about 32 MiB of float32 vectors, from the footers.

    Parameters
    ----------
    storage : Storage
    files : list of str
        Files of the embeddings table, relative to the run.
    """
    units: list[IndexUnit] = []
    for file in files:
        with storage.open(file) as raw:
            footer = pq.ParquetFile(raw)
            width = 4 * footer.schema_arrow.field("embedding").type.list_size
            rows = [footer.metadata.row_group(g).num_rows for g in range(footer.num_row_groups)]
        start, held = 0, 0
        for group, count in enumerate(rows):
            held += count * width
            if held >= SHARD_BYTES or group + 1 == len(rows):
                units.append(IndexUnit(f"index-{len(units):05d}", file, start, group + 1))
                start, held = group + 1, 0
    return units


def build_unit(storage: Storage, ledger: Ledger, unit: IndexUnit) -> Commit:
    """Build, commit and publish one shard of the index and the ids of its rows."""
    done = ledger.commit_of(unit.name)
    if done is None:
        attempt = ledger.begin(unit.name)
        with storage.open(unit.file) as raw:
            groups = list(range(unit.start, unit.stop))
            table = pq.ParquetFile(raw).read_row_groups(
                groups, columns=["object_id", "embedding"], use_threads=False
            )
        vectors = unit_vectors(table["embedding"])
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        del vectors
        attempt.write_bytes("vectors", "faiss", faiss.serialize_index(index).data, index.ntotal)
        ids = table.select(["object_id"]).replace_schema_metadata()
        attempt.write_table("ids", ids, ids.num_rows, compression="zstd", use_dictionary=False)
        targets = [["vectors", f"index/{unit.name}.faiss"], ["ids", f"index/{unit.name}.ids.parquet"]]
        facts = {"targets": targets, "kind": "flat", "metric": "cosine", "table": "embeddings"}
        done = attempt.commit(index.ntotal, 0, facts)
    for target, part in done.targets.items():
        storage.publish(part.path, target)
    step("index.published", unit.name)
    return done


def unit_vectors(column: pa.ChunkedArray) -> np.ndarray:
    """Turn an ``embedding`` column into ``(N, D)`` float32 vectors of length 1; a zero vector stays zero."""
    array = column.combine_chunks()
    size = array.type.list_size
    vectors = array.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, size)
    vectors /= np.maximum(np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None], 1e-12)
    return vectors


def parse_id(run: Run, text: str, table: str = "embeddings") -> int | str:
    """Read an object id from the command line in the type of the run's ids.

    Raises
    ------
    InputError
        When the ids are integers and the text is none.
    """
    kind = run.dataset(table).schema.field("object_id").type
    if not pa.types.is_integer(kind):
        return text
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{text!r} is not an id of this run: its ids are integers", where=run.uri) from error


def embedding_of(run: Run, object_id: int | str) -> np.ndarray:
    """Read the unit vector of one object, ``(1, D)``.

    Raises
    ------
    InputError
        When the run has no embedding of it.
    """
    data = run.dataset("embeddings")
    value = pa.scalar(object_id, type=data.schema.field("object_id").type)
    found = data.to_table(columns=["embedding"], filter=pc.field("object_id") == value)
    if not found.num_rows:
        raise InputError(
            f"there is no object {object_id!r} in the embeddings of this run",
            where=run.uri,
            fix=f'look in its rejects: surveyproc sql {run.uri} "SELECT * FROM rejects"',
        )
    return unit_vectors(found["embedding"])[:1]


def search(run: Run, queries: np.ndarray, k: int) -> tuple[list[list[Any]], np.ndarray]:
    """Find the k nearest objects of each query, exactly, holding one index shard at a time.

    Parameters
    ----------
    run : Run
        Finished, with an index.
    queries : numpy.ndarray
        ``(Q, D)`` float32 unit vectors.
    k : int
        Neighbours; fewer come back when the index holds fewer.

    Returns
    -------
    ids : list of list
        Object ids, nearest first.
    similarity : numpy.ndarray
        ``(Q, k)`` cosine similarities.
    """
    index = (run.manifest or {}).get("index")
    if not index:
        raise InputError(
            "this run has no index", where=run.uri, fix="finish the run first: give its command again"
        )
    paths = [f["path"] for f in index["files"]]
    scores = np.empty((len(queries), 0), dtype=np.float32)
    ids = np.empty((len(queries), 0), dtype=object)
    for vectors, names in zip(paths[::2], paths[1::2]):
        part = faiss.deserialize_index(np.frombuffer(run.storage.read(vectors), dtype=np.uint8))
        if part.d != queries.shape[1]:
            raise InputError(
                f"the query has {queries.shape[1]} dimensions, the index {part.d}", where=run.uri
            )
        found, rows = part.search(np.ascontiguousarray(queries), min(k, part.ntotal))
        column = pq.read_table(io.BytesIO(run.storage.read(names)))["object_id"]
        named = np.array(column.take(pa.array(rows.reshape(-1))).to_pylist(), dtype=object).reshape(
            rows.shape
        )
        scores, ids = np.hstack([scores, found]), np.hstack([ids, named])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
    return ids.tolist(), scores


def similar(run: Run, object_id: int | str, k: int) -> list[tuple[Any, float]]:
    """List the k objects most like one of the run, itself left out, as (id, cosine similarity)."""
    ids, scores = search(run, embedding_of(run, object_id), k + 1)
    pairs = [(i, float(s)) for i, s in zip(ids[0], scores[0]) if i != object_id]
    return pairs[:k]
