"""The output folder of a command that makes a catalog as a run: claimed, worked in, and finished.

While work goes on, a marker at the top of the folder keeps readers off, and the record, the attempts and the
commits lie in ``_work/``. Finished files get their names beside it, then come ``checksums.sha256`` with the
digests of all of them and, last, ``catalog.json``, and ``_work/`` goes. Everything here may be repeated after a kill, and done by two drivers at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from surveyproc.catalog.storage import UNFINISHED
from surveyproc.errors import UsageError
from surveyproc.runs.checksums import CHECKSUMS, format_checksums, sha256
from surveyproc.runs.ledger import Commit, Ledger, Part
from surveyproc.runs.record import RECORD, claim, load_record, refuse_changes
from surveyproc.steps import step
from surveyproc.storage import Storage

WORK, ABOUT = "_work", "catalog.json"


class Making:
    """A catalog that is being made, or that is finished.

    Parameters
    ----------
    output : str
        Folder or URL of the catalog.

    Attributes
    ----------
    catalog, work : Storage
        The catalog's folder, and the folder of the work in it.
    ledger : Ledger
        Attempts and commits.
    """

    def __init__(self, output: str) -> None:
        self.catalog = Storage(output)
        self.work = Storage(f"{self.catalog.uri}/{WORK}")
        self.ledger = Ledger(self.work)
        self._digests: dict[str, str] = {}

    def finished(self) -> dict[str, Any] | None:
        """What ``catalog.json`` says; None while the catalog is unfinished."""
        try:
            return json.loads(self.catalog.read(ABOUT))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def finished_by_another(self) -> dict[str, Any] | None:
        """Say what ``catalog.json`` says after a failure; what this driver left when another finished is removed."""
        about = self.finished()
        if about is not None:
            self.tidy()
        return about

    def begin(
        self,
        record: dict[str, Any],
        changed: Callable[[dict[str, Any]], list[str]],
        accept_code: bool = False,
    ) -> dict[str, Any] | None:
        """Claim the folder for a command, or find that it is this command's already.

        Parameters
        ----------
        record : dict
            Of `surveyproc.runs.record.new_record`; ``record["fingerprint"]["verb"]`` names the command.
        changed : callable
            Given the record or the ``catalog.json`` that stands there, says what changed about the input
            files, one line each.
        accept_code : bool
            Resume what another version of the code began.

        Returns
        -------
        dict or None
            ``catalog.json`` of a finished catalog, or None when there is work to do.

        Raises
        ------
        UsageError
            When the folder holds something else, or was begun with other settings, input or code.
        """
        about = self.finished()
        if about is not None:
            if "fingerprint" not in about:
                raise self._occupied("a catalog is there already")
            refuse_changes(about, record, self.catalog, True, changed(about))
            self.tidy()
            return about
        names = [n for n in self.catalog.names() if not n.startswith(".") and n not in (UNFINISHED, WORK)]
        if names and not self.work.exists(RECORD):
            raise self._occupied(f"the output folder holds something else ({', '.join(names[:3])})")
        if self.work.exists(RECORD):
            refuse_changes(
                stored := load_record(self.work), record, self.catalog, accept_code, changed(stored)
            )
        self.catalog.replace(UNFINISHED, b"")
        step("making.marked")
        stored = claim(self.work, record)
        refuse_changes(stored, record, self.catalog, accept_code, changed(stored))
        return self.finished_by_another()

    def give_up(self) -> None:
        """Leave the folder as it was before `begin`: nothing in it was worth keeping."""
        self.work.delete_folder("")
        self.catalog.delete([UNFINISHED])
        self.catalog.delete_empty_folders("")

    def publish(self, commit: Commit) -> None:
        """Give the files of a commit their names in the catalog."""
        for target, part in commit.targets.items():
            self.publish_part(part, target)

    def publish_part(self, part: Part, target: str) -> None:
        """Give a committed part its name in the catalog."""
        self.catalog.publish(f"{WORK}/{part.path}", target)
        self._digests[target] = part.sha256

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write small files of the catalog, by their names."""
        for name, data in files.items():
            self.catalog.replace(name, data)
            self._digests[name] = sha256(data)

    def finish(self, about: dict[str, Any]) -> None:
        """Write the digests and ``catalog.json``, let readers in, and remove what only the work needed.

        Every file of the catalog went through `publish` or `write` of this object before, also after a resume.
        """
        data = json.dumps(about, indent=1).encode()
        self.catalog.replace(CHECKSUMS, format_checksums({**self._digests, ABOUT: sha256(data)}))
        self.catalog.replace(ABOUT, data)
        step("making.described")
        self.tidy()
        step("making.done")

    def tidy(self) -> None:
        """Remove what a finished catalog needs no more."""
        self.catalog.delete([UNFINISHED])
        if self.work.names():
            self.work.delete_folder("")
            self.catalog.delete_temporaries()

    def _occupied(self, what: str) -> UsageError:
        return UsageError(what, where=self.catalog.uri, fix="give another --output, or remove it yourself")
