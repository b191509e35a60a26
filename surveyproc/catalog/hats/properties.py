"""The small text files of HATS: Java properties, and the lists in them."""

from __future__ import annotations

import re
from collections.abc import Mapping

_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SEPARATOR = re.compile(r"(?<!\\)(?:\\\\)*\s*[=:]\s*|(?<!\\)(?:\\\\)*\s+")
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}


def parse_properties(data: bytes) -> dict[str, str]:
    """Parse a Java properties file in UTF-8, as HATS writes them.

    Parameters
    ----------
    data : bytes
        ``key=value`` lines (``:`` or white space separate as well); ``#`` and ``!`` begin comments; a backslash
        at the end of a line continues it.

    Returns
    -------
    dict of str to str
        Values without surrounding white space.

    Raises
    ------
    UnicodeDecodeError
        When the bytes are no text.
    """
    text = data.decode("utf-8-sig")
    lines = iter(text.splitlines())
    found: dict[str, str] = {}
    for line in lines:
        line = line.strip()
        if not line or line[0] in "#!":
            continue
        while _continues(line):
            line = line[:-1] + next(lines, "").lstrip()
        match = _SEPARATOR.search(line)
        key, value = (line[: match.start()], line[match.end() :]) if match else (line, "")
        found[_plain(key)] = _plain(value).strip()
    return found


def format_properties(title: str, properties: Mapping[str, str]) -> bytes:
    """Make a properties file that `parse_properties`, and others' readers, give back as it was."""
    lines = [f"#{title}"]
    lines += [f"{_escaped(key, ' =:#!')}={_escaped(value, '')}" for key, value in properties.items()]
    return ("\n".join(lines) + "\n").encode()


def split_list(text: str | None) -> list[str]:
    """Split a list property: words between white space, commas or semicolons."""
    return [word for word in re.split(r"[;,\s]+", text or "") if word]


def split_pairs(text: str | None) -> dict[str, str]:
    """Split a property of pairs, such as ``all_indexes``: first, third, ... word name what follows them.

    Raises
    ------
    ValueError
        When a word is left over.
    """
    words = split_list(text)
    if len(words) % 2:
        raise ValueError(f"{text!r} is no list of pairs")
    return dict(zip(words[::2], words[1::2]))


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _plain(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match.group(1)
        return chr(int(code[1:], 16)) if len(code) > 1 else _NAMED.get(code, code)

    return _ESCAPE.sub(one, text)


def _escaped(text: str, special: str) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return "".join(f"\\{c}" if c in special else c for c in text)
