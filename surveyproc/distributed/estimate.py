"""What a run would read, compute, write and cost: told from footers, settings and the bundles' records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from surveyproc.config.run import RunConfig
from surveyproc.distributed.job import Draft, draft
from surveyproc.identifiers import ROW
from surveyproc.runs.duplicates import ENTRY
from surveyproc.runs.estimate import decode_ms, index_row_bytes, row_bytes
from surveyproc.runs.ledger import Ledger

MS_PER_HOUR = 3_600_000


def estimate(
    input_uri: str,
    output_uri: str,
    bundle_names: Sequence[str],
    config: RunConfig,
    force_domain: bool = False,
    ms_per_cutout: float | None = None,
    price_per_hour: float | None = None,
) -> dict[str, Any]:
    """Estimate a run without beginning it; the engine's device need not be in this machine.

    Parameters
    ----------
    input_uri, output_uri, bundle_names, config, force_domain
        Of the run.
    ms_per_cutout : float, optional
        Milliseconds of one device for one cutout, decoding included, as a trial run showed; by default
        what the bundles state for a core, and the time to decode.
    price_per_hour : float, optional
        Of one device, a core or a GPU.

    Returns
    -------
    dict
        Rows, bytes and seconds as numbers; ``device_hours``, ``seconds`` and ``cost`` are None where nothing
        is known about the device.
    """
    device = config.engine.device
    here = config.cluster.kind != "address"
    elsewhere = here and device.startswith("cuda") and not torch.cuda.is_available()
    if elsewhere:
        engine = replace(config.engine, device="cpu", precision="auto")
        config = replace(
            config, engine=engine, cluster=replace(config.cluster, actors=config.cluster.actors or 1)
        )
    drafted = draft(input_uri, output_uri, bundle_names, config, force_domain)
    device = device if elsewhere else drafted.task.settings.device
    known = ms_per_cutout or (drafted.ms_per_cutout if device == "cpu" else None)
    done = Ledger(drafted.storage).committed("shard-")
    shards = committed = rows_left = 0
    for shard in drafted.shards():
        shards += 1
        committed += shard.unit in done
        rows_left += 0 if shard.unit in done else shard.rows
    hours = None if known is None else rows_left * known / MS_PER_HOUR
    return {
        **_input(drafted),
        "bundles": [b.name for b in drafted.bundles],
        "encoder_passes": drafted.passes,
        "device": device,
        "precision": "chosen on the device" if elsewhere else drafted.task.settings.precision,
        "ms_per_cutout": known,
        "decode_ms_per_cutout": decode_ms(drafted.catalog.image),
        "shards": shards,
        "shards_committed": committed,
        "rows_left": rows_left,
        "executor": drafted.executor_for(rows_left),
        "actors": drafted.actors,
        "device_hours": hours,
        "seconds": None if hours is None else hours * 3600 / drafted.actors,
        "price_per_hour": price_per_hour,
        "cost": None if hours is None or price_per_hour is None else hours * price_per_hour,
        **_output(drafted),
    }


def _input(drafted: Draft) -> dict[str, Any]:
    catalog = drafted.catalog
    return {
        "files": len(catalog.files),
        "rows": catalog.rows,
        "row_groups": sum(len(f.row_groups) for f in catalog.files),
        "bytes": catalog.bytes,
        "image": {k: getattr(catalog.image, k) for k in ("encoding", "dtype", "shape")},
    }


def _output(drafted: Draft) -> dict[str, Any]:
    rows = drafted.catalog.rows
    tables = {
        name: row_bytes(schema.remove(schema.get_field_index(ROW)))
        for name, schema in drafted.schemas.items()
        if name != "rejects"
    }
    index = 0.0
    if drafted.config.output.index and "embeddings" in tables:
        index = index_row_bytes(drafted.schemas["embeddings"])
    return {
        "tables": {n: {"bytes_per_row": round(b, 1), "bytes": round(rows * b)} for n, b in tables.items()},
        "index_bytes": round(rows * index),
        "output_bytes": round(rows * (sum(tables.values()) + index)),
        "scratch_bytes": rows * ENTRY.itemsize,
    }
