"""Finalise: every planned shard is committed; make the tables, the index, and last the manifest."""

from __future__ import annotations

import time
from typing import Any

import pyarrow.parquet as pq

from surveyproc.runs.accounts import Count
from surveyproc.runs.ledger import Ledger
from surveyproc.runs.manifest import assemble, publish, wants_index
from surveyproc.runs.merge import merge_unit, merge_units, survey_parts
from surveyproc.runs.plan import Plan
from surveyproc.runs.record import load_record
from surveyproc.runs.winners import read_winners
from surveyproc.search.flat import build_unit, index_units
from surveyproc.steps import step
from surveyproc.storage import Storage


def finalise(storage: Storage, plan: Plan, timings: dict[str, float]) -> dict[str, Any]:
    """Turn the committed parts of a run into its tables and publish the manifest.

    Dying anywhere in it and starting again, or two processes doing it at once, ends in the same files:
    each file is a unit with its own commit, and the manifest is created only once.

    Parameters
    ----------
    storage : Storage
        The run folder.
    plan : Plan
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
    SurveyprocError
        When the accounts of the tables do not balance; there is no manifest then.
    """
    ledger, record = Ledger(storage), load_record(storage)
    winners = read_winners(ledger, plan)
    started = time.monotonic()
    names = winners.tables
    primary = next(n for n in names if n != "rejects")
    with storage.open(winners.path(0, primary)) as file:
        positions = "_healpix_29" in pq.read_schema(file).names
    survey = survey_parts(storage, winners, primary, positions)
    step("finalise.surveyed")
    units = merge_units(winners, names, survey)
    done = [merge_unit(storage, ledger, winners, unit, survey, primary) for unit in units]
    merged = time.monotonic()
    came_in = Count(winners.rows_in, winners.id_sum)
    tables = assemble(record, came_in, done, [])["tables"]
    built = []
    if wants_index(record, tables):
        files = [f["path"] for f in tables["embeddings"]["files"]]
        built = [build_unit(storage, ledger, unit) for unit in index_units(storage, files)]
    timings = timings | {"merge": merged - started, "index": time.monotonic() - merged}
    manifest = publish(storage, record, assemble(record, came_in, done, built), plan.rows, timings)
    ledger.tidy()
    step("finalise.done")
    return manifest
