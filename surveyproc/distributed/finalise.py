"""Finalise: every planned shard is committed; make the tables, the index, and last the manifest."""

from __future__ import annotations

import time
from typing import Any

import pyarrow.parquet as pq

from surveyproc.errors import PartialError
from surveyproc.runs.ledger import Commit, Ledger
from surveyproc.runs.manifest import (
    add_generation,
    first_manifest,
    latest,
    table_entry,
    write_hats_metadata,
)
from surveyproc.runs.merge import merge_unit, merge_units, survey_parts
from surveyproc.runs.plan import Shard
from surveyproc.search.flat import build_unit, index_entry, index_units
from surveyproc.steps import step
from surveyproc.storage import Storage


def finalise(
    storage: Storage,
    plan: list[Shard],
    provenance: dict[str, Any],
    with_index: bool,
    timings: dict[str, float],
) -> dict[str, Any]:
    """Turn the committed parts of a run into its tables and publish the manifest.

    Dying anywhere in it and starting again, or two processes doing it at once, ends in the same files:
    each file is a unit with its own commit, and the manifest is created only once.

    Parameters
    ----------
    storage : Storage
        The run folder.
    plan : list of Shard
    provenance : dict
        For each table the bundle and the encoder it came from.
    with_index : bool
        Build the similarity index.
    timings : dict of str to float
        Seconds of the phases before; those of finalise are added.

    Returns
    -------
    dict
        The manifest that stands.

    Raises
    ------
    PartialError
        When a planned shard is not committed.
    """
    ledger = Ledger(storage)
    commits = _all_commits(ledger, plan)
    started = time.monotonic()
    names = list(commits[0].parts)
    primary = next(n for n in names if n != "rejects")
    with storage.open(commits[0].parts[primary].path) as file:
        positions = "_healpix_29" in pq.read_schema(file).names
    survey = survey_parts(storage, commits, primary, positions)
    step("finalise.surveyed")
    done: dict[str, list] = {name: [] for name in names}
    for unit in merge_units(commits, names, survey):
        done[unit.table].append((unit, merge_unit(storage, ledger, commits, unit, survey, primary)))
    tables = {name: table_entry(units, provenance.get(name, {})) for name, units in done.items()}
    merged = time.monotonic()
    index = None
    if with_index and tables.get("embeddings", {}).get("rows"):
        units = index_units(storage, [f["path"] for f in tables["embeddings"]["files"]])
        built = [(unit, build_unit(storage, ledger, unit)) for unit in units]
        index = index_entry(built, "embeddings", tables["embeddings"]["encoder_sha256"])
    for name, entry in tables.items():
        if entry["layout"] == "hats":
            with storage.open(entry["files"][0]["path"]) as file:
                schema = pq.read_schema(file)
            write_hats_metadata(storage, name, entry, schema, storage.uri.rsplit("/", 1)[-1])
    step("finalise.metadata")
    timings = timings | {"merge": merged - started, "index": time.monotonic() - merged}
    add_generation(storage, first_manifest(tables, index, commits, timings))
    manifest = latest(storage)
    if manifest is None:
        raise PartialError(
            "the manifest cannot be read back", where=storage.uri, fix="give the command again"
        )
    step("finalise.manifest")
    ledger.tidy()
    step("finalise.done")
    return manifest


def _all_commits(ledger: Ledger, plan: list[Shard]) -> list[Commit]:
    commits = [ledger.commit_of(shard.unit) for shard in plan]
    missing = sum(commit is None for commit in commits)
    if missing:
        raise PartialError(
            f"{missing} of {len(plan)} shards are not committed yet",
            where=ledger.storage.uri,
            fix="give the same command again to finish them",
        )
    return [commit for commit in commits if commit is not None]
