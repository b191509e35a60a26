"""Cutout catalogs: what they are, how they are read, how they are written."""

from surveyproc.catalog.adapters import Given
from surveyproc.catalog.catalog import Catalog, open_catalog
from surveyproc.catalog.files import CatalogFile, RowGroup, RowGroups
from surveyproc.catalog.form import Form
from surveyproc.catalog.pixels import pixels_to_array
from surveyproc.catalog.reading import read_batches
from surveyproc.catalog.storage import catalog_files
from surveyproc.catalog.writer import CatalogWriter

__all__ = [
    "Catalog",
    "CatalogFile",
    "CatalogWriter",
    "Form",
    "Given",
    "RowGroup",
    "RowGroups",
    "catalog_files",
    "open_catalog",
    "pixels_to_array",
    "read_batches",
]
