"""The decision tree of a Galaxy Zoo campaign, and the two ways to write vote fractions.

A *fraction* is conditional: of those asked the question, how many gave the answer. A *joint* value is
cumulative: of all volunteers, how many were asked and gave the answer (the Galaxy Challenge targets).
Where nobody is asked the conditional fraction is missing (NaN), never 0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from surveyproc.errors import InputError, did_you_mean

FOLDER = Path(__file__).parent
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


@dataclass(frozen=True)
class VoteSchema:
    """A validated decision tree; K answers over Q questions.

    Attributes
    ----------
    name : str
        Name of the campaign's tree.
    questions : tuple of Question
        In the order of the columns.
    labels : dict
        ``{question}_{answer}`` to the column of a label file that holds its joint value.
    votes_per_galaxy : int
        Typical number of volunteers per galaxy: the pseudo-counts of labels that carry no counts.

    Raises
    ------
    InputError
        For a repeated question or answer, fewer than two answers, an unknown parent, a circle, or labels
        of unknown answers.
    """

    name: str
    questions: tuple[Question, ...]
    labels: dict[str, str] = field(default_factory=dict)
    votes_per_galaxy: int = 44
    version: int = 1
    source: str = ""

    def __post_init__(self) -> None:
        problems = _problems(self.questions, self.labels)
        if problems:
            raise InputError(
                f"VoteSchema {self.name!r} is not a decision tree: {'; '.join(problems)}",
                fix="correct the questions, answers and parents of the schema",
            )

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> VoteSchema:
        """Build from the JSON form (``outputs.vote_schema`` of model.json)."""
        try:
            questions = tuple(
                Question(q["name"], tuple(q["answers"]), tuple(q.get("parents", ())))
                for q in value["questions"]
            )
            return cls(
                name=value["name"],
                questions=questions,
                labels=dict(value.get("labels", {})),
                votes_per_galaxy=int(value.get("votes_per_galaxy", 44)),
                version=int(value.get("version", 1)),
                source=value.get("source", ""),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"a VoteSchema needs name and questions, each with name and answers: {error!r}"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "version": self.version,
            "source": self.source,
            "votes_per_galaxy": self.votes_per_galaxy,
            "questions": [
                {"name": q.name, "answers": list(q.answers), "parents": list(q.parents)}
                for q in self.questions
            ],
            "labels": dict(self.labels),
        }

    @cached_property
    def columns(self) -> list[str]:
        """The K answer columns in order."""
        return [column for question in self.questions for column in question.columns]

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each question's answers lie among the K columns."""
        found, start = {}, 0
        for question in self.questions:
            found[question.name] = slice(start, start + len(question.answers))
            start += len(question.answers)
        return found

    @cached_property
    def parent_columns(self) -> list[list[int]]:
        """Indices among the K columns of each question's parents; an empty list is asked of all."""
        index = {column: i for i, column in enumerate(self.columns)}
        return [[index[parent] for parent in q.parents] for q in self.questions]

    @cached_property
    def question_of(self) -> np.ndarray:
        """``(K,)`` index of the question of each column."""
        return np.repeat(np.arange(len(self.questions)), [len(q.answers) for q in self.questions])

    @cached_property
    def asking_order(self) -> list[int]:
        """Question indices such that parents come first."""
        return _order(self.questions)

    def proportion_asked(self, fractions: np.ndarray) -> np.ndarray:
        """Compute how many of all volunteers are asked each question.

        Parameters
        ----------
        fractions : numpy.ndarray
            ``(N, K)`` conditional fractions; NaN allowed where nobody is asked.

        Returns
        -------
        numpy.ndarray
            ``(N, Q)`` in [0, 1]: ``P(q) = sum over parents of fraction(parent) P(question of parent)``.
        """
        asked = np.ones((len(fractions), len(self.questions)), dtype=np.float64)
        for q in self.asking_order:
            if parents := self.parent_columns[q]:
                asked[:, q] = sum(
                    _product(fractions[:, parent], asked[:, self.question_of[parent]]) for parent in parents
                )
        return asked

    def joint(self, fractions: np.ndarray) -> np.ndarray:
        """Turn ``(N, K)`` conditional fractions into joint values: ``fraction x asked``; 0 where not asked."""
        return _product(fractions, self.proportion_asked(fractions)[:, self.question_of])

    def conditional(self, joint: np.ndarray) -> np.ndarray:
        """Turn ``(N, K)`` joint values into conditional fractions; NaN where nobody was asked (0/0)."""
        joint = np.asarray(joint, dtype=np.float64)
        asked = self.asked_of_joint(joint)[:, self.question_of]
        missing = np.full_like(joint, np.nan)
        return np.divide(joint, asked, out=missing, where=asked > 0)

    def asked_of_joint(self, joint: np.ndarray) -> np.ndarray:
        """``(N, Q)`` proportion asked read off joint values: 1, or the sum over the parents' joint values."""
        asked = np.ones((len(joint), len(self.questions)), dtype=np.float64)
        for q, parents in enumerate(self.parent_columns):
            if parents:
                asked[:, q] = joint[:, parents].sum(axis=1)
        return asked


