"""The hook that kills: named by ``SURVEYPROC_STEP_HOOK``, told by a JSON file what to kill where.

The plan of a kill is ``{"step", "subject", "hit", "who"}``: at the ``hit``-th time (counted over all
processes) that ``step`` is reached with a subject that starts with ``subject``, kill ``who``: ``self``, or the
process whose id is in the file ``driver.pid``. Each kill happens once.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

FOLDER = "SURVEYPROC_KILL_FOLDER"
PLAN, LOG, DRIVER = "kills.json", "killed.jsonl", "driver.pid"


def hook(name: str, subject: str) -> None:
    """Kill when it is time."""
    folder = Path(os.environ[FOLDER])
    for number, kill in enumerate(json.loads((folder / PLAN).read_text())):
        if (
            name == kill["step"]
            and subject.startswith(kill["subject"])
            and _count(folder, number) == kill["hit"]
        ):
            driver = kill["who"] == "driver"
            victim = int((folder / DRIVER).read_text()) if driver else os.getpid()
            line = {"step": name, "subject": subject, "who": kill["who"], "pid": victim}
            with (folder / LOG).open("a") as log:
                log.write(json.dumps(line) + "\n")
                log.flush()
                os.fsync(log.fileno())
            os.kill(victim, signal.SIGKILL)


def prepare(folder: Path, kills: list[dict]) -> dict[str, str]:
    """Write the plan; returns the environment of the processes to be killed."""
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {"subject": "", "hit": 1, "who": "self"}
    (folder / PLAN).write_text(json.dumps([defaults | kill for kill in kills]))
    return {"SURVEYPROC_STEP_HOOK": "killing:hook", FOLDER: str(folder)}


def killed(folder: Path) -> list[dict]:
    """What was killed, in order."""
    log = folder / LOG
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


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
