"""Where a catalog's files are: listing and opening through fsspec."""

from __future__ import annotations

import os
import posixpath
import shlex
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs
from fsspec.implementations.local import LocalFileSystem

from surveyproc.errors import InputError
from surveyproc.stores import explain_store_errors, is_local
from surveyproc.stores import filesystem as open_filesystem

PARQUET_SUFFIXES = (".parquet", ".pq", ".parq")
HDF5_SUFFIXES = (".h5", ".hdf5")
UNFINISHED = "_unfinished"
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".fits", ".fits.gz")


@dataclass(frozen=True)
class Location:
    """A catalog's place: the file system, its root folder, and whether the URI names one file."""

    filesystem: Any
    root: str
    single: str | None = None

    def path(self, file: str) -> str:
        """Full path of a file of the catalog."""
        return f"{self.root}/{file}"


def locate(uri: str) -> Location:
    """Resolve a catalog's URI.

    Raises
    ------
    InputError
        When nothing is there.
    """
    filesystem, root = open_filesystem(str(uri))
    filesystem.invalidate_cache()
    with explain_store_errors(str(uri)):
        exists, single = filesystem.exists(root), filesystem.isfile(root)
    if not exists:
        raise InputError("there is no such catalog", where=str(uri), fix="check the path; see `ls` there")
    if single:
        return Location(filesystem, posixpath.dirname(root), posixpath.basename(root))
    return Location(filesystem, root)


def locate_file(catalog_uri: str, file: str) -> tuple[Any, str]:
    """Resolve one file of a catalog without listing anything else.

    Parameters
    ----------
    catalog_uri : str
        The URI given to `open_catalog`: a folder, or the file itself.
    file : str
        ``CatalogFile.path``.

    Returns
    -------
    tuple
        fsspec file system and full path.
    """
    filesystem, root = open_filesystem(str(catalog_uri))
    if posixpath.basename(root) == file and filesystem.isfile(root):
        return filesystem, root
    return filesystem, f"{root}/{file}"


def arrow_filesystem(filesystem: Any) -> pafs.FileSystem:
    """Wrap an fsspec file system for pyarrow; local files use pyarrow's own, which is faster."""
    if isinstance(filesystem, LocalFileSystem):
        return pafs.LocalFileSystem()
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))


def stat(filesystem: Any, path: str) -> tuple[int, str]:
    """Return size in bytes and version: modification time in ns on a disk, ETag or the like in a store.

    Raises
    ------
    FileNotFoundError
        When the file is gone.
    """
    if isinstance(filesystem, LocalFileSystem):
        found = os.stat(path)
        return found.st_size, str(found.st_mtime_ns)
    filesystem.invalidate_cache(posixpath.dirname(path))
    info = filesystem.info(path)
    return int(info["size"]), version_of(info)


def version_of(info: dict[str, Any]) -> str:
    """What tells one content of a store's object from the next: ETag, generation, or modification time."""
    for key in ("ETag", "etag", "generation", "LastModified", "last_modified", "mtime", "created"):
        if info.get(key):
            return str(info[key])
    return ""


def list_data(location: Location) -> list[str]:
    """List the files that cutouts are read from: as `list_parquet`; where there are none, HDF5 files."""
    if location.single is not None:
        _refuse_other_kinds(location.path(location.single))
        return [location.single]
    with explain_store_errors(location.root):
        return _list_folder(location.filesystem, location.root, PARQUET_SUFFIXES, HDF5_SUFFIXES)


def _refuse_other_kinds(path: str) -> None:
    """Say of a file whose name is that of an image or a table what it is good for."""
    name = path.lower()
    if name.endswith((".fits", ".fits.gz", ".fits.fz", ".fz")):
        fix = (
            "cut sources out of FITS tiles with `surveyproc ingest --tiles`; of single stamps give the folder"
        )
    elif name.endswith(_IMAGE_SUFFIXES):
        fix = "give the folder of the images, or a table of them: `surveyproc ingest --images DIR --table T.csv --id COL`"
    elif name.endswith((".csv", ".tsv", ".ecsv", ".txt", ".vot", ".xml", ".json")):
        fix = (
            "a table without pixels goes with images: `surveyproc ingest --images DIR --table T.csv --id COL`"
        )
    elif name.endswith((".zip", ".gz", ".tar", ".tgz", ".bz2", ".npy", ".npz", ".zarr")):
        fix = "unpack it; arrays can be written as HDF5 with a data set `images`"
    else:
        return
    raise InputError("this is no file of cutouts: those are Parquet or HDF5", where=path, fix=fix)


def list_parquet(location: Location) -> list[str]:
    """List a catalog's data files, sorted, relative to its root.

    A HATS catalog keeps its data under ``dataset/``; elsewhere every Parquet file below the root counts.
    Names that start with ``_`` or ``.`` (``_metadata``, unfinished writes) do not. A HATS collection is
    followed to its primary table.

    Raises
    ------
    InputError
        When there is no Parquet file.
    """
    if location.single is not None:
        return [location.single]
    with explain_store_errors(location.root):
        return _list_folder(location.filesystem, location.root, PARQUET_SUFFIXES)


def _list_folder(filesystem: Any, root: str, *kinds: tuple[str, ...]) -> list[str]:
    """List the files of the first of some kinds of which there are any."""
    if filesystem.exists(f"{root}/{UNFINISHED}"):
        raise unfinished(root if is_local(filesystem) else filesystem.unstrip_protocol(root))
    primary = _primary_table(filesystem, root)
    base = f"{root}/{primary}" if primary else root
    if filesystem.isdir(f"{base}/dataset"):
        base = f"{base}/dataset"
    everything = filesystem.find(base, refresh=True) if not is_local(filesystem) else filesystem.find(base)
    names = sorted(posixpath.relpath(path, root) for path in everything)
    for suffixes in kinds:
        if data := [name for name in names if is_data_file(name, suffixes)]:
            return data
    if base.endswith("/dataset") and (others := _list_elsewhere(filesystem, base)):
        fix = f"its files are not where HATS has them; give their folder: {others}"
    elif any(name.lower().endswith(_IMAGE_SUFFIXES) for name in names):
        fix = (
            "make a catalog of the images: surveyproc ingest --images DIR --table T.csv --id COL --output CAT, or "
            "surveyproc repack DIR --output CAT (ids are their names)"
        )
    else:
        fix = "give a folder with Parquet or HDF5 files, a HATS catalog, or one such file"
    raise InputError("the catalog is empty: no Parquet file in it", where=base, fix=fix)


def _list_elsewhere(filesystem: Any, base: str) -> str | None:
    """Folder beside ``dataset/`` that has Parquet files."""
    root = posixpath.dirname(base)
    below = (posixpath.relpath(path, root) for path in filesystem.find(root))
    return next((f"{root}/{posixpath.dirname(name)}" for name in sorted(below) if is_data_file(name)), None)


def unfinished(uri: str) -> InputError:
    """A catalog that readers are kept off."""
    return InputError(
        "the catalog is unfinished: it is being written, or its writer was killed",
        where=uri,
        fix=f"see how far it is, and the command that finishes it: surveyproc status {shlex.quote(uri)}",
    )


def catalog_files(uri: str) -> list[str]:
    """List the full paths of a catalog's Parquet files; nothing is opened.

    Returns
    -------
    list of str
        Sorted; with the protocol, except for local files.
    """
    location = locate(uri)
    files = [location.path(name) for name in list_parquet(location)]
    if is_local(location.filesystem):
        return files
    return [location.filesystem.unstrip_protocol(path) for path in files]


def is_data_file(name: str, suffixes: tuple[str, ...] = PARQUET_SUFFIXES) -> bool:
    """Whether a name is that of a Parquet file with rows: names that begin with ``_`` or ``.`` are not."""
    parts = name.split("/")
    return name.lower().endswith(suffixes) and not any(part.startswith(("_", ".")) for part in parts)


def _primary_table(filesystem: Any, root: str) -> str | None:
    """Folder of the primary table of a HATS collection; None for anything else."""
    properties = f"{root}/collection.properties"
    if not filesystem.isfile(properties):
        return None
    for line in filesystem.cat_file(properties).decode().splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "hats_primary_table_url":
            return value.strip().strip("/")
    return None
