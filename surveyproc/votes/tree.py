"""The decision tree of a Galaxy Zoo campaign, and the two ways to write vote fractions.

A *fraction* is conditional: of those asked the question, how many gave the answer. A *joint* value is
cumulative: of all volunteers, how many were asked and gave the answer (the Galaxy Challenge targets).
Where nobody is asked the conditional fraction is missing (NaN), never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from surveyproc.errors import InputError
from surveyproc.votes.parse import VALUES, parse_parts
from surveyproc.votes.question import Question, asking_order, tree_problems


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
        ``{question}_{answer}`` to the column of a label file that holds its value; the answers' own names serve too.
    values : str
        What these columns hold: ``joint`` (cumulative fractions), ``fractions`` (conditional) or ``counts`` (votes).
    votes_per_galaxy : int
        Typical number of volunteers per galaxy: the pseudo-counts of labels that carry no counts. The
        default is the median of Galaxy Zoo 2.
    version : int
        Changes when questions, answers or their order do.
    source : str
        The paper and table that were followed.

    Raises
    ------
    InputError
        For a repeated question or answer, fewer than two answers, an unknown parent, a circle, labels
        of unknown answers, or one label column for two answers.
    """

    name: str
    questions: tuple[Question, ...]
    labels: dict[str, str] = field(default_factory=dict)
    votes_per_galaxy: int = 44
    version: int = 1
    source: str = ""
    values: str = "joint"

    def __post_init__(self) -> None:
        problems = tree_problems(self.questions, self.labels)
        if self.values not in VALUES:
            problems.append(f"values is {self.values!r}, not one of {', '.join(VALUES)}")
        _refuse(self.name, problems)

    @classmethod
    def from_dict(cls, value: Any, where: str = "") -> VoteSchema:
        """Build from the plain form (``outputs.vote_schema`` of model.json, a YAML file).

        Parameters
        ----------
        value : dict
            ``name`` and ``questions`` (each ``name``, ``answers`` and, unless asked of all, ``parents``); optional
            ``labels``, ``values``, ``votes_per_galaxy``, ``version``, ``source``.
        where : str, optional
            The file, for the error.

        Raises
        ------
        InputError
            Lists every problem: unknown keys, wrong types, and what `VoteSchema` refuses.
        """
        fields, problems = parse_parts(value)
        if "questions" in fields:
            problems += tree_problems(fields["questions"], fields.get("labels", {}))
        _refuse(fields.get("name", ""), problems, where)
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        return {
            "name": self.name,
            "version": self.version,
            "source": self.source,
            "votes_per_galaxy": self.votes_per_galaxy,
            "questions": [
                {"name": q.name, "answers": list(q.answers), "parents": list(q.parents)}
                for q in self.questions
            ],
            "values": self.values,
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
        return asking_order(self.questions)

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
        """Turn ``(N, K)`` joint values into conditional fractions; NaN where nobody was asked (0/0) or answered."""
        joint = np.asarray(joint, dtype=np.float64)
        asked = self.asked_of_joint(joint)[:, self.question_of]
        answered = self.totals(joint)[:, self.question_of] > 0
        missing = np.full_like(joint, np.nan)
        return np.divide(joint, asked, out=missing, where=(asked > 0) & answered)

    def known(self, joint: np.ndarray) -> np.ndarray:
        """Tell which questions the joint values speak of.

        Returns
        -------
        numpy.ndarray
            ``(N, Q)`` bool: False where volunteers were (or may have been) asked and none answered, so that the
            zeros are missing values; True where the zeros say that nobody was asked.
        """
        joint = np.asarray(joint, dtype=np.float64)
        asked, known = self.asked_of_joint(joint), self.totals(joint) > 0
        for q in self.asking_order:
            if parents := self.parent_columns[q]:
                above = known[:, self.question_of[parents]].all(axis=1)
                known[:, q] |= (asked[:, q] == 0) & above
        return known

    def asked_of_joint(self, joint: np.ndarray) -> np.ndarray:
        """``(N, Q)`` proportion asked read off joint values: 1, or the sum over the parents' joint values."""
        asked = np.ones((len(joint), len(self.questions)), dtype=np.float64)
        for q, parents in enumerate(self.parent_columns):
            if parents:
                asked[:, q] = joint[:, parents].sum(axis=1)
        return asked

    def totals(self, values: np.ndarray) -> np.ndarray:
        """``(N, Q)`` sum over the answers of each question, of ``(N, K)`` votes, fractions or joint values."""
        return np.stack([values[:, s].sum(axis=1) for s in self.slices.values()], axis=1)


def _refuse(name: str, problems: list[str], where: str = "") -> None:
    if problems:
        raise InputError(
            f"VoteSchema {name!r} is not a decision tree: {'; '.join(problems)}",
            where=where,
            fix="correct the questions, answers, parents and labels of the schema",
        )


def _product(fraction: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Multiply so that NaN times "nobody asked" is 0."""
    return np.where(asked > 0, fraction, 0.0) * asked
