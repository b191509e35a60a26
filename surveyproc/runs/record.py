"""The record of a run (``run.json``) and the fingerprint that decides whether it may be resumed."""

from __future__ import annotations

import getpass
import json
import platform
import shlex
import socket
import sys
import time
from typing import Any

from surveyproc.errors import InputError, UsageError
from surveyproc.runs.ledger import is_passing
from surveyproc.runs.version import code_version, git_commit, package_versions
from surveyproc.storage import Storage
from surveyproc.stores import without_secrets

RECORD = "run.json"
RESUMED_VERBS = ("run", "ingest", "repack", "publish")


def new_record(config: dict[str, Any], fingerprint: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Assemble run.json: the resolved config, the fingerprint, versions, hardware and provenance."""
    return {
        "format": 1,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": without_secrets(sys.argv),
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "code": code_version(),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "versions": package_versions(),
        "config": config,
        "fingerprint": fingerprint,
        **facts,
    }


def claim(storage: Storage, record: dict[str, Any]) -> dict[str, Any]:
    """Make a folder the folder of this run, or find that it already is.

    Returns
    -------
    dict
        The record that stands in the folder, ours or an earlier one.

    Raises
    ------
    UsageError
        When the folder holds something that is no run.
    """
    names = storage.names()
    if RECORD not in names and any(not (n.startswith(".") or is_passing(n)) for n in names):
        raise UsageError(
            f"the output folder holds something else ({', '.join(names[:3])})",
            where=storage.uri,
            fix="choose an --output that is empty or does not exist",
        )
    if RECORD not in names:
        storage.create(RECORD, json.dumps(record, indent=1, default=str).encode())
    return load_record(storage)


def load_record(storage: Storage) -> dict[str, Any]:
    """Read run.json.

    Raises
    ------
    InputError
        When the folder is no run, or the file is not what was written.
    """
    try:
        return json.loads(storage.read(RECORD))
    except ValueError as error:
        raise InputError(
            f"the record of the run is damaged ({error})",
            where=storage.path(RECORD),
            fix="put it back from a copy",
        ) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            "this is not a run folder (no run.json)", where=storage.uri, fix="give the --output of a run"
        ) from error


def command_line(record: dict[str, Any]) -> str:
    """Command that began a run, as it can be given again."""
    return shlex.join(["surveyproc", *record["command"][1:]])


def resume_command(record: dict[str, Any]) -> str:
    """Say what to give again to resume a run: its command, as it was begun."""
    words = record["command"][1:]
    if words[:1] and words[0] in RESUMED_VERBS:
        return command_line(record)
    verb = record["fingerprint"].get("verb", "run")
    return f"the call that began it, surveyproc.{verb}(...), with the same arguments"


def refuse_changes(
    stored: dict[str, Any], current: dict[str, Any], storage: Storage, accept_code: bool, files: list[str]
) -> None:
    """Refuse to resume a run whose settings, bundles, input or code differ from what it was begun with.

    Parameters
    ----------
    stored, current : dict
        The record of the folder and the one this command would write.
    storage : Storage
    accept_code : bool
        Resume although the code's version differs.
    files : list of str
        What changed about the input files, for the message.

    Raises
    ------
    UsageError
        With every difference on a line of its own.
    """
    before, after = _flat(stored["fingerprint"]), _flat(current["fingerprint"])
    lines = [
        f"{key}: was {before.get(key, 'absent')!r}, is {after.get(key, 'absent')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.endswith("digest")
    ]
    lines += [f"input: {line}" for line in files]
    if lines:
        raise UsageError(
            "this run was begun with other settings or input:\n    " + "\n    ".join(lines),
            where=storage.uri,
            fix="give the same settings and input to resume it, or another --output for a new run",
        )
    if stored["code"] != current["code"] and not accept_code:
        raise UsageError(
            f"this run was begun with code {stored['code']}, this is {current['code']}",
            where=storage.uri,
            fix="resume it with the same version, or say --accept-code when the change cannot alter values",
        )


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat
