"""The hook that kills: named by ``SURVEYPROC_STEP_HOOK``, told by a JSON file what to kill where.

The plan of a kill is ``{"step", "subject", "hit", "who"}``: at the ``hit``-th time (counted over all
processes) that ``step`` is reached with a subject that starts with ``subject``, kill ``who``: ``self``, or the
process whose id is in the file ``driver.pid``. Each kill happens once.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

FOLDER, MEET = "SURVEYPROC_KILL_FOLDER", "SURVEYPROC_MEET_STEP"
PLAN, LOG, DRIVER, CREATED = "kills.json", "killed.jsonl", "driver.pid", "created.txt"


def hook(name: str, subject: str) -> None:
    """Kill when it is time."""
    folder = Path(os.environ[FOLDER])
    if name == os.environ.get(MEET):
        _meet(folder, subject)
    if name == "create.linked":
        with (folder / CREATED).open("a") as created_log:
            created_log.write(subject + "\n")
    for number, kill in enumerate(json.loads((folder / PLAN).read_text())):
        if (
            name == kill["step"]
            and subject.startswith(kill["subject"])
            and _count(folder, number) == kill["hit"]
        ):
            driver = kill["who"] == "driver"
            victim = int((folder / DRIVER).read_text()) if driver else os.getpid()
            line = {"step": name, "subject": subject, "who": kill["who"], "pid": victim, "time": time.time()}
            with (folder / LOG).open("a") as log:
                log.write(json.dumps(line) + "\n")
                log.flush()
                os.fsync(log.fileno())
            os.kill(victim, signal.SIGKILL)


def prepare(folder: Path, kills: list[dict], meet: str = "") -> dict[str, str]:
    """Write the plan; returns the environment of the processes to be killed.

    At the step ``meet`` a process waits, half a second at most, until another is there with the same subject.
    """
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {"subject": "", "hit": 1, "who": "self"}
    (folder / PLAN).write_text(json.dumps([defaults | kill for kill in kills]))
    return {"SURVEYPROC_STEP_HOOK": "killing:hook", FOLDER: str(folder), MEET: meet}


def killed(folder: Path) -> list[dict]:
    """What was killed, in order."""
    log = folder / LOG
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def created(folder: Path) -> list[str]:
    """Names of the files that processes were told they had created, in order."""
    log = folder / CREATED
    return log.read_text().splitlines() if log.exists() else []


def met(folder: Path) -> list[str]:
    """Subjects at which two processes met."""
    names = [p.name.split(".")[1] for p in folder.glob("meet.*")]
    return sorted({name for name in names if names.count(name) > 1})


def _meet(folder: Path, subject: str) -> None:
    (folder / f"meet.{subject}.{os.getpid()}").touch()
    until = time.monotonic() + 0.5
    while len(list(folder.glob(f"meet.{subject}.*"))) < 2 and time.monotonic() < until:
        time.sleep(0.002)


def _count(folder: Path, number: int) -> int:
    """How often the kill's step has been reached, this time included: one create-only file each."""
    hit = 1
    while True:
        try:
            (folder / f"{number}.{hit}").open("x").close()
        except FileExistsError:
            hit += 1
        else:
            return hit
