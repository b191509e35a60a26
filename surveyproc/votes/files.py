"""VoteSchema files: those of the package and a user's own, in YAML (JSON is YAML too)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from surveyproc.errors import InputError, did_you_mean
from surveyproc.votes.tree import VoteSchema

FOLDER = Path(__file__).parent / "schemas"


class _TextLoader(yaml.BaseLoader):
    """Every scalar stays text: ``yes``, ``no`` and ``1`` are answers, not truth values and numbers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Build a mapping; a key that comes twice is an error."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                mark = node.value[number][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} appears twice", mark)
        return super().construct_mapping(node, deep)


def shipped_schemas() -> list[str]:
    """Names of the trees that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_schema(name_or_path: str) -> VoteSchema:
    """Load a tree by name (``gz2``) or from a YAML file.

    Raises
    ------
    InputError
        When there is none, the file is not YAML, or it is not a decision tree.
    """
    known = shipped_schemas()
    path = FOLDER / f"{name_or_path}.yaml" if name_or_path in known else Path(name_or_path)
    return VoteSchema.from_dict(_read(path, name_or_path, known), where=str(path))


def _read(path: Path, name: str, known: list[str]) -> Any:
    fix = "see docs/morphology.md for the form, and surveyproc/votes/schemas for examples"
    try:
        # a Loader of ours that makes nothing but text, lists and mappings
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_TextLoader)  # noqa: S506
    except FileNotFoundError as error:
        raise InputError(
            f"there is no VoteSchema {name!r}.{did_you_mean(name, known)}",
            fix=f"give a YAML file, or one of: {', '.join(known)}",
        ) from error
    except OSError as error:
        raise InputError(
            f"the VoteSchema cannot be read: {error.strerror}", where=str(path), fix="give a YAML file"
        ) from error
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"the VoteSchema is not YAML: {_reason(error)}", where=str(path), fix=fix) from error
    if value is None or value == "":
        raise InputError("the file of the VoteSchema is empty", where=str(path), fix=fix)
    return value


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    text = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{text}, line {mark.line + 1}" if mark else text
