"""Make cutout catalogs out of what surveys and people have."""

from surveyproc.ingest.images import ingest_images
from surveyproc.ingest.report import IngestReport

__all__ = ["IngestReport", "ingest_images"]
