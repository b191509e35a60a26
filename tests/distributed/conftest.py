"""Fixtures of the tests of whole runs."""

import pytest
from toys import toy_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="module")
def ray_session():
    """One local Ray cluster for a test module; `surveyproc.distributed.rays` takes it as it is."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=256 * 2**20,
        log_to_driver=False,
    )
    yield ray
    ray.shutdown()
