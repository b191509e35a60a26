"""What kind of thing a column of pixels is, by its Arrow type and the metadata of its field."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

RAY_TENSORS = ("ray.data.arrow_tensor", "ray.data.arrow_tensor_v2")
RAY_VARIABLE = "ray.data.arrow_variable_shaped_tensor"
AXES = b"surveyproc.axes"
_NAME, _ABOUT = b"ARROW:extension:name", b"ARROW:extension:metadata"


@dataclass(frozen=True)
class Column:
    """A column that may hold cutouts.

    Attributes
    ----------
    kind : str
        ``bytes``, ``file`` (a struct of bytes and path), ``bands`` (a struct of lists with a value for each band),
        ``numbers`` (lists), ``shaped`` (a struct of a list and its shape), or ``unknown``.
    stored : pyarrow.DataType
        Storage type, of extension columns too.
    number : pyarrow.DataType or None
        Type of one pixel in lists.
    depth : int
        How many lists are in each other.
    axes : tuple of (int or None)
        Lengths of the lists, as far as types and metadata tell; empty when the lists are flat.
    names : tuple of str or None
        Names of the axes, where a tensor has them.
    trouble : str
        Why what the metadata say cannot be used.
    array_file : bool
        Whether the file holds arrays (HDF5) and no lists; then they are fast to read.
    """

    kind: str
    stored: pa.DataType
    number: pa.DataType | None = None
    depth: int = 0
    axes: tuple[int | None, ...] = ()
    names: tuple[str, ...] | None = None
    trouble: str = ""
    array_file: bool = False


def storage_of(kind: pa.DataType) -> pa.DataType:
    """Type as it is stored, without an extension around it."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def recognise(field: pa.Field) -> Column:
    """Say what kind of cutouts a column holds."""
    stored = storage_of(field.type)
    if pa.types.is_dictionary(stored):
        stored = stored.value_type
    if _is_bytes(stored):
        return Column("bytes", stored)
    if pa.types.is_struct(stored):
        return _struct(field, stored)
    if not _is_list(stored):
        return Column("unknown", stored)
    if pa.types.is_struct(stored.value_type):
        return Column("bands" if _has_bands(stored.value_type) else "unknown", stored)
    number, depth, axes = _lists(stored)
    if not is_number(number):
        return Column("unknown", stored)
    told, names, trouble = _tensor(field)
    if told is None and None in axes and depth == 1:
        axes = ()
    array_file = AXES in (field.metadata or {})
    return Column("numbers", stored, number, depth, told or axes, names, trouble, array_file)


def _struct(field: pa.Field, stored: pa.StructType) -> Column:
    children = {child.name: child.type for child in stored}
    if "bytes" in children and (_is_bytes(children["bytes"]) or pa.types.is_null(children["bytes"])):
        return Column("file", stored)
    if _has_bands(stored):
        return Column("bands", stored)
    if {"data", "shape"} <= children.keys() and _is_list(children["data"]) and _is_list(children["shape"]):
        number = children["data"].value_type
        if is_number(number):
            return Column("shaped", stored, number, 1)
    return Column("unknown", stored)


def _has_bands(kind: pa.DataType) -> bool:
    names = {child.name for child in kind}
    return {"band", "flux"} <= names


def _tensor(field: pa.Field) -> tuple[tuple[int, ...] | None, tuple[str, ...] | None, str]:
    """Shape and names of the axes of a tensor column, from its type or, where no reader is registered, its metadata."""
    if isinstance(field.type, pa.FixedShapeTensorType):
        names = field.type.dim_names
        return tuple(field.type.shape), tuple(names) if names else None, ""
    metadata = field.metadata or {}
    if AXES in metadata:
        return tuple(json.loads(metadata[AXES])), None, ""
    name, about = metadata.get(_NAME, b"").decode(), metadata.get(_ABOUT, b"")
    if isinstance(field.type, pa.ExtensionType):
        name, about = field.type.extension_name, field.type.__arrow_ext_serialize__()
    if name not in RAY_TENSORS:
        return None, None, ""
    try:
        return tuple(int(n) for n in json.loads(about)), None, ""
    except (ValueError, TypeError, UnicodeDecodeError):
        return None, None, "the shape of this Ray tensor column is a pickle, which is never opened"


def _lists(kind: pa.DataType) -> tuple[pa.DataType, int, tuple[int | None, ...]]:
    depth, axes = 0, []
    while _is_list(kind):
        axes.append(kind.list_size if pa.types.is_fixed_size_list(kind) else None)
        kind, depth = storage_of(kind.value_type), depth + 1
    return kind, depth, () if depth == 1 else tuple(axes)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether values of this type can be pixels."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_bytes(kind: Any) -> bool:
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )
