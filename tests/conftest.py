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


@pytest.fixture(scope="module")
def one_thread():
    """Torch as the engine has it: one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["fp32", "bf16"])
def precision(request):
    """Each precision that the machine computes."""
    from surveyproc.errors import ResourceError
    from surveyproc.inference.settings import resolve_precision

    try:
        return resolve_precision(request.param, "cpu")
    except ResourceError as error:
        pytest.skip(str(error))
