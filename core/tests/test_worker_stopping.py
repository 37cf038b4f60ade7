"""Stopping a worker: its token, its limits, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from protojobs import JobQueue, StopToken, job
from protojobs._memory import resident_bytes
from protojobs.errors import OptionInvalid, StoreUnavailable
from protojobs.events import Event
from protojobs.testing import FlakyDriver
from protojobs_memory import MemoryDriver

MakeQueue = Callable[..., JobQueue]
Eventually = Callable[[Callable[[], object]], None]
Working = Callable[..., AbstractContextManager[Any]]


class Gate:
    """A job that waits until it is let go, in steps that can be interrupted."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.may_go = threading.Event()

        @job(name="gated", timeout=0, max_retries=0)
        def gated() -> None:
            self.started.set()
            while not self.may_go.is_set():
                time.sleep(0.001)

        @job(name="agated", timeout=0, max_retries=0)
        async def agated() -> None:
            self.started.set()
            while not self.may_go.is_set():
                await asyncio.sleep(0.001)

        self.plain, self.waiting = gated.bind(), agated.bind()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.may_go.set()


@pytest.mark.parametrize("kind", ["plain", "waiting"])
def test_the_first_stop_lets_running_jobs_finish_and_starts_nothing_new(
    queue: JobQueue, gate: Gate, working: Working, kind: str
) -> None:
    first = queue.push(getattr(gate, kind))
    with working(queue) as worker:
        assert gate.started.wait(5)
        worker.token.stop()
        later = queue.push(gate.plain)
        assert worker.thread.is_alive()
        gate.may_go.set()
        report = worker.join()
    assert (report.done, report.runs, report.reason) == (1, 1, "stopped")
    states = [record.status for record in (queue.get(first), queue.get(later)) if record]
    assert states == ["completed", "pending"]
    assert queue.workers() == []


@pytest.mark.parametrize("kind", ["plain", "waiting"])
def test_a_second_stop_cuts_them_short_and_gives_them_back_unspent(
    queue: JobQueue, gate: Gate, working: Working, heard: Callable[..., list[Event]], kind: str
) -> None:
    released = heard("job.released")
    job_id = queue.push(getattr(gate, kind))
    with working(queue) as worker:
        assert gate.started.wait(5)
        worker.token.stop()
        worker.token.stop()
        report = worker.join()
    record = queue.get(job_id)
    assert record is not None
    assert (record.status, record.attempts, record.returns) == ("pending", 0, 1)
    assert (report.done, report.failed, report.reason) == (0, 0, "stopped")
    assert [event.get("reason") for event in released] == ["shutdown"]
    gate.may_go.set()
    assert queue.work("default", 1).done == 1


def test_after_the_grace_running_jobs_are_cut_short_as_by_a_second_stop(
    make_queue: MakeQueue, gate: Gate, working: Working
) -> None:
    queue = make_queue(shutdown_grace=0.05)
    job_id = queue.push(gate.plain)
    with working(queue) as worker:
        assert gate.started.wait(5)
        worker.token.stop()
        worker.join()
    record = queue.get(job_id)
    assert record is not None
    assert (record.status, record.attempts) == ("pending", 0)


def test_jobs_fetched_ahead_go_back_at_a_stop_with_their_place_in_the_line(
    queue: JobQueue, gate: Gate, working: Working
) -> None:
    @job(name="quick")
    def quick() -> None: ...

    queue.push_many([quick.bind()] * 60)
    ids = [queue.push(gate.plain) for _ in range(30)]
    before = [record.available_at for job_id in ids if (record := queue.get(job_id))]
    with working(queue) as worker:
        assert gate.started.wait(5)
        worker.token.stop()
        worker.token.stop()
        worker.join()
    records = [record for job_id in ids if (record := queue.get(job_id))]
    assert {(record.status, record.attempts) for record in records} == {("pending", 0)}
    assert [record.available_at for record in records if not record.returns] == before[: len(before)][
        len(before) - sum(not record.returns for record in records) :
    ]


def test_a_token_stopped_beforehand_ends_the_worker_before_it_claims(queue: JobQueue, gate: Gate) -> None:
    queue.push(gate.plain)
    token = StopToken()
    token.stop()
    assert queue.work("default", stop=token).runs == 0


