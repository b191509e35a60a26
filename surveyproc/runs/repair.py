"""Repair: delete what attempts left behind, and make anew what follows from the commits.

It may be started at any time, also while drivers work on the run. Until there is a manifest it deletes only
finished files of attempts at units that another attempt has committed: a living one among those reads, when
it comes to commit, that it has lost. Temporary files and the folders themselves stay until then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

from surveyproc.errors import PartialError
from surveyproc.runs.accounts import some
from surveyproc.runs.committed import Committed, read_commits, readable
from surveyproc.runs.files import READERS, damage
from surveyproc.runs.lease import sole_writer
from surveyproc.runs.ledger import ATTEMPTS, Commit, Ledger, is_passing, is_temporary, unit_of
from surveyproc.runs.manifest import latest, publish, write_table_metadata
from surveyproc.runs.plan import PLAN, Plan, load_plan
from surveyproc.runs.record import load_record, resume_command
from surveyproc.runs.table_checks import hats_problems
from surveyproc.storage import Storage
from surveyproc.threads import map_ahead


@dataclass(frozen=True)
class Mend:
    """One thing that was mended, or with ``dry_run`` would be.

    Attributes
    ----------
    action : str
        ``delete``, ``publish`` (give a committed part its name in the finished run) or ``write``.
    subject : str
        The file or folder, relative to the run.
    reason : str
    """

    action: str
    subject: str
    reason: str


def repair_run(storage: Storage, dry_run: bool = False) -> Iterator[Mend]:
    """Mend a run.

    Parameters
    ----------
    storage : Storage
        The run folder.
    dry_run : bool
        Change nothing.

    Yields
    ------
    Mend
        After it was done: files of attempts that lost, committed files without their name, HATS
        metadata, the manifest, and what a finished run needs no more.

    Raises
    ------
    PartialError
        When the run is unfinished, with the command that resumes it; or when a file is damaged and no
        other copy of it is left.
    ResourceError
        When the store cannot create a name only once and a driver is at work.
    """
    ledger, record = Ledger(storage), load_record(storage)
    manifest = latest(storage)
    if manifest is None:
        yield from _delete_lost(ledger, dry_run)
        committed = _complete(ledger, record)
        with nullcontext() if dry_run else sole_writer(storage):
            yield from _publish_again(storage, committed.final, dry_run)
            if not dry_run:
                publish(storage, record, committed.assembled(record), committed.planned_rows, {})
        yield Mend("write", "_manifests/000001.json", "every file it names is committed and in its place")
    else:
        yield from _publish_again(storage, _not_tidied(ledger), dry_run)
        yield from _write_metadata(storage, manifest, dry_run)
    yield from _tidy(ledger, dry_run)


def _delete_lost(ledger: Ledger, dry_run: bool) -> Iterator[Mend]:
    """Delete the files of attempts at units that another attempt has committed."""
    names = ledger.storage.names(ATTEMPTS)
    done = ledger.committed("")
    names = [name for name in names if unit_of(name) in done]
    for name, commit in zip(names, readable(ledger, map(unit_of, names))):
        folder = f"{ATTEMPTS}/{name}"
        if isinstance(commit, Commit) and folder != commit.folder:
            files = [n for n in ledger.storage.walk(folder) if not is_temporary(n)]
            if files:
                if not dry_run:
                    ledger.storage.delete(files)
                yield Mend("delete", folder, f"attempt {commit.attempt} is the one that counts")


def _complete(ledger: Ledger, record: dict[str, Any]) -> Committed:
    """Read the commits and insist that they make a finished run."""
    storage = ledger.storage
    resume = f"resume it with: {resume_command(record)}"
    if storage.size(PLAN) is None:
        raise PartialError("the run is unfinished: it has no plan yet", where=storage.uri, fix=resume)
    plan = load_plan(storage)
    committed = read_commits(ledger, record, plan)
    unfinished = committed.unfinished(record)
    if not unfinished:
        return committed
    wrong = list(committed.problems.values()) or _without_parts(ledger, plan, committed)
    if wrong:
        raise PartialError(
            f"commits cannot be used: {some(wrong)}",
            where=storage.uri,
            fix=f"while nothing works on the run, delete {_which(wrong, committed)} in _commits/; then {resume}",
        )
    raise PartialError(f"the run is unfinished: {unfinished}", where=storage.uri, fix=resume)


def _without_parts(ledger: Ledger, plan: Plan, committed: Committed) -> list[str]:
    """Name the committed units whose attempts are gone: finalise can neither merge nor publish their parts."""
    there = {f"{ATTEMPTS}/{name}" for name in ledger.storage.names(ATTEMPTS)}
    shards = ledger.commits_of(shard.unit for shard in plan)
    commits = chain((commit for commit in shards if commit is not None), committed.final)
    return [f"the parts of {commit.unit} are gone" for commit in commits if commit.folder not in there]


def _which(wrong: list[str], committed: Committed) -> str:
    everything = len(wrong) == committed.done + len(committed.final)
    return "all files" if everything else "the files of these units"


def _not_tidied(ledger: Ledger) -> list[Commit]:
    """Commits of final files whose attempts are still there."""
    units = {unit_of(name) for name in ledger.storage.names(ATTEMPTS)}
    found = readable(ledger, sorted(units & ledger.committed("")))
    return [commit for commit in found if isinstance(commit, Commit)]


def _publish_again(storage: Storage, commits: list[Commit], dry_run: bool) -> Iterator[Mend]:
    """Give every committed file its name where it is missing there or damaged."""
    files = [file for commit in commits for file in commit.targets.items()]
    lost: list[str] = []
    for (target, part), why in zip(files, map_ahead(lambda file: damage(storage, *file), files, READERS)):
        if why and damage(storage, part.path, part):
            lost += why.values()
        elif why:
            if not dry_run:
                storage.publish(part.path, target)
            yield Mend("publish", target, *why.values())
    if lost:
        raise PartialError(
            f"{some(lost)}: no other copy is left in the run",
            where=storage.uri,
            fix="put these files back from a copy, or run again into another folder",
        )


def _write_metadata(storage: Storage, manifest: dict[str, Any], dry_run: bool) -> Iterator[Mend]:
    for name, entry in manifest["tables"].items():
        problems = hats_problems(storage, name, entry) if entry["layout"] == "hats" else []
        if problems:
            if not dry_run:
                write_table_metadata(storage, name, entry)
            yield Mend("write", f"{name}/", some(problems))


def _tidy(ledger: Ledger, dry_run: bool) -> Iterator[Mend]:
    """Delete, now that the manifest stands, what the finished run needs no more."""
    done = ledger.committed("")
    folders = [n for n in ledger.storage.names(ATTEMPTS) if unit_of(n) in done]
    others = [n for n in ledger.storage.walk() if is_passing(n) and not n.startswith(f"{ATTEMPTS}/")]
    if not dry_run:
        ledger.tidy()
        ledger.storage.delete(others)
    for name in folders:
        yield Mend("delete", f"{ATTEMPTS}/{name}", "its unit is committed and the run is finished")
    for name in others:
        yield Mend("delete", name, "somebody who was cut off left it")
