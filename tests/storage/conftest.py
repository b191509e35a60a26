"""S3 servers, one for each module that asks."""

import pytest
from stores import environment_of, fault_proxy, s3_server


@pytest.fixture(scope="module")
def moto():
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(moto, monkeypatch):
    """This process pointed at the server."""
    with environment_of(moto, monkeypatch):
        yield moto


@pytest.fixture
def faults(moto, monkeypatch, tmp_path):
    """This process pointed at the server through a proxy that breaks what it is told to."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with fault_proxy(moto, tmp_path / "proxy") as (server, rules), environment_of(server, monkeypatch):
        yield rules
