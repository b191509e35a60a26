"""What goes along with a job: the package, its settings, and bundles that only this machine has."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from surveyproc.config.compose import config_folder
from surveyproc.distributed.preflight import MB, is_local
from surveyproc.errors import UsageError
from surveyproc.runs.version import COMMIT_FILE, git_commit

PACKAGE = Path(__file__).resolve().parent.parent
MOST_SHIPPED_MB = 200
SECRET = re.compile(r"://[^/@]*:[^/@]*@")


def require_shippable(uris: Iterable[tuple[str, str]], shared_filesystem: bool) -> None:
    """Refuse addresses of data that the cluster cannot open.

    Parameters
    ----------
    uris : iterable of (str, str)
        Flags and the addresses given with them.
    shared_filesystem : bool
        Local paths are the same files on the cluster.

    Raises
    ------
    UsageError
    """
    for flag, uri in uris:
        if is_local(uri) and not shared_filesystem:
            raise UsageError(
                "a local path, which the cluster cannot see",
                where=f"{flag} {uri}",
                fix="copy it to a bucket and give s3://..., or say --shared-filesystem when the path is the "
                "same folder on every node",
            )


def refuse_secrets(uris: Iterable[tuple[str, str]]) -> None:
    """Refuse addresses that would show a password on the cluster's dashboard.

    Raises
    ------
    UsageError
    """
    for flag, uri in uris:
        if SECRET.search(uri):
            raise UsageError(
                "the address holds a password, and the cluster's dashboard would show it",
                where=flag,
                fix="leave it out: the job uses the credentials or the role of the cluster",
            )


@contextmanager
def staged(bundles: Sequence[str]) -> Iterator[tuple[Path, list[str]]]:
    """Copy the package, its settings, and bundles that only this machine has, into one folder to ship.

    Yields
    ------
    tuple of (pathlib.Path, list of str)
        The package, and the names or addresses that the bundles have on the cluster.

    Raises
    ------
    UsageError
        When it is too much.
    """
    with tempfile.TemporaryDirectory(prefix="surveyproc-submit-") as scratch:
        package = Path(scratch, PACKAGE.name)
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        if not (package / "conf").is_dir():
            shutil.copytree(config_folder(), package / "conf")
        (package / COMMIT_FILE).write_text(git_commit() or "")
        names = [_stage_bundle(uri, package / "bundles") for uri in bundles]
        size = sum(path.stat().st_size for path in package.rglob("*") if path.is_file()) / MB
        if size > MOST_SHIPPED_MB:
            raise UsageError(
                f"code and bundles are {size:,.0f} MB, more than the {MOST_SHIPPED_MB} MB that are shipped",
                where="--bundle",
                fix="copy the bundle to a bucket and give its URI",
            )
        yield package, names


def _stage_bundle(uri: str, folder: Path) -> str:
    from surveyproc.models.bundle import open_bundle, shipped_bundles

    if uri in shipped_bundles() or not is_local(uri):
        return uri
    bundle = open_bundle(uri)
    name = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', bundle.name)}-{bundle.sha256[:8]}"
    shutil.copytree(bundle.uri, folder / name)
    return name
