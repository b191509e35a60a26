"""From FITS tiles to cutouts: pure functions of one tile, no ledger and no output folder."""

from surveyproc.ingest.tiles.cut import Cutouts, cut_tile
from surveyproc.ingest.tiles.layout import Layout, read_layout
from surveyproc.ingest.tiles.settings import CutSettings, image_spec, row_schema
from surveyproc.ingest.tiles.survey import find_tiles
from surveyproc.ingest.tiles.tile import Band, Plane, Tile
from surveyproc.ingest.tiles.wcs import edge_distance, footprint, locate

__all__ = [
    "Band",
    "CutSettings",
    "Cutouts",
    "Layout",
    "Plane",
    "Tile",
    "cut_tile",
    "edge_distance",
    "find_tiles",
    "footprint",
    "image_spec",
    "locate",
    "read_layout",
    "row_schema",
]
