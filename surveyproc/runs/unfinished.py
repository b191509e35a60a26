"""How far a catalog is that a command makes as a run, and what is committed of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from surveyproc.catalog.storage import UNFINISHED
from surveyproc.errors import InputError
from surveyproc.runs.accounts import Check, some
from surveyproc.runs.files import READERS, damage
from surveyproc.runs.ledger import Commit, Part
from surveyproc.runs.making import Making
from surveyproc.runs.plan import PLAN
from surveyproc.runs.record import RECORD, load_record, resume_command
from surveyproc.storage import Storage
from surveyproc.threads import map_ahead

ROWS_OF = ("cut-", "shard-", "publish-")  # units that make rows; others list sources or merge


def is_unfinished(uri: str) -> bool:
    """Whether a catalog is being made at ``uri``, or was when its writer stopped."""
    return Storage(uri).size(UNFINISHED) is not None


def catalog_status(uri: str) -> dict[str, Any]:
    """Say how far a catalog is.

    Returns
    -------
    dict
        ``state`` (``unfinished``, ``finished``), ``verb``, ``created``, ``code``, ``rows`` and ``rejects`` so far,
        ``tables`` (of a published folder: name to rows). Of an unfinished one also ``units`` (as far as there is a
        plan), ``units_committed``, ``merged`` and ``resume``, the command.

    Raises
    ------
    InputError
        When there is no catalog that a command of ours made, or nothing tells how it was begun.
    """
    making = Making(uri)
    if is_unfinished(uri):
        return _unfinished(making)
    about = making.finished()
    if about is None:
        raise InputError(
            "this is neither a run nor a catalog that surveyproc made (no run.json, no catalog.json)",
            where=uri,
            fix="give the --output of a command; `surveyproc verify` also reads the HATS catalogs of others",
        )
    tables = {name: table["rows"] for name, table in about.get("tables", {}).items()}
    return {
        "catalog": uri,
        "state": "finished",
        "verb": about.get("fingerprint", {}).get("verb", "ingest"),
        "created": about.get("created"),
        "code": about.get("code", about.get("surveyproc")),
        "rows": about.get("rows_out", next(iter(tables.values()), 0)),
        "rejects": sum(about.get("rejects", {}).values()),
        "tables": tables,
    }


def unfinished_checks(uri: str) -> Iterator[Check]:
    """Check what is committed of an unfinished catalog, and say, as a check that fails, how it is finished.

    Yields
    ------
    Check
    """
    status, making = catalog_status(uri), Making(uri)
    parts = [part for commit in _commits(making) for part in commit.parts.values()]
    found = map_ahead(partial(_damage, making.work), parts, READERS)
    problems = [why for one in found for why in one.values()]
    yield Check("commits", not problems, some(problems) or _so_far(status))
    yield Check("unfinished", False, f"readers are kept off; to finish it: {status['resume']}")


def status_lines(status: dict[str, Any]) -> list[str]:
    """Tell people what `catalog_status` says."""
    begun = f", begun {status['created']}" if status["created"] else ""
    lines = [f"{status['catalog']}: {status['state']}, by {status['verb']}{begun} with {status['code']}"]
    if status["state"] == "unfinished":
        return [*lines, f"  {_so_far(status)}", f"  to resume: {status['resume']}"]
    if not status["tables"]:
        lines.append(f"  {status['rows']:,} rows + {status['rejects']:,} rejects")
    return lines + [f"  {name:22} {rows:>12,} rows" for name, rows in status["tables"].items()]


def _unfinished(making: Making) -> dict[str, Any]:
    if not making.work.exists(RECORD):
        raise InputError(
            "the catalog is unfinished, and nothing tells how it was begun",
            where=making.catalog.uri,
            fix="give the command that began it again; where that refuses, remove the folder first",
        )
    record = load_record(making.work)
    commits = list(_commits(making))
    makers = [commit for commit in commits if commit.unit.startswith(ROWS_OF)]
    return {
        "catalog": making.catalog.uri,
        "state": "unfinished",
        "verb": record["fingerprint"]["verb"],
        "created": record["created"],
        "code": record["code"],
        "units": _planned(making.work),
        "units_committed": len(makers),
        "merged": sum(commit.unit.startswith(("merge-", "margin-")) for commit in commits),
        "rows": sum(commit.rows for commit in makers),
        "rejects": sum(commit.rejects for commit in commits),
        "tables": {},
        "resume": resume_command(record),
    }


def _so_far(status: dict[str, Any]) -> str:
    of = "" if status["units"] is None else f" of {status['units']:,}"
    merged = f", {status['merged']:,} merged" if status["merged"] else ""
    rows = f"{status['rows']:,} rows + {status['rejects']:,} rejects so far"
    return f"{status['units_committed']:,}{of} units committed{merged}: {rows}"


def _commits(making: Making) -> Iterator[Commit]:
    found = making.ledger.commits_of(sorted(making.ledger.committed("")))
    return (commit for commit in found if commit is not None)


def _planned(work: Storage) -> int | None:
    """Count the units of a plan; the first column of every plan numbers them."""
    try:
        plan = pq.read_table(io.BytesIO(work.read(PLAN)))
    except FileNotFoundError:
        return None
    return int(pc.count_distinct(plan.column(0)).as_py())


def _damage(work: Storage, part: Part) -> dict[str, str]:
    return damage(work, part.path, part)
