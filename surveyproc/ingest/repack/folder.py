"""A folder of images, without a table: ids are the names of the files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from surveyproc.catalog import Given
from surveyproc.catalog.storage import stat, version_of
from surveyproc.columns import described, known
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError, UsageError
from surveyproc.images.decode import BadImage, Failures
from surveyproc.ingest.files import index_images
from surveyproc.ingest.loading import FluxUnit, Loader, plan_loading
from surveyproc.ingest.repack.converting import Wanted
from surveyproc.ingest.repack.source import BATCH_BYTES, Batch
from surveyproc.runs.plan import Shard
from surveyproc.stores import explain_store_errors, filesystem, is_local

_ELSEWHERE = ("id", "ra", "dec", "image", "layout", "shape", "dtype", "mask", "stretch")


@dataclass(frozen=True)
class FolderSource:
    """Images ``<id>.jpg|png|fits`` of a folder.

    Attributes
    ----------
    root : str
        The folder, with which all paths begin.
    loader : Loader
    names, paths : tuple of str
        Ids and images, sorted by id. Where several have one name, the later ones are rejects.
    sizes : tuple of (int, str)
        Size and version of each.
    given : Given
    """

    root: str
    loader: Loader
    names: tuple[str, ...]
    paths: tuple[str, ...]
    sizes: tuple[tuple[int, str], ...]
    given: Given

    @classmethod
    def open(cls, uri: str, given: Given, wanted: Wanted) -> FolderSource:
        """List a folder and see what its images are.

        Raises
        ------
        InputError, UsageError
            See `surveyproc.ingest.loading.plan_loading`.
        """
        wrong = [f"--{name}" for name in _ELSEWHERE if getattr(given, name) is not None]
        if wrong:
            raise UsageError(
                f"{', '.join(wrong)} means nothing for a folder of images",
                where=uri,
                fix="ids are the names of the files; with a table use `surveyproc ingest --images`",
            )
        found = sorted((name, path) for name, paths in index_images(uri).images.items() for path in paths)
        if odd := [path for _, path in found if path.encode(errors="replace").decode() != path]:
            raise InputError(
                f"{len(odd)} file names are no text, such as {os.path.basename(odd[0])!a}",
                where=uri,
                fix="rename them: names become ids, which are UTF-8",
            )
        names, paths = (tuple(column) for column in zip(*found))
        loader = plan_loading(paths, decode=True, size=wanted.size, bands=given.bands, flux=_flux_unit(given))
        store, root = filesystem(uri)
        root = root if is_local(store) else store.unstrip_protocol(root)
        return cls(f"{root.rstrip('/')}/", loader, names, paths, _sizes(uri, paths), given)

    @property
    def spec(self) -> ImageSpec:
        """Pixels of the new catalog."""
        return self.loader.spec

    @property
    def columns(self) -> pa.Schema:
        """Its other columns."""
        ids = known("object_id", pa.int64() if self.given.number_rows else pa.string())
        return pa.schema([ids, described("file", pa.string(), "path of the image in its folder")])

    @property
    def left_out(self) -> list[str]:
        """No columns are left out."""
        return []

    @property
    def rows(self) -> int:
        """Images."""
        return len(self.paths)

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return sum(size for size, _ in self.sizes)

    @property
    def note(self) -> str:
        """What the user may want to know."""
        ids = "numbers in the order of the names" if self.given.number_rows else "the names of the files"
        return f"ids are {ids}; with a table of ids and positions use `surveyproc ingest --images`"

    def digest(self) -> str:
        """Digest of the names, sizes and versions."""
        told = hashlib.sha256()
        for path, version in zip(self.paths, self.sizes):
            told.update(json.dumps([path.removeprefix(self.root), *version]).encode())
        return told.hexdigest()

    def shards(self, rows: int) -> Iterator[Shard]:
        """Cut the list of images."""
        for number, start in enumerate(range(0, self.rows, rows)):
            stop = min(start + rows, self.rows)
            yield Shard(number, "", 0, "", start, stop, stop - start, start)

    def keys(self, shard: Shard) -> pa.Table:
        """Ids and files."""
        rows = range(shard.group_start, shard.group_stop)
        ids = rows if self.given.number_rows else [self.names[row] for row in rows]
        files = [self.paths[row].removeprefix(self.root) for row in rows]
        return pa.table([pa.array(ids, self.columns.field(0).type), files], schema=self.columns)

    def batches(self, shard: Shard) -> Iterator[Batch]:
        """Read and decode a unit."""
        ids, step = self.keys(shard), max(1, min(256, BATCH_BYTES // self.spec.nbytes))
        for start in range(0, shard.rows, step):
            part = ids.slice(start, step)
            first = shard.group_start + start
            pixels = np.zeros((part.num_rows, *self.spec.shape), self.spec.dtype)
            failures: Failures = {}
            for row in range(part.num_rows):
                try:
                    data = self.loader.load(self.paths[first + row])
                    pixels[row] = np.frombuffer(data, self.spec.dtype).reshape(self.spec.shape)
                except BadImage as error:
                    failures[row] = (error.reason, error.detail)
            yield Batch(part, pixels, failures)


def _flux_unit(given: Given) -> FluxUnit | None:
    """What the user says of FITS images: the unit that their pixels are in, or one to bring them to nJy with."""
    if given.unit is None and given.zeropoint is None:
        return None
    magnitude = given.magnitude_of_one
    zeropoints = {} if magnitude is None else dict.fromkeys(given.bands or (), magnitude)
    return FluxUnit(given.unit, zeropoints, True) if given.unit else FluxUnit(zeropoints=zeropoints)


def _size(store: Any, path: str) -> tuple[int, str]:
    """Size and version; of a link to nothing none, so that its row becomes a reject."""
    try:
        return stat(store, path)
    except FileNotFoundError:
        return 0, ""


def _sizes(uri: str, paths: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    """Size and version of each image; a store is listed once."""
    store, root = filesystem(uri)
    if is_local(store):
        return tuple(_size(store, path) for path in paths)
    with explain_store_errors(uri):
        found = store.find(root, maxdepth=2, detail=True)
    infos = {store.unstrip_protocol(path): info for path, info in found.items()}
    return tuple((int(infos[path]["size"]), version_of(infos[path])) for path in paths)
