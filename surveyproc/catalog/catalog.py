"""Open a cutout catalog: footers only, no pixels."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field, fields

import pyarrow as pa

from surveyproc.catalog.adapters import Given, adapt
from surveyproc.catalog.adapters.adapter import SLOW, holds_cutouts
from surveyproc.catalog.adapters.bands import UNIT_UNKNOWN
from surveyproc.catalog.adapters.hdf5 import is_hdf5, read_hdf5_footer
from surveyproc.catalog.adapters.needs import Needs, need_ids, repack_command, say_once
from surveyproc.catalog.adapters.peeking import peek_at
from surveyproc.catalog.files import CatalogFile, read_parquet_footer
from surveyproc.catalog.form import Form
from surveyproc.catalog.hats.reader import is_hats
from surveyproc.catalog.storage import Location, list_data, locate
from surveyproc.cutouts import METADATA_KEY, ImageSpec
from surveyproc.errors import InputError, UsageError, did_you_mean
from surveyproc.threads import map_ahead

HEALPIX_COLUMN = "_healpix_29"
_FOOTER_THREADS = 8
_INGEST = "write it with `surveyproc ingest`, or CatalogWriter in Python"


@dataclass(frozen=True)
class Catalog:
    """A cutout catalog that has been checked but not read.

    Attributes
    ----------
    uri : str
        As given.
    schema : pyarrow.Schema
        Columns as they are read; the same in each file.
    image : ImageSpec
        What the pixels are.
    files : tuple of CatalogFile
        Sorted by path.
    form : Form
        How the columns of the files become these; `read_batches` takes it, so that it need not look again.
    """

    uri: str
    schema: pa.Schema
    image: ImageSpec
    files: tuple[CatalogFile, ...]
    form: Form = field(default_factory=Form)

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
    if pa.types.is_binary(stored) or pa.types.is_large_binary(stored):
        return pa.string()
    return None


def open_catalog(uri: str, given: Given | None = None) -> Catalog:
    """Open a cutout catalog from its footers, and the first rows where the footers do not tell.

    Parameters
    ----------
    uri : str
        A folder of Parquet files (plain, or HATS with ``dataset/``) or of HDF5 files, or one file; any fsspec
        URI. Pixels in another form than the standard one are read through `surveyproc.catalog.adapters`.
    given : Given, optional
        What the user says of foreign files. Without it, files that need it are refused with the ``repack``
        command that says it, and one line on stderr tells of forms that are slow to read.

    Returns
    -------
    Catalog
        Its files, rows, columns and pixels.

    Raises
    ------
    InputError
        Nothing there, a file that is not Parquet or HDF5, files that differ in pixels or columns, columns
        missing or of the wrong kind, or no rows.

    Examples
    --------
    >>> catalog = open_catalog("gz.cat")  # doctest: +SKIP
    >>> catalog.rows, catalog.image.shape  # doctest: +SKIP
    (4057, (424, 424, 3))
    """
    location = locate(uri)
    names = list_data(location)
    footers = map_ahead(lambda name: _read_footer(location, name), names, _FOOTER_THREADS)
    first, schema = next(footers)
    where = location.path(first.path)
    standard = _is_standard(schema)
    files = [first]
    for file, other in footers:
        files.append(file)
        if not other.equals(schema, check_metadata=True):
            _require_alike(schema, other, location.path(file.path), first.path, standard)
    rows = [file for file in files if file.rows]
    if not rows:
        raise InputError(
            "the catalog has no rows", where=str(uri), fix="check the step that wrote it; nothing to do here"
        )
    if standard:
        spec, form = _standard(schema, str(uri), where, given), Form.of(None, given)
    else:
        _refuse_without_pixels(schema, str(uri), given)
        adapter = adapt(schema, str(uri), where, given, peek_at(location, rows[0].path))
        spec, form = adapter.spec, Form.of(adapter, given)
        if given is None:
            _say_of_slow_and_unknown(str(uri), form)
    read = form.schema(schema)
    _require_ids(read, where)
    _require_bits(read, where)
    return Catalog(str(uri), read, spec, tuple(files), form)


def _read_footer(location: Location, name: str) -> tuple[CatalogFile, pa.Schema]:
    return read_hdf5_footer(location, name) if is_hdf5(name) else read_parquet_footer(location, name)


def _is_standard(schema: pa.Schema) -> bool:
    """Whether the pixels say what they are."""
    return "image" in schema.names and METADATA_KEY in (schema.field("image").metadata or {})


def _standard(schema: pa.Schema, uri: str, where: str, given: Given | None) -> ImageSpec:
    if given is not None and given.of_pixels:
        raise UsageError(
            "the catalog says what its pixels are: --bands, --unit, --zeropoint, --stretch, --layout, --shape and "
            "--mask cannot say it anew",
            where=where,
            fix="leave them out",
        )
    needs = Needs(uri, given)
    need_ids(needs, schema.names)
    needs.require(f"{where}; columns: {', '.join(schema.names[:20])}")
    return _image_spec(schema, where)


def _refuse_without_pixels(schema: pa.Schema, uri: str, given: Given | None) -> None:
    """Say of a HATS catalog without cutouts what it is good for."""
    named = given is not None and given.image is not None
    if named or "image" in schema.names or any(holds_cutouts(field) for field in schema) or not is_hats(uri):
        return
    raise InputError(
        f"this is a HATS catalog, but no cutout catalog: it has no column 'image' ({len(schema)} columns)",
        where=uri,
        fix="query it with `surveyproc cone` or `surveyproc sql`; to run bundles, make cutouts of its "
        "objects with `surveyproc ingest --tiles`",
    )


def _say_of_slow_and_unknown(uri: str, form: Form) -> None:
    """Warn once of what a catalog can be used with, but better not for long."""
    adapter = form.adapter
    if adapter is None:
        return
    command = repack_command(uri, ["--unit UNIT"] if adapter.kind == "bands" else [])
    if adapter.slow:
        say_once(uri, SLOW.format(uri=uri, what=adapter.slow, command=command))
    if adapter.kind == "bands":
        say_once(uri, UNIT_UNKNOWN.format(uri=uri, command=command))


def _require_ids(schema: pa.Schema, where: str) -> None:
    count = len(schema.get_all_field_indices("object_id"))
    if count != 1:
        raise InputError(
            f"{'no' if count == 0 else 'more than one'} column 'object_id' (ids)."
            f"{did_you_mean('object_id', schema.names) if count == 0 else ''}",
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


def _require_bits(schema: pa.Schema, where: str) -> None:
    """Refuse a column ``quality`` that is something else than the bit mask."""
    if "quality" in schema.names and not pa.types.is_integer(kind := schema.field("quality").type):
        raise InputError(
            f"column 'quality' is {kind}; in a cutout catalog it is the bit mask of docs/quality.md, of integers",
            where=where,
            fix="give the column another name where the catalog is written",
        )


def _image_spec(schema: pa.Schema, where: str) -> ImageSpec:
    """Read what standard pixels say of themselves."""
    if len(schema.get_all_field_indices("image")) != 1:
        raise InputError(
            "more than one column 'image' (cutouts)",
            where=f"{where}; columns: {', '.join(schema.names[:20])}",
            fix=f"a cutout catalog has the columns object_id and image: {_INGEST}",
        )
    image = schema.field("image")
    spec = ImageSpec.from_json(image.metadata[METADATA_KEY], where)
    _check_image_type(image.type, spec, where)
    return spec


def _require_alike(schema: pa.Schema, other: pa.Schema, where: str, first: str, standard: bool) -> None:
    """Refuse files of another kind, shape or columns than the first."""
    if _is_standard(other) != standard:
        raise InputError(
            "some files of the catalog say what their pixels are, others do not",
            where=f"{where} differs from {first}",
            fix="keep one kind of cutout in a catalog: move these files into a catalog of their own",
        )
    if standard and (found := _image_spec(other, where)) != (spec := _image_spec(schema, first)):
        raise InputError(
            f"mixed shapes: {_differences(spec, found)}",
            where=f"{where} differs from {first}",
            fix="keep one kind of cutout in a catalog: move these files into a catalog of their own",
        )
    _require_same_columns(schema, other, where, first)


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
