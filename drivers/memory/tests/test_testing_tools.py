"""ManualClock and FlakyDriver, tried on the simplest store."""

import subprocess
import sys
from datetime import timedelta

import pytest

from protojobs.errors import StoreUnavailable
from protojobs.port.records import NewJob
from protojobs.port.transactions import SupportsTransaction
from protojobs.testing import FlakyDriver, ManualClock
from protojobs_memory import MemoryDriver


def a_job() -> NewJob:
    return NewJob(id="job-1", queue="q", job_name="j", job_class="J", data="{}")


def test_a_manual_clock_moves_both_its_times_and_only_when_told():
    clock = ManualClock()
    start = clock.now()
    assert (clock.monotonic(), clock.now()) == (0.0, start)
    clock.advance(1.5)
    assert (clock.monotonic(), clock.now()) == (1.5, start + timedelta(seconds=1.5))
    clock.set_wall(start)
    assert (clock.monotonic(), clock.now()) == (1.5, start)
    with pytest.raises(ValueError, match="forwards"):
        clock.advance(-1)


def test_the_chosen_call_fails_before_it_is_done():
    driver = FlakyDriver(MemoryDriver(), 2)
    driver.enqueue([])
    with pytest.raises(StoreUnavailable):
        driver.enqueue([a_job()])
    assert (driver.has_failed, driver.stats().total) == (True, 0)


def test_the_chosen_call_loses_its_answer_after_it_is_done():
    driver = FlakyDriver(MemoryDriver(), 1, after=True)
    with pytest.raises(StoreUnavailable):
        driver.enqueue([a_job()])
    assert driver.stats().total == 1
    assert driver.enqueue([a_job()])[0].duplicate_of == "job-1"


def test_only_the_named_verbs_are_counted():
    driver = FlakyDriver(MemoryDriver(), 1, only=["enqueue"])
    driver.stats()
    assert driver.calls == 0
    with pytest.raises(StoreUnavailable):
        driver.enqueue([])


def test_everything_else_is_the_drivers_own():
    store = MemoryDriver()
    driver = FlakyDriver(store, 99)
    assert driver.capabilities is store.capabilities
    assert not isinstance(driver, SupportsTransaction)


def test_the_tools_need_no_pytest():
    code = "import sys; sys.modules['pytest'] = sys.modules['hypothesis'] = None; import protojobs.testing"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
