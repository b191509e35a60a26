"""Cutouts of any form into the fast layout, one unit of rows at a time."""

from surveyproc.ingest.repack.converting import Wanted
from surveyproc.ingest.repack.folder import FolderSource
from surveyproc.ingest.repack.opening import open_source
from surveyproc.ingest.repack.source import CatalogSource, Source

__all__ = ["CatalogSource", "FolderSource", "Source", "Wanted", "open_source"]
