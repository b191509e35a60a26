"""Find the image of each object in a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from surveyproc.errors import InputError

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


def index_images(folder: Path) -> ImageFolder:
    """List a folder of images and the folders in it, one level deep.

    Raises
    ------
    InputError
        When the folder is missing or has no image.
    """
    if not folder.is_dir():
        raise InputError("the folder of images is not there", where=str(folder), fix="check --images")
    images: dict[str, list[str]] = {}
    others = 0
    with os.scandir(folder) as entries:
        top = sorted(entries, key=lambda entry: entry.name)
    paths = [entry.path for entry in top if not entry.is_dir()]
    for entry in top:
        if entry.is_dir():
            with os.scandir(entry.path) as below:
                paths += sorted(e.path for e in below if not e.is_dir())
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


def _split(name: str) -> tuple[str, str]:
    lower = name.lower()
    for suffix, kind in _KINDS.items():
        if lower.endswith(suffix):
            return name[: -len(suffix)], kind
    return name, ""
