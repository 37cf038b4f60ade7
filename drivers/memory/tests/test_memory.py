"""What only this store can do: live in a process, be shared by name, survive a fork."""

import multiprocessing
import sys
import threading
from datetime import timedelta

import pytest

from protojobs.errors import OptionInvalid
from protojobs.lifecycle import Verb
from protojobs.records import ClaimedJob, NewJob, Settlement, WorkerInfo
from protojobs.testing import ManualClock
from protojobs_memory import MemoryDriver


def a_job(place: int = 0, delay: float = 0.0) -> NewJob:
    return NewJob(id=f"job-{place:06}", queue="q", job_name="j", job_class="J", data="{}", delay=delay)


def a_worker() -> WorkerInfo:
    return WorkerInfo(id="w", host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)


def test_each_unnamed_url_is_a_store_of_its_own():
    first, second = MemoryDriver("memory://"), MemoryDriver()
    first.enqueue([a_job()])
    assert (first.stats().pending, second.stats().pending) == (1, 0)


def test_drivers_of_one_name_share_a_store():
    first, second, other = (MemoryDriver(f"memory://{name}") for name in ("shared", "shared", "Shared"))
    first.teardown()
    first.enqueue([a_job()])
    assert (second.stats().pending, other.stats().pending) == (1, 0)


@pytest.mark.parametrize("url", ["memory", "redis://", "memory://name/path", "memory://name?x=1", "memory://#x"])
def test_a_url_that_means_nothing_here_is_refused(url):
    with pytest.raises(OptionInvalid, match="memory://name"):
        MemoryDriver(url)


def test_the_clock_that_is_given_decides_when_a_job_is_due():
    clock = ManualClock()
    driver = MemoryDriver(clock=clock)
    driver.register(a_worker())
    driver.enqueue([a_job(delay=10)])
    clock.advance(9.999999)
    assert driver.claim("w", ["q"], slots=1, limit=1) == []
    clock.advance(0.000001)
    assert len(driver.claim("w", ["q"], slots=1, limit=1)) == 1


def test_a_clock_that_is_set_back_does_not_take_the_store_back():
    clock = ManualClock()
    driver = MemoryDriver(clock=clock)
    before = driver.now()
    clock.set_wall(before - timedelta(hours=1))
    assert driver.now() == before
    clock.set_wall(before + timedelta(seconds=1))
    assert driver.now() == before + timedelta(seconds=1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_child_forked_in_the_middle_of_work_has_whole_jobs_and_a_free_lock():
    driver = MemoryDriver()
    stop = threading.Event()

    def work() -> None:
        driver.register(a_worker())
        place = 0
        while not stop.is_set():
            driver.enqueue([a_job(place), a_job(place + 1)])
            claims = driver.claim("w", ["q"], slots=3, limit=3)
            driver.settle([completed(claim) for claim in claims])
            place += 2

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        for _ in range(5):
            child = multiprocessing.get_context("fork").Process(target=check_and_go_on, args=(driver,))
            child.start()
            child.join(30)
            assert child.exitcode == 0
    finally:
        stop.set()
        thread.join(30)


def completed(claim: ClaimedJob) -> Settlement:
    return Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by, verb=Verb.COMPLETE)


def check_and_go_on(driver: MemoryDriver) -> None:
    """In the child: no step was cut in half (jobs came in pairs), and the store works."""
    assert driver.stats().total % 2 == 0
    assert driver.stats().total == len(driver.state.ids)
    driver.enqueue([a_job(10**6)])
    assert driver.wait(["q"], 0.01) is True
    assert driver.wait(["unknown"], 0.01) is False
