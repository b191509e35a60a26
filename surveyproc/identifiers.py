"""Object ids: the one split every figure rests on, and order-free hashes of id columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

ROW = "_row"  # position of a row in its shard: a column of parts, never of tables
SPLITS = ("train", "validation", "calibration", "test")


def split_of(object_id: int | str) -> str:
    """Say which split an object belongs to.

    Parameters
    ----------
    object_id : int or str
        The id; an integer and its decimal string fall into the same split.

    Returns
    -------
    str
        ``test`` (2 of 20 buckets), ``calibration`` (1), ``validation`` (1) or ``train`` (16).
    """
    bucket = int(hashlib.sha1(str(object_id).encode()).hexdigest(), 16) % 20  # noqa: S324
    if bucket < 2:
        return "test"
    return {2: "calibration", 3: "validation"}.get(bucket, "train")


def splits_of(object_ids: Iterable[int | str]) -> np.ndarray:
    """Apply `split_of` to many ids; returns an array of strings."""
    return np.array([split_of(i) for i in object_ids], dtype="<U11")


def hash_ids(ids: pa.Array | pa.ChunkedArray, salt: bytes = b"") -> np.ndarray:
    """Hash an id column to 64 bits, the same on every machine.

    Parameters
    ----------
    ids : pyarrow.Array
        Integer or string ids without nulls.
    salt : bytes
        Makes another, independent hash of strings; integers do not need one, their hash is one to one.

    Returns
    -------
    numpy.ndarray
        uint64, one hash for each id: splitmix64 of an integer, the first 8 bytes of BLAKE2b of a string.
    """
    if pa.types.is_integer(ids.type):
        return splitmix64(np.asarray(ids.to_numpy(zero_copy_only=False), dtype=np.int64).view(np.uint64))
    digests = b"".join(
        hashlib.blake2b(i.encode(), digest_size=8, salt=salt).digest() for i in ids.to_pylist()
    )
    return np.frombuffer(digests, dtype="<u8").copy()


def id_sum(ids: pa.Array | pa.ChunkedArray) -> int:
    """Sum the id hashes modulo 2**64: equal for two columns with the same ids in any order."""
    return int(hash_ids(ids).sum(dtype=np.uint64)) if len(ids) else 0


def splitmix64(x: np.ndarray) -> np.ndarray:
    """Mix uint64 values with the splitmix64 finaliser (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):
        z = x + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
