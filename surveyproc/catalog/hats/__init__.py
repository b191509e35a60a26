"""HATS catalogs: the layout, a reader of anybody's, a writer of ours."""

from surveyproc.catalog.hats.catalog import HatsCatalog, Partition
from surveyproc.catalog.hats.collection import collection_file, extension_file
from surveyproc.catalog.hats.layout import (
    COMMON_METADATA,
    CREATION_DATE,
    PARTITION_INFO,
    PROPERTIES,
    choose_occupied_pixels,
    choose_pixels,
    leaf_path,
    metadata_files,
)
from surveyproc.catalog.hats.parquet import parquet_settings
from surveyproc.catalog.hats.reader import is_hats, open_hats

__all__ = [
    "COMMON_METADATA",
    "CREATION_DATE",
    "PARTITION_INFO",
    "PROPERTIES",
    "HatsCatalog",
    "Partition",
    "choose_occupied_pixels",
    "choose_pixels",
    "collection_file",
    "extension_file",
    "is_hats",
    "leaf_path",
    "metadata_files",
    "open_hats",
    "parquet_settings",
]
