"""From the plain form of a VoteSchema (model.json, a YAML file) to its parts; all mistakes are collected."""

from __future__ import annotations

from typing import Any

from surveyproc.errors import did_you_mean
from surveyproc.votes.question import Question

VALUES = ("joint", "fractions", "counts")
KEYS = ("name", "version", "source", "votes_per_galaxy", "questions", "values", "labels")
QUESTION_KEYS = ("name", "answers", "parents")


def parse_parts(value: Any) -> tuple[dict[str, Any], list[str]]:
    """Read the fields of a VoteSchema.

    Returns
    -------
    fields : dict
        Arguments of `VoteSchema`, as far as they can be read; ``questions`` only when all of them can.
    problems : list of str
        What is missing, unknown or of the wrong type.
    """
    if not isinstance(value, dict):
        return {}, [f"it is {_kind(value)}, not a mapping with name and questions"]
    problems = _unknown(value, KEYS, "it")
    problems += [f"it has no {key}" for key in ("name", "questions") if key not in value]
    fields: dict[str, Any] = {}
    for key in ("name", "source"):
        if key in value:
            fields[key] = _text(value[key], key, problems, may_be_empty=key == "source")
    for key in ("version", "votes_per_galaxy"):
        if key in value:
            fields[key] = _whole(value[key], key, problems)
    if "values" in value:
        fields["values"] = value["values"]
        if value["values"] not in VALUES:
            hint = did_you_mean(str(value["values"]), VALUES)
            problems.append(f"values is {value['values']!r}, not one of {', '.join(VALUES)}.{hint}")
    if "questions" in value:
        questions = _questions(value["questions"], problems)
        if questions is not None:
            fields["questions"] = questions
    if "labels" in value:
        fields["labels"] = _labels(value["labels"], problems)
    return fields, problems


def _questions(value: Any, problems: list[str]) -> tuple[Question, ...] | None:
    """Read all questions, or None when one cannot be read (what hangs on it would look wrong too)."""
    if not isinstance(value, list):
        problems.append(f"questions is {_kind(value)}, not a list")
        return None
    found = []
    for number, item in enumerate(value, start=1):
        if not isinstance(item, dict):
            problems.append(f"question {number} is {_kind(item)}, not a mapping with name and answers")
            continue
        where = f"question {item['name']!r}" if isinstance(item.get("name"), str) else f"question {number}"
        problems += _unknown(item, QUESTION_KEYS, where)
        missing = [key for key in ("name", "answers") if key not in item]
        problems += [f"{where} has no {key}" for key in missing]
        if missing:
            continue
        before = len(problems)
        name = _text(item["name"], f"the name of {where}", problems)
        answers = _texts(item["answers"], f"answers of {where}", problems)
        parents = _texts(item.get("parents", []), f"parents of {where}", problems)
        if len(problems) == before:
            found.append(Question(name, answers, parents))
    return tuple(found) if len(found) == len(value) else None


def _labels(value: Any, problems: list[str]) -> dict[str, str]:
    if not isinstance(value, dict):
        problems.append(f"labels is {_kind(value)}, not a mapping from answers to column names")
        return {}
    return {str(k): _text(v, f"label column of {k!r}", problems) for k, v in value.items()}


def _unknown(value: dict, keys: tuple[str, ...], where: str) -> list[str]:
    return [
        f"{where} has unknown key {key!r}.{did_you_mean(str(key), keys)}" for key in value if key not in keys
    ]


def _texts(value: Any, what: str, problems: list[str]) -> tuple[str, ...]:
    if not isinstance(value, list):
        problems.append(f"{what} is {_kind(value)}, not a list")
        return ()
    return tuple(_text(item, f"an entry of {what}", problems) for item in value)


def _text(value: Any, what: str, problems: list[str], *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        problems.append(f"{what} is {_kind(value)}, not text")
    elif not (value or may_be_empty):
        problems.append(f"{what} is empty")
    return str(value)


def _whole(value: Any, what: str, problems: list[str]) -> int:
    try:
        number = int(value) if isinstance(value, (int, str)) else 0
    except ValueError:
        number = 0
    if number < 1:
        problems.append(f"{what} is {value!r}, not a whole number from 1")
    return number


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: f"text ({value!r})", type(None): "empty"}
    return names.get(type(value), repr(value))
