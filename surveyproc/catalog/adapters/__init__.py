"""Cutouts as other people store them, read as the standard ``image`` column."""

from surveyproc.catalog.adapters.adapter import Adapter, adapt
from surveyproc.catalog.adapters.given import Given

__all__ = ["Adapter", "Given", "adapt"]
