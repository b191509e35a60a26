"""One foreign column of cutouts, and how it becomes the standard ``image`` column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from surveyproc.catalog.adapters import bands, encoded
from surveyproc.catalog.adapters.given import Given
from surveyproc.catalog.adapters.needs import Needs, guess, need_ids, repack_command
from surveyproc.catalog.adapters.numbers import lists_to_bytes, shaped_to_bytes, storage_array
from surveyproc.catalog.adapters.recognise import Column, recognise
from surveyproc.catalog.adapters.terms import raw_spec
from surveyproc.cutouts import METADATA_KEY, ImageSpec
from surveyproc.errors import InputError, did_you_mean

IMAGES = ("image", "images", "cutout", "cutouts", "stamp", "pixels", "flux", "data", "imageband")
PEEK_ROWS = 32
SLOW = (
    "{uri}: pixels in {what} are read up to 7 times slower than the fast layout and take more space, "
    "measured with jobs/bench/adapters.py; repack prints both for yours. To convert once: {command}"
)

Peek = Callable[[tuple[str, ...]], pa.RecordBatch]


@dataclass(frozen=True)
class Adapter:
    """How the pixels of foreign files are read.

    Attributes
    ----------
    kind : str
        Of the column, see `recognise.Column`; ``encoded`` where bytes are JPEG or PNG files.
    column : str
        Its name in the file.
    spec : ImageSpec
        What the standard column is.
    axes : tuple of int
        Of one cutout in lists, in the order of the file.
    bands : tuple of str
        Bands as the file names them, where it does.
    children : tuple of str
        Parts of a struct that there are.
    mask : str or None
        What True means in masks.
    by_part : bool
        Whether parts of the struct can be read alone: not those in a list of structs.
    """

    kind: str
    column: str
    spec: ImageSpec
    axes: tuple[int, ...] = ()
    bands: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    mask: str | None = None
    by_part: bool = True
    slow: str = field(default="", compare=False)

    @property
    def image(self) -> pa.Field:
        """The standard column."""
        return pa.field("image", pa.large_binary(), metadata={METADATA_KEY: self.spec.to_json().encode()})

    @property
    def made(self) -> tuple[pa.Field, ...]:
        """Further columns that it makes."""
        arcsec = {b"unit": b"arcsec"}
        found = []
        if "scale" in self.children:
            found.append(pa.field(bands.SCALE, pa.float64(), metadata=arcsec))
        if "psf_fwhm" in self.children:
            kind = pa.list_(pa.float32(), len(self.bands))
            found.append(pa.field(bands.PSF, kind, metadata=arcsec))
        return tuple(found)

    def paths(self, name: str) -> tuple[str, ...]:
        """Parquet columns that a column it makes is read from."""
        if self.kind == "file":
            return (f"{self.column}.bytes",)
        if self.kind != "bands" or not self.by_part:
            return (self.column,)
        parts = {bands.SCALE: ("scale",), bands.PSF: ("band", "psf_fwhm")}.get(name)
        parts = parts or (("band", "flux", "mask") if self.mask else ("band", "flux"))
        return tuple(f"{self.column}.{part}" for part in parts)

    def convert(self, name: str, column: pa.Array) -> pa.Array:
        """Make a column of a batch: ``image``, or one of those in `made`."""
        if name == bands.SCALE:
            return bands.scales(column)
        if name == bands.PSF:
            return bands.seeing(column, self.bands)
        dtype = np.dtype(self.spec.dtype)
        if self.kind == "bands":
            return bands.to_bytes(column, self.bands, self.spec, self.mask)
        if self.kind == "numbers":
            return lists_to_bytes(column, self.axes, dtype)
        if self.kind == "shaped":
            return shaped_to_bytes(column, self.axes, dtype)
        column = storage_array(column)
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        return column.cast(pa.large_binary())


def adapt(schema: pa.Schema, uri: str, where: str, given: Given | None, peek: Peek) -> Adapter:
    """Find the cutouts in foreign files and say how to read them.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the files.
    uri, where : str
        The catalog and its first file, for messages.
    given : Given or None
        Flags of ``repack``; None when the catalog is to be used as it is.
    peek : callable
        Reads some columns of the first rows, by their Parquet paths.

    Raises
    ------
    InputError
        When there are no cutouts, they cannot be read, or something is not said: all of it, with the command.
    """
    needs = Needs(uri, given)
    need_ids(needs, schema.names)
    name = _image_column(schema, needs, where)
    column = recognise(schema.field(name))
    if column.kind == "unknown":
        raise InputError(
            f"column {name!r} is {column.stored}, which holds no cutouts that can be read",
            where=where,
            fix="pixels are bytes (raw, JPEG, PNG), struct{bytes,path}, lists of numbers, tensors, or a struct of "
            "lists by band; write the column again as one of them",
        )
    made = _MAKERS[column.kind](needs, name, column, peek, where)
    needs.require(where)
    if made is None:
        raise AssertionError("something is missing and was not noted")
    if given is None:
        flags = ["--unit UNIT"] if made.kind == "bands" else []
        _refuse_printed_bytes(repack_command(uri, flags), where, schema, peek)
    return replace(made, mask=given.mask if given else None)


def _image_column(schema: pa.Schema, needs: Needs, where: str) -> str:
    given = needs.given or Given()
    name = given.image or "image"
    if name in schema.names:
        if (count := len(schema.get_all_field_indices(name))) > 1:
            raise InputError(
                f"column {name!r} (cutouts) is there {count} times", where=where, fix="keep one of them"
            )
        return name
    listed = f"{where}; columns: {', '.join(schema.names[:20])}"
    if given.image is not None:
        raise InputError(
            f"no column {name!r} (cutouts).{did_you_mean(name, schema.names)}",
            where=listed,
            fix="name a column of the files with --image",
        )
    usable = [f.name for f in schema if holds_cutouts(f)]
    if len(usable) == 1:
        return usable[0]
    found = guess(schema.names, IMAGES) or next(iter(usable), None)
    if found is None:
        raise InputError(
            f"no column 'image' (cutouts).{did_you_mean('image', schema.names)}",
            where=listed,
            fix="a cutout catalog has the columns object_id and image: write it with `surveyproc ingest` or "
            "`surveyproc repack --image COLUMN`",
        )
    also = f"; {', '.join(usable)} could be" if usable else ""
    needs.add(f"no column 'image' (cutouts){also}", f"--image {found}")
    return found


def holds_cutouts(field: pa.Field) -> bool:
    """Whether a column can be nothing but cutouts: flat lists may be embeddings, bytes anything."""
    column = recognise(field)
    return column.kind in ("file", "bands", "shaped") or (column.kind == "numbers" and bool(column.axes))


def _encoded(needs: Needs, name: str, column: Column, peek: Peek, where: str) -> Adapter | None:
    paths = (f"{name}.bytes",) if column.kind == "file" else (name,)
    values = storage_array(peek(paths).column(0))
    if pa.types.is_struct(values.type):
        values = pc.struct_field(values, "bytes")
    values = values.drop_null()
    kinds = Counter(encoded.encoding_of(value.as_buffer()) or "" for value in values)
    if not kinds:
        needs.add(
            "the first images are null" + (" (the struct holds paths only)" if column.kind == "file" else ""),
            "",
        )
        return None
    if needs.given is None and len(kinds.keys() & {"jpeg", "png"}) == 2:
        needs.add("some of the first images are JPEG, others PNG files; `repack` reads both", "")
        return None
    if most := kinds.most_common(1)[0][0]:
        spec = encoded.describe(needs, values, most)
        return None if spec is None else Adapter("file" if column.kind == "file" else "encoded", name, spec)
    if len(kinds) > 1:
        needs.add("most of the first images are neither JPEG nor PNG files, but some are", "")
        return None
    return _raw_bytes(needs, name, column, len(values[0].as_buffer()))


def _raw_bytes(needs: Needs, name: str, column: Column, size: int) -> Adapter | None:
    """Bytes without a description: all of it has to be given."""
    given = needs.given or Given()
    if given.dtype is None:
        needs.add(
            f"column {name!r} ({column.stored}) lacks the {METADATA_KEY.decode()!r} metadata, and is neither JPEG nor "
            f"PNG: what are the {size} bytes of each (uint8, float16, float32; height, width, channels)?",
            "--dtype DTYPE" + ("" if given.shape else " --shape H,W,C"),
        )
        return None
    number = {"uint8": pa.uint8(), "float16": pa.float16(), "float32": pa.float32()}[given.dtype]
    spec, axes = raw_spec(needs, number, None, size=size // np.dtype(given.dtype).itemsize)
    return None if spec is None else Adapter("file" if column.kind == "file" else "raw", name, spec, axes)


def _numbers(needs: Needs, name: str, column: Column, peek: Peek, where: str) -> Adapter | None:
    axes: tuple[int | None, ...] | None = column.axes or None
    size = None
    if axes is None or None in axes:
        found = _peeked_axes(peek((name,)).column(0), column.depth)
        if column.depth > 1:
            axes = found
        elif found:
            size = found[0]
    if column.trouble and needs.given is None:
        needs.add(column.trouble, "")
    spec, known = raw_spec(needs, _number(column), axes, column.names, size)  # type: ignore[arg-type]
    if spec is None:
        return None
    slow = "" if column.array_file else "lists of numbers"
    return Adapter("numbers", name, spec, known, slow=slow)


def _shaped(needs: Needs, name: str, column: Column, peek: Peek, where: str) -> Adapter | None:
    shapes = pc.struct_field(storage_array(peek((f"{name}.shape",)).column(0)), "shape").drop_null()
    most = Counter(tuple(shape) for shape in shapes.to_pylist()).most_common(1)
    if not most:
        needs.add("the first cutouts are null", "")
        return None
    spec, axes = raw_spec(needs, _number(column), most[0][0])
    return None if spec is None else Adapter("shaped", name, spec, axes, slow="lists of numbers")


def _bands(needs: Needs, name: str, column: Column, peek: Peek, where: str) -> Adapter | None:
    by_part = pa.types.is_struct(column.stored)
    peeked = peek((f"{name}.band", f"{name}.flux") if by_part else (name,))
    spec, stored = bands.describe(needs, peeked.column(0))
    if spec is None:
        return None
    children = tuple(sorted(bands.children_of(column.stored)))
    if needs.given and needs.given.mask and "mask" not in children:
        raise InputError("--mask: the cutouts have no mask", where=where, fix="leave it out")
    return Adapter(
        "bands", name, spec, (), stored, children, by_part=by_part, slow="lists of numbers by band"
    )


_MAKERS = {"bytes": _encoded, "file": _encoded, "numbers": _numbers, "shaped": _shaped, "bands": _bands}


def _number(column: Column) -> pa.DataType:
    if column.number is None:
        raise AssertionError(f"{column.kind} has no numbers")
    return column.number


def _peeked_axes(values: pa.Array, depth: int) -> tuple[int, ...] | None:
    """Lengths of nested lists in most of the first rows; None when all are null."""
    found = Counter(_axes(row.values, depth) for row in storage_array(values).drop_null())
    return found.most_common(1)[0][0] if found else None


def _axes(item: pa.Array, depth: int) -> tuple[int, ...]:
    """Lengths of nested lists, by the first of each."""
    if depth == 1 or not len(item) or not item[0].is_valid:
        return (len(item),)
    return (len(item), *_axes(item[0].values, depth - 1))


def _refuse_printed_bytes(command: str, where: str, schema: pa.Schema, peek: Peek) -> None:
    kind = schema.field("object_id").type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return
    for value in _strings(peek(("object_id",)).column(0)):
        if value.startswith(("b'", 'b"')) and value.endswith(("'", '"')):
            raise InputError(
                f"ids are printed bytes, such as {value}",
                where=where,
                fix=f"`repack` writes them as text: {command}",
            )


def _strings(column: pa.Array) -> Iterable[str]:
    return (value for value in column.to_pylist() if value is not None)
