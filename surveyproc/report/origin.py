"""Where a run's cutouts came from: what the command that made the catalog took, kept and rejected."""

from __future__ import annotations

from typing import Any

from surveyproc.report.charts import meter
from surveyproc.report.page import escape, facts_table
from surveyproc.runs.making import Making

MOST_TILES = 20


def origin(catalog_uri: str) -> str:
    """Show the counts that `ingest` and `repack` leave in ``catalog.json``; nothing for catalogs of others."""
    about = Making(catalog_uri).finished() or {}
    if not {"rows_in", "rows_out", "rejects"} <= about.keys():
        return ""
    rejects, quality = about["rejects"], about.get("quality") or {}
    rejected = sum(rejects.values())
    lead = f"{about['rows_in']:,} rows in = {about['rows_out']:,} cutouts + {rejected:,} rejects"
    if about.get("images_without_row"):
        lead = lead.replace(" =", f" + {about['images_without_row']:,} images without a row =", 1)
    parts = [f'<p class="lead">{escape(lead)}.</p>', facts_table(_facts(about))]
    if rejects:
        parts.append(f"<h3>Rejects <small>listed in its rejects.parquet</small></h3>{_meters(rejects)}")
    if quality:
        parts.append(f"<h3>Cutouts with a flaw <small>bits of quality</small></h3>{_meters(quality)}")
    unusable = list((about.get("unusable_tiles") or {}).items())
    if unusable:
        more = len(unusable) - MOST_TILES
        shown = facts_table(unusable[:MOST_TILES]) + (f"<p>and {more:,} more</p>" if more > 0 else "")
        parts.append(f"<h3>Tiles that could not be used</h3>{shown}")
    return "".join(parts)


def _facts(about: dict[str, Any]) -> list[tuple[str, Any]]:
    facts = [("made with", about["command"])] if about.get("command") else []
    if "tiles" in about:
        facts.append(("tiles", f"{about['tiles_used']:,} of {about['tiles']:,} gave cutouts"))
    return facts


def _meters(counts: dict[str, int]) -> str:
    largest = max(counts.values())
    return "".join(meter(name, count, largest, f"{count:,}") for name, count in counts.items())
