"""Verify: read a run back and say, line by line, whether it holds what it claims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from surveyproc.catalog.hats import COMMON_METADATA, PARTITION_INFO, PROPERTIES
from surveyproc.errors import InputError
from surveyproc.runs.accounts import Check, Count, account_checks, some
from surveyproc.runs.committed import Committed, read_commits, readable
from surveyproc.runs.files import Stated
from surveyproc.runs.ledger import COMMITS, Commit, Ledger, is_passing
from surveyproc.runs.manifest import MANIFESTS, generations, read_manifest, wants_index
from surveyproc.runs.plan import PLAN, Shard, load_plan
from surveyproc.runs.record import RECORD, resume_command
from surveyproc.runs.run import Run, open_run
from surveyproc.runs.table_checks import UNCOUNTED, file_checks, hats_problems, index_checks, table_checks

EXTRA_FILES = {"report.html"}
SAID_ELSEWHERE = {"generation", "created", "timings", "columns"}
REDO = "; to have a unit done anew, delete its file in _commits/ while nothing works on the run, and resume"


def verify_run(run: Run) -> Iterator[Check]:
    """Check a run against its plan, commits and manifest; an unfinished one against its plan and commits.

    Memory is bounded by one batch of rows in each reading thread, and the names of the files.

    Yields
    ------
    Check
        The plan and the commits. Then of a finished run the manifest, for each table its files (presence,
        size, digest, rows, ids, columns, rows in their pixel), its accounts and its HATS metadata, the
        index, and files that belong to nothing; of an unfinished one the parts of every commit, and, as
        a check that fails, that it is unfinished.
    """
    ledger = Ledger(run.storage)
    plan, planned = _plan(run)
    yield planned
    committed = read_commits(ledger, run.record, plan)
    if run.manifest is None:
        checks = [_commits(committed), *_unfinished(run, ledger, plan, committed)]
        run = open_run(run.uri)  # it may have been finished, and its parts deleted, in the meantime
        if run.manifest is None:
            yield from checks
            return
        committed = read_commits(ledger, run.record, plan)
    yield _commits(committed, finished=True)
    yield from _finished(run, committed, run.manifest)


def _plan(run: Run) -> tuple[Sequence[Shard], Check]:
    try:
        plan = load_plan(run.storage)
        first, whole = 0, True
        for number, shard in enumerate(plan):
            whole &= (shard.shard, shard.first_row) == (number, first)
            first += shard.rows
    except InputError as error:
        return [], Check("plan", False, error.what)
    except (pa.ArrowException, OSError, TypeError) as error:
        return [], Check("plan", False, f"it cannot be read ({error})")
    stated = run.record["fingerprint"]["input"]["rows"]
    detail = f"{len(plan)} shards of {first} rows, {stated} in run.json"
    return plan, Check("plan", whole and first == stated, detail)


def _commits(committed: Committed, finished: bool = False) -> Check:
    problems = [
        *committed.problems.values(),
        *(f"{unit} is missing" for unit in committed.missing if finished),
    ]
    says = f"{committed.done} of {committed.shards} shards are committed"
    return Check("commits", not problems, some(problems) or says)


def _finished(run: Run, committed: Committed, manifest: dict[str, Any]) -> Iterator[Check]:
    names = generations(run.storage)
    complete = names == [f"{number:06d}.json" for number in range(1, len(names) + 1)]
    complete &= manifest.get("generation") == len(names)
    yield Check("manifest", complete, f"generation {manifest.get('generation')} of {len(names)}")
    first = manifest if len(names) == 1 else read_manifest(run.storage, names[0])
    differences = list(_differences(first, committed.assembled(run.record)))
    yield Check("manifest: contents", not differences, some(differences) or "it says what the commits say")
    try:
        known = _files_of(run, manifest)
        yield from _content(run, committed, manifest, finished=True)
    except (KeyError, TypeError, ValueError) as error:
        yield Check("manifest: form", False, f"it lacks what a manifest must have ({error!r})")
        return
    yield from _other_files(run, known, finished=True)


def _content(run: Run, committed: Committed, manifest: dict[str, Any], finished: bool) -> Iterator[Check]:
    """Check the tables and the index that a manifest states; only a finished one states columns."""
    counts: dict[str, Count | None] = {}
    for name, entry in manifest["tables"].items():
        counts[name] = yield from table_checks(
            run.storage, name, entry, entry["columns"] if finished else None
        )
        if entry["layout"] == "hats" and finished:
            problems = hats_problems(run.storage, name, entry)
            yield Check(f"{name}: hats", not problems, some(problems) or "the metadata list every leaf")
    rejects = counts.pop("rejects")
    came_in = Count(committed.planned_rows, int(manifest["id_sum"]))
    for name, count in counts.items():
        if count is None or rejects is None:
            yield Check(f"{name}: accounts", False, UNCOUNTED)
        else:
            yield from account_checks({name: count}, rejects, came_in)
    index = manifest["index"]
    if index is not None:
        yield from index_checks(run.storage, index, counts[index["table"]])
    else:
        wanted = wants_index(run.record, manifest["tables"])
        yield Check("index", not wanted, "the run was to have one" if wanted else "the run has none")


def _unfinished(run: Run, ledger: Ledger, plan: Sequence[Shard], committed: Committed) -> Iterator[Check]:
    assembled = committed.assembled(run.record)
    unfinished = committed.unfinished(run.record)
    if unfinished:
        resume = f"resume with: {resume_command(run.record)}"
        says = f"there is none, the run is unfinished: {unfinished}; {resume}"
        yield from _parts(run, ledger, plan, committed)
    else:
        says = f"there is none, but all that it must say is committed: surveyproc repair {run.uri} makes it"
        yield from _content(run, committed, assembled, finished=False)
    yield from _other_files(run, _files_of(run, assembled), finished=False)
    yield Check("manifest", False, says)


def _parts(run: Run, ledger: Ledger, plan: Sequence[Shard], committed: Committed) -> Iterator[Check]:
    """Check the parts of every commit, and that those of a shard balance."""
    unbalanced: list[str] = []

    def parts() -> Iterator[Stated]:
        for commit in readable(ledger, (shard.unit for shard in plan)):
            if isinstance(commit, Commit):
                wrong = [c.detail for c in _shard_accounts(commit) if not c.passed]
                unbalanced.extend(f"{commit.unit}: {detail}" for detail in wrong)
                yield from (Stated(part.path, part) for part in commit.parts.values())
        for commit in committed.final:
            yield from (Stated(part.path, part) for part in commit.parts.values())

    yield from file_checks(run.storage, "parts", parts(), ("present", "digest", "rows", "ids"), REDO)
    yield Check("parts: accounts", not unbalanced, some(unbalanced) or "rows in = rows out + rejects")


def _shard_accounts(commit: Commit) -> Iterator[Check]:
    counts = {name: Count(part.rows, part.id_sum) for name, part in commit.parts.items()}
    rejects = counts.pop("rejects")
    yield from account_checks(counts, rejects, commit.came_in)


def _files_of(run: Run, manifest: dict[str, Any]) -> set[str]:
    """Names of all files that a manifest, and what led to it, account for."""
    known = {RECORD, PLAN, *EXTRA_FILES}
    known |= {f"{COMMITS}/{unit}.json" for unit in Ledger(run.storage).committed("")}
    known |= {f"{MANIFESTS}/{name}" for name in generations(run.storage)}
    for name, entry in manifest["tables"].items():
        known |= {file["path"] for file in entry["files"]}
        if entry["layout"] == "hats":
            known |= {f"{name}/{file}" for file in (COMMON_METADATA, PARTITION_INFO, PROPERTIES)}
    index = manifest["index"]
    return known | {file["path"] for file in (index["files"] if index else ())}


def _other_files(run: Run, known: set[str], finished: bool) -> Iterator[Check]:
    names = [name for name in run.storage.walk() if name not in known]
    passing = [name for name in names if is_passing(name)]
    foreign = sorted(set(names) - set(passing))
    if finished:
        says = f"{some(passing)}: `surveyproc repair {run.uri}` deletes them"
        yield Check("no leftovers", not passing, says if passing else "nothing is left of the way there")
    yield Check("no other files", not foreign, some(foreign) or "every file belongs to the run")


def _differences(stated: Any, expected: Any, where: str = "") -> Iterator[str]:
    """Name what differs between two values made of dicts and lists."""
    if isinstance(stated, dict) and isinstance(expected, dict):
        for key in sorted((stated.keys() | expected.keys()) - SAID_ELSEWHERE):
            inner = f"{where}.{key}" if where else key
            yield from _differences(stated.get(key), expected.get(key), inner)
    elif isinstance(stated, list) and isinstance(expected, list) and len(stated) == len(expected):
        for number, (one, other) in enumerate(zip(stated, expected)):
            yield from _differences(one, other, f"{where}.{number}")
    elif stated != expected:
        yield f"{where} is {_short(stated)}, the commits say {_short(expected)}"


def _short(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return f"{len(value)} entries"
    return "absent" if value is None else str(value)[:40]
