"""VOParquet: a VOTable without data in the footer of a Parquet file, from which TOPCAT takes units and UCDs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping

import pyarrow as pa

from surveyproc.columns import DESCRIPTION, UCD, UNIT, attributes, with_attributes

VERSION_KEY, CONTENT_KEY = b"IVOA.VOTable-Parquet.version", b"IVOA.VOTable-Parquet.content"
VERSION = b"1.0"
POSITIONS = ("pos.eq.ra", "pos.eq.dec")
# Readers take lengths from the data. astropy 8 stacks both, and cannot where the document bounds text by nothing ("*").
TEXT = "64*"

_DATATYPES = {
    pa.bool_(): "boolean",
    pa.uint8(): "unsignedByte",
    pa.int8(): "short",
    pa.int16(): "short",
    pa.uint16(): "int",
    pa.int32(): "int",
    pa.uint32(): "long",
    pa.int64(): "long",
    pa.float16(): "float",
    pa.float32(): "float",
    pa.float64(): "double",
}


def with_votable(schema: pa.Schema, name: str, description: str = "") -> pa.Schema:
    """Add the VOParquet keys to a schema, so that every file written with it has them in its footer.

    Parameters
    ----------
    schema : pyarrow.Schema
        Columns; their ``description``, ``unit`` and ``ucd`` are those of `surveyproc.columns.attributes`.
    name, description : str
        Of the table.

    Returns
    -------
    pyarrow.Schema
        The same columns, described. Equal input gives equal bytes.

    Notes
    -----
    VOParquet 1.0 (https://www.ivoa.net/documents/Notes/VOParquet/).
    """
    said = pa.schema([with_attributes(field) for field in schema], schema.metadata)
    document = votable_header(said, name, description)
    return said.with_metadata({**(schema.metadata or {}), VERSION_KEY: VERSION, CONTENT_KEY: document})


def votable_header(
    schema: pa.Schema, name: str, description: str = "", kinds: Mapping[str, tuple[str, str]] | None = None
) -> bytes:
    """Make a VOTable 1.4 document in UTF-8 with one TABLE that has a FIELD for each column and no DATA.

    ``kinds`` gives the ``datatype`` and ``arraysize`` of columns that are not those of `datatype_of`.
    """
    root = ET.Element("VOTABLE", version="1.4", xmlns="http://www.ivoa.net/xml/VOTable/v1.3")
    resource = ET.SubElement(root, "RESOURCE")
    on_the_sky = any(attributes(field).get(UCD, "").startswith(POSITIONS) for field in schema)
    if on_the_sky:
        ET.SubElement(resource, "COOSYS", ID="icrs", system="ICRS")
    table = ET.SubElement(resource, "TABLE", name=name)
    if description:
        ET.SubElement(table, "DESCRIPTION").text = description
    for field in schema:
        table.append(_field(field, *(kinds or {}).get(field.name, datatype_of(field.type))))
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def _field(field: pa.Field, datatype: str, arraysize: str) -> ET.Element:
    said = attributes(field)
    element = ET.Element("FIELD", name=field.name, datatype=datatype)
    if arraysize:
        element.set("arraysize", arraysize)
    for key in (UNIT, UCD):
        if key in said:
            element.set(key, said[key])
    if said.get(UCD, "").startswith(POSITIONS):
        element.set("ref", "icrs")
    if DESCRIPTION in said:
        ET.SubElement(element, "DESCRIPTION").text = said[DESCRIPTION]
    return element


def datatype_of(kind: pa.DataType) -> tuple[str, str]:
    """Say the VOTable ``datatype`` and ``arraysize`` that come nearest to an Arrow type.

    What VOTable lacks (structures, times) is ``char`` of any length, as the convention recommends.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "unicodeChar", TEXT
    if pa.types.is_fixed_size_list(kind) and kind.value_type in _DATATYPES:
        return _DATATYPES[kind.value_type], str(kind.list_size)
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and kind.value_type in _DATATYPES:
        return _DATATYPES[kind.value_type], "*"
    return (_DATATYPES[kind], "") if kind in _DATATYPES else ("char", "*")
