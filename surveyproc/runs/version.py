"""Which code made a commit."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
from functools import cache
from pathlib import Path

from surveyproc import __version__

PACKAGE = Path(__file__).resolve().parent.parent
COMMIT_FILE = "git-commit"
PACKAGES = ("ray", "torch", "torchvision", "timm", "pyarrow", "numpy", "astropy", "faiss-cpu", "faiss-gpu")


@cache
def code_version() -> str:
    """Version of the package and a digest of its source files, the same for every copy of the same code."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


@cache
def git_commit() -> str | None:
    """Commit of the checkout the package runs from or was shipped from, or None when there is none."""
    shipped = PACKAGE / COMMIT_FILE
    if shipped.exists():
        return shipped.read_text() or None
    command = ["git", "-C", str(PACKAGE), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def package_versions() -> dict[str, str]:
    """Versions of the installed packages that results depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