def shipped_schemas() -> list[str]:
    """Names of the trees that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load_schema(name_or_path: str) -> VoteSchema:
    """Load a tree by name (``galaxy-challenge``) or from a JSON file.

    Raises
    ------
    InputError
        When there is none, or it is not a decision tree.
    """
    known = shipped_schemas()
    path = FOLDER / f"{name_or_path}.json" if name_or_path in known else Path(name_or_path)
    try:
        return VoteSchema.from_dict(json.loads(path.read_text()))
    except OSError as error:
        raise InputError(
            f"there is no VoteSchema {name_or_path!r}.{did_you_mean(name_or_path, known)}",
            fix=f"give a JSON file, or one of: {', '.join(known)}",
        ) from error
    except ValueError as error:
        raise InputError(f"the VoteSchema is not JSON: {error}", where=str(path)) from error


def _product(fraction: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Multiply so that NaN times "nobody asked" is 0."""
    return np.where(asked > 0, fraction, 0.0) * asked


def _problems(questions: tuple[Question, ...], labels: dict[str, str]) -> list[str]:
    problems = [] if questions else ["it has no questions"]
    names = [q.name for q in questions]
    problems += [f"question {n!r} appears twice" for n in sorted({n for n in names if names.count(n) > 1})]
    for q in questions:
        repeated = sorted({a for a in q.answers if q.answers.count(a) > 1})
        problems += [f"answer {a!r} of {q.name!r} appears twice" for a in repeated]
        if len(q.answers) < MIN_ANSWERS:
            problems.append(f"question {q.name!r} has fewer than two answers")
    columns = [c for q in questions for c in q.columns]
    if not problems and len(set(columns)) < len(columns):
        problems.append("two questions make the same column name")
    for q in questions:
        problems += [
            f"question {q.name!r} has unknown parent {p!r}.{did_you_mean(p, columns)}"
            for p in q.parents
            if p not in columns
        ]
    problems += [f"label of unknown answer {c!r}" for c in labels if c not in columns]
    if not problems:
        ordered = _order(questions)
        circle = [q.name for i, q in enumerate(questions) if i not in ordered]
        if circle:
            problems.append(f"questions ask for each other in a circle: {', '.join(circle)}")
    return problems


def _order(questions: tuple[Question, ...]) -> list[int]:
    """Parents before children; questions on a circle are left out."""
    owner = {column: i for i, q in enumerate(questions) for column in q.columns}
    needs = {i: {owner[p] for p in q.parents} for i, q in enumerate(questions)}
    order: list[int] = []
    while ready := [i for i in needs if i not in order and needs[i] <= set(order)]:
        order += ready
    return order
