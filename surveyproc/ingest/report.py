"""What an ingest reports, and what it leaves beside the data."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import surveyproc
from surveyproc.cutouts import ImageSpec
from surveyproc.storage import Storage

REJECTS_SCHEMA = pa.schema([(name, pa.string()) for name in ("object_id", "stage", "reason", "detail")])


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did: ``rows_in + images_without_row = rows_out + sum(rejects)``.

    Attributes
    ----------
    output : str
        The catalog.
    rows_in : int
        Rows of the table.
    images_without_row : int
        Images whose name is no id of the table; they are among the rejects.
    rows_out : int
        Cutouts written.
    rejects : dict of str to int
        Rejects by reason; each is listed in ``<output>/rejects.parquet``.
    positions_missing : int or None
        Written rows without a usable position; None when the table has none.
    other_files : int
        Files of the folder that are no images; they were left alone.
    image : ImageSpec
        The pixels.
    bytes : int
        Size of the catalog on disk.
    seconds : float
        Wall time.
    """

    output: str
    rows_in: int
    images_without_row: int
    rows_out: int
    rejects: dict[str, int]
    positions_missing: int | None
    other_files: int
    image: ImageSpec
    bytes: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**self.__dict__, "image": json.loads(self.image.to_json())}


@dataclass
class Rejects:
    """Rows and images that did not become cutouts."""

    rows: list[tuple[str | None, str, str]] = field(default_factory=list)

    def add(self, object_id: Any, reason: str, detail: str) -> None:
        """List one of them; the id is None where there is none."""
        self.rows.append((None if object_id is None else str(object_id), reason, detail))

    def by_reason(self) -> dict[str, int]:
        """Count them, the most frequent reason first."""
        return dict(Counter(reason for _, reason, _ in self.rows).most_common())

    def table(self) -> pa.Table:
        """List them with the columns of every rejects table."""
        rows = [{"object_id": i, "stage": "ingest", "reason": r, "detail": d} for i, r, d in self.rows]
        return pa.Table.from_pylist(rows, REJECTS_SCHEMA)


def write_sidecars(
    folder: Storage, rejects: Rejects, report: IngestReport, source: dict[str, Any], command: str
) -> None:
    """Write ``rejects.parquet`` and ``catalog.json`` (counts, source, version) beside the data."""
    counts = {k: v for k, v in report.to_dict().items() if k not in ("output", "bytes", "seconds")}
    about = {"surveyproc": surveyproc.__version__, "command": command, "source": source, **counts}
    sink = io.BytesIO()
    pq.write_table(rejects.table(), sink, compression="zstd")
    folder.replace("rejects.parquet", sink.getvalue())
    folder.replace("catalog.json", json.dumps(about, indent=1).encode())
