"""Fixtures shared by the whole suite."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("SURVEYPROC_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "galaxy_zoo_challenge").is_dir():
        pytest.skip(f"the real data set is not at {folder}; set SURVEYPROC_DATA")
    return folder
