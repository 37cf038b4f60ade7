"""What only this store can do: live in a process, be shared by name, survive a fork."""

import multiprocessing
import os
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from protojobs import JobQueue
from protojobs.errors import OptionInvalid
from protojobs.port import observing
from protojobs.port.lifecycle import Verb
from protojobs.port.observing import AttemptNote, Result
from protojobs.port.records import ClaimedJob, NewJob, Pruned, Settlement, WorkerInfo
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


def test_a_retention_below_the_resend_window_looks_at_no_job_of_the_last_hour():
    clock = ManualClock()
    driver = MemoryDriver(clock=clock)
    driver.register(a_worker())
    driver.enqueue([a_job(place) for place in range(100)])
    claims = driver.claim("w", ["q"], slots=100, limit=100)
    driver.settle([Settlement(id=one.id, claim_seq=1, reserved_by="w", verb=Verb.COMPLETE) for one in claims])
    clock.advance(1_200)
    driver.state.rows = Counted(driver.state.rows)
    queue = JobQueue(driver, {"completed_job_retention": 0})
    assert (queue.prune(), driver.state.rows.looks) == (Pruned(), 0)
    assert queue.prune(completed_older_than=600).completed == 100 <= driver.state.rows.looks


class Counted(dict[str, object]):
    """Rows that know how often one was looked at."""

    looks = 0

    def __getitem__(self, key: str) -> object:
        self.looks += 1
        return super().__getitem__(key)


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


PROGRAM = """
import os, sys, threading

made = []
os.register_at_fork(before=lambda: made.append(MemoryDriver()))  # hooks go backwards: behind those of the store

from protojobs.port.records import NewJob
from protojobs_memory import MemoryDriver

known = MemoryDriver("memory://known")
job = NewJob(id="a", queue="q", job_name="j", job_class="J", data="{}")
child = os.fork()
for driver in (known, *made):
    thread = threading.Thread(target=driver.enqueue, args=([job],), daemon=True)
    thread.start()
    thread.join(10)
    if thread.is_alive():
        os._exit(3)
if child == 0:
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_store_that_is_made_during_a_fork_is_locked_neither_here_nor_there():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_threads_that_fork_at_once_do_not_wait_for_each_other():
    kept: list[MemoryDriver] = []

    def fork() -> None:
        for _ in range(20):
            kept.append(MemoryDriver())
            child = os.fork()
            if child == 0:
                kept[-1].enqueue([a_job()])
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0

    threads = [threading.Thread(target=fork, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert len(kept) == 80
    for driver in kept:
        driver.enqueue([a_job()])


def completed(claim: ClaimedJob) -> Settlement:
    return Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by, verb=Verb.COMPLETE)


def check_and_go_on(driver: MemoryDriver) -> None:
    """In the child: no step was cut in half (jobs came in pairs), and the store works."""
    assert driver.stats().total % 2 == 0
    assert driver.stats().total == len(driver.state.ids)
    driver.enqueue([a_job(10**6)])
    assert driver.wait(["q"], 0.01) is True
    assert driver.wait(["unknown"], 0.01) is False


def a_note(at, job_id, claim_seq=1):
    return AttemptNote(
        job_id=job_id, attempt=1, claim_seq=claim_seq, worker="w", result=Result.FAILED, started_at=at, ended_at=at
    )


def test_the_notes_of_an_incident_are_bounded_in_number_and_the_newest_are_kept(monkeypatch):
    monkeypatch.setattr(observing, "ATTEMPTS_KEPT_MAX", 5)
    driver = MemoryDriver()
    now = driver.now()
    for place in range(12):
        driver.record("w", [], [a_note(now + timedelta(seconds=place), f"job-{place}")])
    kept = [place for place in range(12) if driver.attempts(f"job-{place}")]
    assert kept == [7, 8, 9, 10, 11]


def test_notes_go_with_their_job():
    driver = MemoryDriver()
    driver.enqueue([a_job(0), a_job(1)])
    driver.record("w", [], [a_note(driver.now(), f"job-{place:06}", seq) for place in (0, 2) for seq in (1, 2)])
    driver.clear("q")
    assert [len(driver.attempts(f"job-{place:06}")) for place in (0, 2)] == [0, 2]
