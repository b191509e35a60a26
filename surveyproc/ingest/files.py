"""Find the image of each object in a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from surveyproc.errors import InputError
from surveyproc.stores import explain_store_errors, is_local
from surveyproc.stores import filesystem as open_filesystem

_KINDS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".fits.gz": "fits", ".fits": "fits"}


@dataclass(frozen=True)
class ImageFolder:
    """Images by the stem of their names.

    Attributes
    ----------
    images : dict of str to list of str
        Paths of each stem, sorted; more than one is ambiguous.
    others : int
        Files that are no images.
    """

    images: dict[str, list[str]]
    others: int


def kind_of(path: str) -> str:
    """Say what an image file is by its name: ``jpeg``, ``png`` or ``fits``."""
    return _split(os.path.basename(path))[1]


def index_images(folder: str | os.PathLike[str]) -> ImageFolder:
    """List a folder of images and the folders in it, one level deep; on a disk or in a store.

    Raises
    ------
    InputError
        When the folder is missing or has no image.
    """
    filesystem, root = open_filesystem(folder)
    paths = _local_paths(root) if is_local(filesystem) else _store_paths(filesystem, root)
    images: dict[str, list[str]] = {}
    others = 0
    for path in paths:
        stem, kind = _split(os.path.basename(path))
        if kind and not stem.startswith("."):
            images.setdefault(stem, []).append(path)
        else:
            others += 1
    if not images:
        raise InputError(
            f"no image in the folder ({others} other files)",
            where=str(folder),
            fix="images are named <id>.jpg, .jpeg, .png, .fits or .fits.gz, in the folder or one level below",
        )
    return ImageFolder(images, others)


def _local_paths(root: str) -> list[str]:
    if not os.path.isdir(root):
        raise InputError("the folder of images is not there", where=root, fix="check --images")
    with os.scandir(root) as entries:
        top = sorted(entries, key=lambda entry: entry.name)
    paths = [entry.path for entry in top if not entry.is_dir()]
    for entry in top:
        if entry.is_dir():
            with os.scandir(entry.path) as below:
                paths += sorted(e.path for e in below if not e.is_dir())
    return paths


def _store_paths(filesystem: Any, root: str) -> list[str]:
    with explain_store_errors(root):
        found = sorted(filesystem.find(root, maxdepth=2))
    if not found:
        raise InputError("the folder of images is not there", where=root, fix="check --images")
    return [filesystem.unstrip_protocol(path) for path in found]


def _split(name: str) -> tuple[str, str]:
    lower = name.lower()
    for suffix, kind in _KINDS.items():
        if lower.endswith(suffix):
            return name[: -len(suffix)], kind
    return name, ""
