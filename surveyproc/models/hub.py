"""The Hugging Face hub: its local cache first, the network where there is one, and what to do where there is none."""

from __future__ import annotations

import re
from pathlib import Path

from surveyproc.errors import InputError, ResourceError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
REPOSITORY = re.compile(r"hf[_-]hub:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
PROBE_SECONDS = 5


def hub_folder(uri: str) -> tuple[str, str]:
    """Find a repository of the hub in the local cache, or download it.

    Parameters
    ----------
    uri : str
        ``hf_hub:ORG/NAME`` or ``hf_hub:ORG/NAME@REVISION``.

    Returns
    -------
    folder : str
        Local folder with config.json and weights.
    origin : str
        ``hf_hub:ORG/NAME@COMMIT``.

    Raises
    ------
    ResourceError
        Without a network: with the files to download elsewhere and the command to use them.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    found = REPOSITORY.fullmatch(uri)
    if not found:
        raise InputError(
            "this is no address on the hub",
            where=uri,
            fix="write hf_hub:ORG/NAME or hf_hub:ORG/NAME@REVISION",
        )
    repository, revision = found["repository"], found["revision"] or "main"
    try:
        folder = _fetch(repository, revision, cached=True)
    except LocalEntryNotFoundError:
        # Offline, huggingface_hub tries six times over 24 s; one quick look says the same.
        if problem := _unreachable():
            raise _download_elsewhere(uri, repository, revision, problem) from None
        folder = _download(uri, repository, revision)
    return str(folder), f"hf_hub:{repository}@{folder.name}"


def _download(uri: str, repository: str, revision: str) -> Path:
    from huggingface_hub.errors import (
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return _fetch(repository, revision, cached=False)
    except (RepositoryNotFoundError, RevisionNotFoundError, RemoteEntryNotFoundError) as error:
        private = " or needs a login (`hf auth login`)" if isinstance(error, GatedRepoError) else ""
        raise InputError(
            f"the hub has no {' or '.join(WEIGHTS)} with a config.json in {repository} at {revision}{private}",
            where=uri,
            fix="check the name and the revision",
        ) from error
    except Exception as error:  # the errors of HTTP, of the disk and of the hub have no base in common
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _download_elsewhere(uri, repository, revision, reason) from error


def _fetch(repository: str, revision: str, *, cached: bool) -> Path:
    """Folder of one commit in the cache; with ``cached`` nothing is asked of the network."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    absent = LocalEntryNotFoundError if cached else RemoteEntryNotFoundError
    config = hf_hub_download(repository, "config.json", revision=revision, local_files_only=cached)
    folder = Path(config).parent
    for number, name in enumerate(WEIGHTS):
        try:
            hf_hub_download(repository, name, revision=folder.name, local_files_only=cached)
            break
        except absent:
            if number + 1 == len(WEIGHTS):
                raise
    return folder


def _unreachable() -> str:
    """Why the hub cannot be asked; empty when it answers."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception as error:  # whatever the HTTP library calls it, nobody answered
        return str(error) or type(error).__name__
    return ""


def _download_elsewhere(uri: str, repository: str, revision: str, problem: str) -> ResourceError:
    folder = repository.rpartition("/")[2]
    return ResourceError(
        f"{repository} (revision {revision}) is not in the hub's cache here, and the hub cannot be reached: "
        f"{problem}",
        where=uri,
        fix=f"where there is a network: hf download {repository} --revision {revision} --include config.json "
        f"--include {WEIGHTS[0]} --include {WEIGHTS[1]} --local-dir {folder}; copy that folder here (config.json "
        f"and {WEIGHTS[0]}, or {WEIGHTS[1]} where there is no other) and give ./{folder} instead of {uri}",
    )
