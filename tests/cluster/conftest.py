"""Tests on two nodes take minutes: ``pytest -m slow tests/cluster`` runs them all, plain ``pytest`` a part."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.markexpr:
        return
    left_out = [i for i in items if FOLDER in i.path.parents and i.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [i for i in items if i not in left_out]
