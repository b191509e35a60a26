"""Lists of numbers to the bytes of raw cutouts, a batch at a time and a row at a time where one is odd."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from surveyproc.catalog.adapters.recognise import is_number


def storage_array(column: pa.Array) -> pa.Array:
    """Array of the storage type, without extension or dictionary."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def pack(pixels: np.ndarray) -> pa.Array:
    """Make ``(N, ...)`` pixels values of bytes; the memory is shared where it is contiguous."""
    data = np.ascontiguousarray(pixels)
    width = math.prod(data.shape[1:]) * data.dtype.itemsize
    offsets = np.arange(len(data) + 1, dtype=np.int64) * width
    return pa.Array.from_buffers(
        pa.large_binary(), len(data), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )


def lists_to_bytes(column: pa.Array, axes: tuple[int, ...], dtype: np.dtype) -> pa.Array:
    """Pack lists of numbers, flat or nested.

    Parameters
    ----------
    column : pyarrow.Array
        N lists.
    axes : tuple of int
        Lengths of the axes of one cutout as the file has them.
    dtype : numpy.dtype
        Of the bytes.

    Returns
    -------
    pyarrow.LargeBinaryArray
        N values. Null where the list is null; of another length than a cutout has where a row is not one: of
        as many numbers as it holds, or empty where it holds as many in other axes, or a value that does not fit.
    """
    column = storage_array(column)
    whole = uniform_values(column, axes, dtype)
    if whole is not None:
        return pack(whole.reshape(len(column), *axes))
    return pa.array(
        [_one(column.slice(row, 1), axes, dtype) for row in range(len(column))], pa.large_binary()
    )


def shaped_to_bytes(column: pa.Array, axes: tuple[int, ...], dtype: np.dtype) -> pa.Array:
    """Pack structs of a flat list ``data`` and its ``shape``; values as in `lists_to_bytes`."""
    column = storage_array(column)
    data, shapes = pc.struct_field(column, "data"), pc.struct_field(column, "shape")
    found = uniform_values(shapes, (len(axes),), np.dtype(np.int64))
    if found is not None and (found.reshape(-1, len(axes)) == axes).all():
        return lists_to_bytes(data, axes, dtype)
    values = []
    for row in range(len(column)):
        shape = shapes[row].as_py()
        good = shape is not None and tuple(shape) == axes
        one = _one(data.slice(row, 1), axes, dtype) if shape is not None else None
        values.append(one if good or one is None or len(one) != math.prod(axes) * dtype.itemsize else b"")
    return pa.array(values, pa.large_binary())


def uniform_values(column: pa.Array, axes: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
    """Return the numbers of all rows when each row has just these axes and values that fit; None otherwise."""
    depth = _depth(column.type)
    sizes = [*axes[: depth - 1], math.prod(axes[depth - 1 :])]
    if depth > len(axes):
        return None
    for size in sizes:
        if column.null_count:
            return None
        values = _children(column, size)
        if values is None:
            return None
        column = storage_array(values)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if not is_number(column.type):
        return None
    if column.null_count:
        if not pa.types.is_floating(column.type):
            return None
        column = pc.fill_null(column, float("nan"))
    return fitting(column.to_numpy(zero_copy_only=False), dtype)


def fitting(values: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    """Cast numbers; None when integers do not fit."""
    if values.dtype == dtype:
        return values
    if dtype.kind in "iu" and values.size and values.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if values.min() < limits.min or values.max() > limits.max:
            return None
    return values.astype(dtype)


def _children(column: pa.Array, size: int) -> pa.Array | None:
    """Values of lists that have all the same size; None otherwise."""
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten() if column.type.list_size == size else None
    offsets = column.offsets.to_numpy()
    if (np.diff(offsets) != size).any():
        return None
    return column.values.slice(offsets[0] if len(offsets) else 0, len(column) * size)


def _depth(kind: pa.DataType) -> int:
    depth = 0
    while hasattr(kind, "value_type"):
        kind, depth = kind.value_type, depth + 1
    return depth


def _one(row: pa.Array, axes: tuple[int, ...], dtype: np.dtype) -> bytes | None:
    if row.null_count:
        return None
    values = uniform_values(row, axes, dtype)
    if values is not None:
        return values.tobytes()
    count = _count(row)
    return b"" if count == math.prod(axes) else bytes(count * dtype.itemsize)


def _count(column: pa.Array) -> int:
    """How many numbers there are in lists, whatever their lengths."""
    while hasattr(column.type, "value_type"):
        column = storage_array(column.flatten())
    return len(column)
