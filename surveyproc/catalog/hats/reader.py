"""Open any HATS catalog or collection from its small files."""

from __future__ import annotations

import csv
import dataclasses
import io
import posixpath
import re
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.catalog.hats.catalog import HatsCatalog, Partition
from surveyproc.catalog.hats.layout import (
    COLLECTION,
    COMMON_METADATA,
    METADATA,
    PARTITION_INFO,
    PROPERTY_NAMES,
    STANDARD_LEAF,
    leaf_name,
)
from surveyproc.catalog.hats.properties import parse_properties, split_list, split_pairs
from surveyproc.catalog.storage import UNFINISHED, is_data_file, unfinished
from surveyproc.errors import InputError, UsageError
from surveyproc.storage import Storage

KINDS = ("object", "source", "margin", "association", "index", "map")
_LEAF = re.compile(r"(?:^|/)Norder=(\d+)/(?:.*/)?Npix=(\d+)")


def is_hats(uri: str) -> bool:
    """Whether there is a HATS catalog, a collection or one of their properties files at ``uri``."""
    if uri.endswith(".properties"):
        return Storage(posixpath.dirname(uri) or ".").size(posixpath.basename(uri)) is not None
    names = set(Storage(uri).names())
    return bool(names & {COLLECTION, *PROPERTY_NAMES})


def open_hats(uri: str, leaf: str = STANDARD_LEAF) -> HatsCatalog:
    """Open a HATS catalog of any type from its properties and its list of partitions.

    Parameters
    ----------
    uri : str
        Folder of a catalog or of a collection (then its primary table is opened), or the properties file of a
        catalog, a collection or an extension (then the extension's data are opened); any fsspec URI.
    leaf : str
        Path of a leaf below the catalog's folder, where it is not that of the standard; ``{order}``,
        ``{dir}``, ``{pixel}`` and ``{suffix}`` are filled in.

    Returns
    -------
    HatsCatalog

    Raises
    ------
    InputError
        No HATS catalog there; a property that is missing or wrong; no schema; no partition.
    UsageError
        A pattern of leaves that cannot be filled in.

    Notes
    -----
    HATS 1.0 (https://www.ivoa.net/documents/Notes/HATS/). Without ``partition_info.csv`` the leaves are
    listed, which is slow in a store. The schema is that of ``_common_metadata``, ``_metadata``, or a leaf.

    Examples
    --------
    >>> catalog = open_hats("s3://bucket/gaia")  # doctest: +SKIP
    >>> catalog.partitions[0], catalog.uris(catalog.partitions[0])  # doctest: +SKIP
    (Partition(order=2, pixel=0), ['s3://bucket/gaia/dataset/Norder=2/Dir=0/Npix=0.parquet'])
    """
    _require_pattern(leaf)
    folder, name = _folder_and_file(uri)
    storage = Storage(folder)
    names = set(storage.names())
    if UNFINISHED in names:
        raise unfinished(folder)
    if name is None:
        name = next((n for n in (*PROPERTY_NAMES, COLLECTION) if n in names), None)
    if name is None or name not in names:
        raise InputError(
            "this is no HATS catalog (neither hats.properties nor collection.properties)",
            where=uri,
            fix="give the folder of a HATS catalog or collection",
        )
    properties = _read_properties(storage, name)
    if properties.get("dataproduct_type") == "extension":
        return open_hats(_resolve(folder, _wanted(properties, "hats_assn_join_table_url", uri)), leaf)
    if name == COLLECTION or "dataproduct_type" not in properties:
        return _open_collection(uri, folder, properties, leaf)
    return _open_table(uri, storage, properties, leaf)


def _require_pattern(leaf: str) -> None:
    try:
        distinct = len({leaf_name(leaf, *place, "") for place in ((1, 2), (1, 3), (2, 2))}) == 3
    except (KeyError, IndexError, ValueError):
        distinct = False
    if not distinct:
        raise UsageError(
            f"{leaf!r} is no pattern of leaves",
            where="leaf",
            fix="give a path below the catalog with {order} and {pixel}, and if need be {dir} and {suffix}: "
            f"the standard is {STANDARD_LEAF}",
        )


