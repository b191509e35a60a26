"""One finished run on the sky, made once, and copies of it to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from drive import run_here
from toys import toy_bundle, toy_catalog, toy_pixels

ROWS = 60


@pytest.fixture(scope="session")
def survey(tmp_path_factory) -> tuple[Path, Path]:
    """A catalog across the border of three HEALPix pixels with one unusable cutout, and a bundle."""
    folder = tmp_path_factory.mktemp("survey")
    pixels = toy_pixels(ROWS)
    pixels[5] = 1
    rng = np.random.default_rng(0)
    positions = rng.uniform(40, 50, ROWS), rng.uniform(-4, 4, ROWS)
    return toy_catalog(folder / "in.cat", rows=ROWS, pixels=pixels, positions=positions), toy_bundle(
        folder / "toy"
    )


@pytest.fixture(scope="session")
def whole(survey, tmp_path_factory) -> Path:
    """The finished run; not to be changed."""
    run = tmp_path_factory.mktemp("whole") / "out.run"
    run_here(*survey[:1], run, survey[1])
    return run


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(whole, tmp_path / "out.run"))
