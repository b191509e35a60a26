"""Open what is to be repacked, whatever it is."""

from __future__ import annotations

import os

from surveyproc.catalog import Given, catalog_files, open_catalog
from surveyproc.errors import InputError
from surveyproc.ingest.files import index_images
from surveyproc.ingest.repack.converting import Wanted
from surveyproc.ingest.repack.folder import FolderSource
from surveyproc.ingest.repack.source import CatalogSource, Source
from surveyproc.stores import filesystem, is_local


def open_source(uri: str, given: Given, wanted: Wanted) -> Source:
    """Open whatever it is: a catalog in any form, HDF5 files, or a folder of images.

    Raises
    ------
    InputError, UsageError
        When it cannot be read, or something has to be said of it.
    """
    if _is_image_folder(uri):
        return FolderSource.open(uri, given, wanted)
    catalog = open_catalog(uri, given)
    wanted.spec(catalog.image)
    return CatalogSource(catalog, wanted)


def _is_image_folder(uri: str) -> bool:
    """Whether a folder has images and nothing that is a catalog."""
    found, path = filesystem(uri)
    if is_local(found) and not os.path.isdir(path):
        return False
    try:
        catalog_files(uri)
    except InputError as error:
        if "no Parquet file" not in error.what:
            raise
    else:
        return False
    try:
        return bool(index_images(uri).images)
    except InputError:
        return False
