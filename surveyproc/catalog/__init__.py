"""Cutout catalogs: what they are, how they are read, how they are written."""

from surveyproc.catalog.catalog import Catalog, CatalogFile, RowGroup, RowGroups, open_catalog
from surveyproc.catalog.pixels import pixels_to_array
from surveyproc.catalog.reading import read_batches
from surveyproc.catalog.storage import catalog_files
from surveyproc.catalog.writer import CatalogWriter

__all__ = [
    "Catalog",
    "CatalogFile",
    "CatalogWriter",
    "RowGroup",
    "RowGroups",
    "catalog_files",
    "open_catalog",
    "pixels_to_array",
    "read_batches",
]