def _open_collection(uri: str, folder: str, properties: dict[str, str], leaf: str) -> HatsCatalog:
    primary = _resolve(folder, _wanted(properties, "hats_primary_table_url", uri))
    found = open_hats(primary, leaf)

    def resolved(pairs: Mapping[str, str]) -> dict[str, str]:
        return {key: _resolve(folder, path) for key, path in pairs.items()}

    try:
        indexes, extensions = (split_pairs(properties.get(k)) for k in ("all_indexes", "all_extensions"))
    except ValueError as error:
        raise InputError(f"a property is wrong: {error}", where=f"{folder}/{COLLECTION}") from error
    return dataclasses.replace(
        found,
        uri=uri,
        margins=resolved({name: name for name in split_list(properties.get("all_margins"))}),
        indexes=resolved(indexes),
        extensions=resolved(extensions),
        default_margin=properties.get("default_margin") or None,
    )


def _open_table(uri: str, storage: Storage, properties: dict[str, str], leaf: str) -> HatsCatalog:
    kind = _wanted(properties, "dataproduct_type", uri)
    _wanted(properties, "obs_collection", uri)
    if kind not in KINDS:
        raise InputError(
            f"dataproduct_type is {kind!r}; known are {', '.join(KINDS)}",
            where=uri,
            fix="mend hats.properties",
        )
    partitions = () if kind == "index" else _partitions(storage, properties)
    empty = pa.schema([])
    catalog = HatsCatalog(uri, storage, kind, properties, empty, partitions, leaf)
    return dataclasses.replace(catalog, schema=_schema(catalog))


def _partitions(storage: Storage, properties: Mapping[str, str]) -> tuple[Partition, ...]:
    """Read the list of partitions, or list the leaves; in sky order."""
    try:
        text = storage.read(PARTITION_INFO).decode()
        found = {Partition(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(io.StringIO(text))}
    except FileNotFoundError:
        matches = (_LEAF.search(name) for name in storage.walk("dataset") if is_data_file(name))
        found = {Partition(int(m[1]), int(m[2])) for m in matches if m}
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"the list of partitions cannot be read ({error!r})",
            where=storage.path(PARTITION_INFO),
            fix="it has the columns Norder and Npix; without that file the leaves are listed",
        ) from error
    if (
        not found
        and properties.get("hats_nrows") != "0"
        and properties.get("hats_assn_leaf_files") != "False"
    ):
        raise InputError(
            "the catalog has no partition", where=storage.uri, fix="check that its leaves were fetched too"
        )
    return tuple(sorted(found, key=lambda p: (p.range29[0], p.order)))


def _schema(catalog: HatsCatalog) -> pa.Schema:
    for name in (COMMON_METADATA, METADATA, *_first_leaf(catalog)):
        try:
            with catalog.storage.open(name) as file:
                return pq.read_schema(file)
        except FileNotFoundError:
            continue
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"not a readable Parquet file: {str(error).splitlines()[0]}",
                where=catalog.storage.path(name),
                fix="fetch that file again",
            ) from error
    raise InputError(
        "the columns of the catalog are unknown: neither _common_metadata nor _metadata nor a leaf is there",
        where=catalog.storage.uri,
        fix="check that its files were fetched too",
    )


def _first_leaf(catalog: HatsCatalog) -> Iterator[str]:
    if catalog.kind == "index":
        yield from catalog.files()[:1]
    elif catalog.partitions:
        yield from catalog.files(catalog.partitions[0])[:1]


def _folder_and_file(uri: str) -> tuple[str, str | None]:
    text = uri.rstrip("/")
    if text.endswith(".properties"):
        return posixpath.dirname(text) or ".", posixpath.basename(text)
    return text, None


def _read_properties(storage: Storage, name: str) -> dict[str, str]:
    try:
        return parse_properties(storage.read(name))
    except UnicodeDecodeError as error:
        raise InputError(
            "a properties file is no text", where=storage.path(name), fix="fetch that file again"
        ) from error


def _wanted(properties: Mapping[str, str], key: str, where: str) -> str:
    if not properties.get(key):
        raise InputError(f"the property {key!r} is missing", where=where, fix="mend the properties file")
    return properties[key]


def _resolve(folder: str, path: str) -> str:
    """A related catalog's address: relative ones are below the collection's folder."""
    return path if "://" in path or path.startswith("/") else f"{folder}/{path}"