def test_one_token_may_stop_several_workers(make_queue: MakeQueue) -> None:
    token = StopToken()
    reports: list[str] = []
    threads = [
        threading.Thread(target=lambda: reports.append(make_queue().work("default", stop=token).reason))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    token.stop()
    for thread in threads:
        thread.join(5)
    assert reports == ["stopped"] * 3


class TestLimits:
    def test_max_jobs_counts_runs_whatever_their_outcome(self, queue: JobQueue) -> None:
        @job(name="mixed", max_retries=0)
        def mixed(n: int) -> None:
            if n % 2:
                raise ValueError

        queue.push_many([mixed.bind(n) for n in range(10)])
        report = queue.work("default", 4)
        assert (report.done + report.failed, report.runs, report.reason) == (4, 4, "max_jobs")
        assert queue.stats().pending == 6

    def test_with_a_maximum_it_returns_when_nothing_is_due(self, queue: JobQueue) -> None:
        report = queue.work("default", 10)
        assert (report.runs, report.reason) == (0, "empty")

    def test_a_job_that_pushes_jobs_is_followed_to_the_end(self, queue: JobQueue) -> None:
        @job(name="down")
        def down(n: int) -> None:
            if n:
                queue.push(down.bind(n - 1))

        queue.push(down.bind(5))
        report = queue.work("default", 100)
        assert (report.done, report.reason) == (6, "empty")

    @pytest.mark.parametrize("wrong", [-1, 1.5, "3", True])
    def test_a_maximum_that_is_no_count_is_refused(self, queue: JobQueue, wrong: object) -> None:
        with pytest.raises(OptionInvalid, match="max_jobs"):
            queue.work("default", wrong)  # type: ignore[arg-type]  # what an unchecked caller may pass

    def test_beyond_the_memory_limit_it_stops_once_its_jobs_are_done_and_says_why(
        self,
        make_queue: MakeQueue,
        gate: Gate,
        working: Working,
        heard: Callable[..., list[Event]],
        eventually: Eventually,
    ) -> None:
        exceeded = heard("worker.memory_exceeded")
        queue = make_queue(max_memory=1)
        with working(queue) as worker:
            report = worker.join()
        assert report.reason == "memory"
        eventually(lambda: exceeded)
        assert int(str(exceeded[0].get("rss_bytes"))) > 1_000_000

    def test_memory_of_children_counts(self) -> None:
        alone = resident_bytes()
        code = "x = bytearray(60_000_000); print(len(x), flush=True); input()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            grown = resident_bytes()
            child.communicate(b"\n", timeout=10)
        assert grown - alone > 50_000_000


class TestNothingIsLeft:
    def test_no_thread_outlives_work_by_more_than_a_moment(
        self, queue: JobQueue, working: Working, eventually: Eventually
    ) -> None:
        @job(name="plain")
        def plain() -> None: ...

        @job(name="waiting")
        async def waiting() -> None:
            await asyncio.to_thread(time.sleep, 0)

        before = set(threading.enumerate())
        for _ in range(3):
            queue.push_many([plain.bind(), waiting.bind()])
            assert queue.work("default", 10).done == 2
        with working(queue) as worker:
            worker.token.stop()
            worker.join()
        eventually(lambda: not {t for t in set(threading.enumerate()) - before if t.name.startswith("protojobs")})

    def test_calls_with_a_maximum_share_one_worker_which_is_signed_off_when_the_queue_is_closed(self) -> None:
        driver = MemoryDriver()
        with JobQueue(driver, {}) as queue:
            queue.work("default", 1)
            (first,) = driver.workers()
            queue.work("default", 1)
            assert driver.workers() == [first]
        assert driver.workers() == []

    def test_a_worker_that_fails_at_the_start_leaves_nothing_behind(self, make_queue: MakeQueue) -> None:
        store = MemoryDriver()
        before = set(threading.enumerate())
        queue = JobQueue(FlakyDriver(store, 1, only=["register"]), {})  # type: ignore[arg-type]  # any store
        with pytest.raises(StoreUnavailable):
            queue.work("default", 1)
        assert store.workers() == []
        assert set(threading.enumerate()) <= before
        assert queue.work("default", 1).reason == "empty"
