"""Every line of docs/operations.md is a test that exists and is not skipped for good."""

from __future__ import annotations

import ast
import re

from drive import REPOSITORY

PAGE = REPOSITORY / "docs" / "operations.md"
LINE = re.compile(r"^\| (?!failure|---)(?P<failure>.+?) \|.*\| (?P<tests>.*?) \|$")
TEST = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<name>test_\w+)`")


def test_every_line_names_a_test_that_is_there():
    lines = [match for line in PAGE.read_text().splitlines() if (match := LINE.match(line))]
    assert len(lines) >= 40
    for line in lines:
        found = TEST.fullmatch(line["tests"])
        assert found, f"no test is named for: {line['failure']}"
        tree = ast.parse((REPOSITORY / found["file"]).read_text())
        tests = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
        assert found["name"] in tests, f"{found['file']} has no {found['name']}"
        marks = [ast.unparse(mark) for mark in tests[found["name"]].decorator_list]
        assert not any("mark.skip" in mark or "xfail" in mark for mark in marks), found["name"]
