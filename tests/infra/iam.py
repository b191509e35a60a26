"""Decide a request by a bucket policy, as AWS documents it: an explicit deny wins, and nothing is allowed by default."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any


def allows(policy: dict, action: str, resource: str, principal: str, **context: str) -> bool:
    """Whether the policy lets ``principal`` do ``action`` on the ARN ``resource``.

    Parameters
    ----------
    policy : dict
    action, resource, principal : str
    **context : str
        Condition keys of the ``s3:`` namespace with ``_`` for ``-`` (``if_none_match="*"``).
    """
    keys = {f"s3:{name.replace('_', '-')}".lower(): value for name, value in context.items()}
    effects = {
        statement["Effect"]
        for statement in policy["Statement"]
        if principal in _list(statement["Principal"]["AWS"])
        and any(_matches(pattern, action) for pattern in _list(statement["Action"]))
        and any(_matches(pattern, resource) for pattern in _list(statement["Resource"]))
        and all(_holds(*condition, keys) for condition in _conditions(statement))
    }
    return effects == {"Allow"}


def _conditions(statement: dict) -> Iterator[tuple[str, str, list[str]]]:
    for operator, tests in statement.get("Condition", {}).items():
        for key, values in tests.items():
            yield operator, key.lower(), _list(values)


def _holds(operator: str, key: str, values: list[str], context: dict[str, str]) -> bool:
    """One condition; a key that is not in the request fails all operators but ``Null``."""
    if operator == "Null":
        return str(key not in context).lower() in values
    if key not in context:
        return False
    if operator == "StringLike":
        return any(_matches(value, context[key]) for value in values)
    if operator == "Bool":
        return context[key] in values
    raise NotImplementedError(operator)


def _matches(pattern: str, text: str) -> bool:
    """``*`` matches any run of characters, also ``/``; brackets are literal in IAM."""
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def _list(value: Any) -> list:
    return value if isinstance(value, list) else [value]
