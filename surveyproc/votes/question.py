"""The questions of a decision tree, and what keeps them from being one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from surveyproc.errors import did_you_mean

MIN_ANSWERS = 2


@dataclass(frozen=True)
class Question:
    """One question: asked of those who gave any of the ``parents`` (``{question}_{answer}``), or of all."""

    name: str
    answers: tuple[str, ...]
    parents: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """``{question}_{answer}`` of each answer."""
        return [f"{self.name}_{answer}" for answer in self.answers]


def repeated(names: Sequence[str]) -> list[str]:
    """Names that appear more than once, sorted."""
    return sorted({name for name in names if names.count(name) > 1})


def tree_problems(questions: Sequence[Question], labels: dict[str, str]) -> list[str]:
    """List everything that keeps questions and label columns from being a decision tree."""
    problems = [] if questions else ["it has no questions"]
    problems += [f"question {n!r} appears twice" for n in repeated([q.name for q in questions])]
    for q in questions:
        problems += [f"answer {a!r} of {q.name!r} appears twice" for a in repeated(q.answers)]
        if len(q.answers) < MIN_ANSWERS:
            problems.append(f"question {q.name!r} has fewer than two answers")
    columns = [c for q in questions for c in q.columns]
    if not problems:
        problems += [f"two questions make the same column name {c!r}" for c in repeated(columns)]
    for q in questions:
        problems += [
            f"question {q.name!r} has unknown parent {p!r}.{did_you_mean(p, columns)}"
            for p in q.parents
            if p not in columns
        ]
        problems += [f"question {q.name!r} names parent {p!r} twice" for p in repeated(q.parents)]
    problems += [
        f"label of unknown answer {c!r}.{did_you_mean(c, columns)}" for c in labels if c not in columns
    ]
    problems += [f"two answers read the label column {c!r}" for c in repeated(list(labels.values()))]
    ordered = asking_order(questions)
    circle = [q.name for i, q in enumerate(questions) if i not in ordered]
    if circle:
        problems.append(f"questions ask for each other in a circle: {', '.join(circle)}")
    return problems or _overlaps(questions)


def _overlaps(questions: Sequence[Question]) -> list[str]:
    """Parents of one question that the same volunteer may both give: their sum is no probability."""
    owner = {column: q for q in questions for column in q.columns}

    def exclude(a: str, b: str) -> bool:
        if owner[a] is owner[b]:
            return a != b
        above, beside = owner[a].parents, owner[b].parents
        return bool(
            (above and all(exclude(p, b) for p in above)) or (beside and all(exclude(a, p) for p in beside))
        )

    return [
        f"question {q.name!r} has parents {a!r} and {b!r}, which one volunteer may both give"
        for q in questions
        for a, b in combinations(q.parents, 2)
        if not exclude(a, b)
    ]


def asking_order(questions: Sequence[Question]) -> list[int]:
    """Indices of the questions, parents before children; questions on or below a circle are left out."""
    owner = {column: i for i, q in enumerate(questions) for column in q.columns}
    needs = {i: {owner[p] for p in q.parents if p in owner} for i, q in enumerate(questions)}
    order: list[int] = []
    while ready := [i for i in needs if i not in order and needs[i] <= set(order)]:
        order += ready
    return order
