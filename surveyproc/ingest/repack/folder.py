"""A folder of images, without a table: ids are the names of the files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from surveyproc.catalog import Given
from surveyproc.catalog.storage import stat, version_of
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import UsageError
from surveyproc.images.decode import BadImage, Failures
from surveyproc.ingest.files import index_images
from surveyproc.ingest.loading import Loader, plan_loading
from surveyproc.ingest.repack.converting import Wanted
from surveyproc.ingest.repack.source import BATCH_BYTES, Batch
from surveyproc.runs.plan import Shard
from surveyproc.stores import explain_store_errors, filesystem, is_local

_ELSEWHERE = ("id", "ra", "dec", "image", "layout", "shape", "mask", "stretch")


@dataclass(frozen=True)
class FolderSource:
    """Images ``<id>.jpg|png|fits`` of a folder.

    Attributes
    ----------
    loader : Loader
    names, paths : tuple of str
        Ids and images, sorted by id. Where several have one name, the later ones are rejects.
    sizes : tuple of (int, str)
        Size and version of each.
    given : Given
    """

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
        if wrong or wanted.dtype is not None:
            raise UsageError(
                f"{', '.join(wrong) or '--dtype'} means nothing for a folder of images",
                where=uri,
                fix="ids are the names of the files; with a table use `surveyproc ingest --images`",
            )
        found = sorted((name, path) for name, paths in index_images(uri).images.items() for path in paths)
        names, paths = (tuple(column) for column in zip(*found))
        loader = plan_loading(paths, decode=True, size=wanted.size, bands=given.bands)
        return cls(loader, names, paths, _sizes(uri, paths), given)

    @property
    def spec(self) -> ImageSpec:
        """Pixels of the new catalog."""
        return self.loader.spec

    @property
    def columns(self) -> pa.Schema:
        """Its other columns."""
        return pa.schema([("object_id", pa.int64() if self.given.number_rows else pa.string())])

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
        return "ids are the names of the files; with a table of ids and positions use `surveyproc ingest --images`"

    def digest(self) -> str:
        """Digest of the names, sizes and versions."""
        told = hashlib.sha256()
        for path, version in zip(self.paths, self.sizes):
            told.update(json.dumps([path, *version]).encode())
        return told.hexdigest()

    def shards(self, rows: int) -> Iterator[Shard]:
        """Cut the list of images."""
        for number, start in enumerate(range(0, self.rows, rows)):
            stop = min(start + rows, self.rows)
            yield Shard(number, "", 0, "", start, stop, stop - start, start)

    def keys(self, shard: Shard) -> pa.Table:
        """Ids."""
        rows = range(shard.group_start, shard.group_stop)
        values = rows if self.given.number_rows else [self.names[row] for row in rows]
        return pa.table([pa.array(values, self.columns.field(0).type)], schema=self.columns)

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


def _sizes(uri: str, paths: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    """Size and version of each image; a store is listed once."""
    store, root = filesystem(uri)
    if is_local(store):
        return tuple(stat(store, path) for path in paths)
    with explain_store_errors(uri):
        found = store.find(root, maxdepth=2, detail=True)
    infos = {store.unstrip_protocol(path): info for path, info in found.items()}
    return tuple((int(infos[path]["size"]), version_of(infos[path])) for path in paths)
