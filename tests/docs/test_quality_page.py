"""The page about the quality column names every bit, and no other."""

import re
from pathlib import Path

from surveyproc.quality import Quality, describe_bits

PAGE = Path(__file__).resolve().parents[2] / "docs" / "quality.md"


def test_every_bit_is_on_the_page_with_its_number():
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", PAGE.read_text(), re.MULTILINE)
    assert {name: int(bit) for bit, name in rows} == {bit.name: bit.value for bit in Quality}


def test_the_description_of_the_column_names_every_bit():
    assert all(f"{bit.value} {bit.name}" in describe_bits() for bit in Quality)
