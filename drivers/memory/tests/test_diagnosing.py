"""What a memory store tells of itself: that it does not last, a job's place in its line, and when its oldest ended."""

from __future__ import annotations

from datetime import timedelta

from protojobs.port.diagnosis import Diagnoses, Severity
from protojobs.port.lifecycle import JobState, Verb
from protojobs.testing import ManualClock
from protojobs.testing.conformance.steps import join, lend, new_job, push, settle
from protojobs_memory import MemoryDriver


def test_it_says_that_nothing_lasts() -> None:
    driver = MemoryDriver()
    push(driver, new_job(), new_job())
    assert isinstance(driver, Diagnoses)
    (finding,) = driver.diagnose()
    assert (finding.code, finding.severity) == ("nothing_lasts", Severity.NOTE)
    assert "2 now" in finding.what


def test_the_place_in_the_line() -> None:
    clock = ManualClock()
    driver = MemoryDriver(clock=clock)
    ids = sorted(push(driver, *[new_job() for _ in range(3)]))
    push(driver, *[new_job(priority=10) for _ in range(2)], new_job(priority=99, delay=600.0), new_job(priority=-1))
    clock.advance(1)
    (last,) = push(driver)
    (later,) = push(driver, new_job(delay=600.0))
    push(driver, new_job("other", priority=50))
    assert [driver.in_front(job) for job in [*ids, last, later]] == [2, 3, 4, 5, 6]
    assert driver.in_front(last, counted_max=3) == 3
    lend(driver, join(driver))
    assert driver.in_front(last) == driver.in_front("no such id") == 0


def test_when_the_oldest_job_ended() -> None:
    clock = ManualClock()
    driver = MemoryDriver(clock=clock)
    push(driver, *[new_job() for _ in range(3)])
    first, second, failed = lend(driver, join(driver))
    assert driver.oldest_ended() == {}
    began = driver.now()
    settle(driver, first, Verb.COMPLETE)
    clock.advance(5)
    settle(driver, second, Verb.COMPLETE)
    settle(driver, failed, Verb.FAIL)
    assert driver.oldest_ended() == {JobState.COMPLETED: began, JobState.FAILED: began + timedelta(seconds=5)}
