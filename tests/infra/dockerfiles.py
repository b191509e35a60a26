"""Read a Dockerfile: its stages, each with its instructions in order."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """One ``FROM image AS name`` and what follows it."""

    name: str
    image: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        """Arguments of every instruction of one kind."""
        return [rest for word, rest in self.instructions if word == keyword]


def read_stages(path: Path) -> dict[str, Stage]:
    """Stages by name, in order; build arguments before the first stage are filled in with their defaults."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    arguments, stages = {}, {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        word, rest = line.split(maxsplit=1)
        if word == "ARG" and not stages:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            image, _, name = re.fullmatch(r"(\S+)(\s+AS\s+(\S+))?", rest).groups()
            image = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], image)
            stage = Stage(name, image)
            stages[name] = stage
        else:
            stage.instructions.append((word, " ".join(rest.split())))
    return stages


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """The stage and those it stands on, the lowest first."""
    stage = stages[name]
    below = lineage(stages, stage.image) if stage.image in stages else []
    return [*below, stage]


def environment(stages: dict[str, Stage], name: str) -> dict[str, str]:
    """Variables set in a stage or in those it stands on."""
    words = [word for stage in lineage(stages, name) for rest in stage.all("ENV") for word in rest.split()]
    return dict(word.split("=", 1) for word in words)


def copied(stage: Stage) -> list[tuple[str, list[str]]]:
    """For each COPY: the stage it copies from (empty for the build context) and its sources."""
    found = []
    for rest in stage.all("COPY"):
        words = rest.split()
        origin = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else ""
        found.append((origin, words[:-1]))
    return found
