"""One driver at a time where the store cannot create a name only once."""

from __future__ import annotations

import threading
import uuid

import pytest

from surveyproc.errors import ResourceError
from surveyproc.runs.lease import DRIVERS, DriverLease
from surveyproc.storage import Storage


@pytest.fixture
def storage():
    return Storage(f"memory://lease-{uuid.uuid4().hex}")


def test_a_second_driver_is_refused_until_the_first_is_done(storage):
    with DriverLease(storage):
        with pytest.raises(ResourceError, match="another driver is at work"), DriverLease(storage):
            pytest.fail("two drivers at work")
        assert len(storage.names(DRIVERS)) == 1, "the refused one leaves nothing"
    assert storage.names(DRIVERS) == []
    with DriverLease(storage):
        pass


def test_a_driver_that_was_killed_is_forgotten(storage):
    dead = DriverLease(storage, life=0.3, beat=1000)
    dead.__enter__()
    with pytest.raises(ResourceError), DriverLease(storage, life=1000):
        pass
    threading.Event().wait(0.4)
    with DriverLease(storage, life=0.3):
        assert len(storage.names(DRIVERS)) == 1
        with pytest.raises(ResourceError, match="could not renew"):
            dead.require()


def test_a_living_driver_renews(storage):
    with DriverLease(storage, life=0.5, beat=0.05) as lease:
        threading.Event().wait(0.8)
        lease.require()
        with pytest.raises(ResourceError), DriverLease(storage, life=0.5):
            pass


def test_of_drivers_that_start_at_once_one_works_at_most(storage):
    for _ in range(20):
        start, at_work, most = threading.Barrier(6), [], []

        def drive(start=start, at_work=at_work, most=most):
            start.wait()
            try:
                with DriverLease(storage, beat=0.05):
                    at_work.append(1)
                    most.append(len(at_work))
                    threading.Event().wait(0.02)
                    at_work.pop()
            except ResourceError:
                pass

        drivers = [threading.Thread(target=drive) for _ in range(6)]
        for driver in drivers:
            driver.start()
        for driver in drivers:
            driver.join()
        assert max(most, default=1) == 1
        assert most, "nobody got to work"
        assert storage.names(DRIVERS) == []
