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
from protojobs.errors import OptionInvalid, StoreUnavailable
from protojobs.events import Event
from protojobs.port.lifecycle import RETURNS_FREE
from protojobs.testing import FlakyDriver, ManualClock
from protojobs.worker import memory
from protojobs.worker.launch import work
from protojobs.worker.memory import resident_bytes
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


class Taken:
    """What the worker's process seems to take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        self.is_seen = threading.Event()  # that it is more than nothing
        monkeypatch.setattr("protojobs.worker.lease.maintenance.resident_bytes", self.look)
        monkeypatch.setattr("protojobs.worker.lease.maintenance.MEMORY_EVERY_S", 0.0)

    def look(self) -> int:
        if found := self.bytes:
            self.is_seen.set()
        return found


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
    assert sum(record.returns for record in records) <= 4  # of those that had begun, one in each slot


def test_a_job_cut_by_every_stop_is_never_failed_for_it_but_comes_later(
    make_queue: MakeQueue, gate: Gate, working: Working, clock: ManualClock
) -> None:
    queue = make_queue(shutdown_grace=0.0)
    job_id = queue.push(gate.plain)
    for turn in range(RETURNS_FREE + 3):
        gate.started.clear()
        with working(queue) as worker:
            assert gate.started.wait(5)
            worker.token.stop()
            worker.join()
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts) == ("pending", 0)
        assert record.returns == min(turn + 1, RETURNS_FREE)
        assert (record.available_at > clock.now()) == (turn >= RETURNS_FREE)
        clock.advance(300.0)
    gate.may_go.set()
    assert queue.work("default", 1).done == 1


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

    @pytest.mark.parametrize("wrong", [-1, 0, 1.5, "3", True])
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

    @pytest.mark.parametrize("kind", ["plain", "waiting"])
    def test_beyond_the_memory_limit_what_runs_has_its_time_however_short_the_grace(
        self, make_queue: MakeQueue, gate: Gate, working: Working, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        taken = Taken(monkeypatch)
        queue = make_queue(max_memory=1_000, shutdown_grace=0.01, exit_bound=0.01)
        queue.push(getattr(gate, kind))
        with working(queue) as worker:
            assert gate.started.wait(5)
            taken.bytes = 2_000
            taken.is_seen.wait(5)
            later = queue.push(gate.plain)
            assert not worker.has_ended_within(0.2)  # twenty graces
            gate.may_go.set()
            report = worker.join()
        assert (report.done, report.runs, report.reason) == (1, 1, "memory")
        record = queue.get(later)
        assert record is not None
        assert (record.status, record.returns) == ("pending", 0)

    def test_after_max_time_what_runs_has_its_time_however_short_the_grace(
        self, make_queue: MakeQueue, gate: Gate
    ) -> None:
        queue = make_queue(shutdown_grace=0.01, exit_bound=0.01)
        queue.push(gate.plain)
        threading.Timer(0.5, gate.may_go.set).start()
        report = work(queue.runtime, max_time_s=0.1)
        assert (report.done, report.runs, report.reason) == (1, 1, "max_time")

    def test_a_stop_bounds_a_worker_that_ends_once_its_jobs_are_done(
        self, make_queue: MakeQueue, gate: Gate, working: Working, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken = Taken(monkeypatch)
        queue = make_queue(max_memory=1_000, shutdown_grace=0.05)
        job_id = queue.push(gate.plain)
        with working(queue) as worker:
            assert gate.started.wait(5)
            taken.bytes = 2_000
            taken.is_seen.wait(5)
            worker.token.stop()
            report = worker.join()
        assert (report.done, report.reason) == (0, "memory")
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts, record.returns) == ("pending", 0, 1)

    def test_a_limit_below_what_the_worker_takes_without_a_job_lets_it_claim_nothing_and_is_said(
        self, make_queue: MakeQueue, gate: Gate, caplog: pytest.LogCaptureFixture
    ) -> None:
        queue = make_queue(max_memory=1 << 20)
        job_id = queue.push(gate.plain)
        for _ in range(25):
            assert queue.work("default").reason == "memory"
        record = queue.get(job_id)
        assert record is not None
        assert (record.claim_seq, record.attempts, record.returns) == (0, 0, 0)
        assert "before it has run any job" in caplog.text

    def test_a_look_at_memory_that_fails_ends_nothing_and_is_said_once(
        self, make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        looks: list[int] = []

        def gone() -> int:
            looks.append(1)
            raise FileNotFoundError("/proc/21958/task")

        monkeypatch.setattr("protojobs.worker.lease.maintenance.resident_bytes", gone)
        monkeypatch.setattr("protojobs.worker.lease.maintenance.MEMORY_EVERY_S", 0.0)

        @job(name="quick")
        def quick() -> None: ...

        queue = make_queue(max_memory=1_000)
        queue.push_many([quick.bind()] * 3)
        assert queue.work("default", 3).done == 3
        assert len(looks) > 1
        assert caplog.text.count("memory cannot be measured") == 1

    @pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
    def test_a_process_that_is_gone_by_the_next_step_of_the_look_has_no_memory_and_no_children(self) -> None:
        gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        pid = int(gone.stdout)
        assert (list(memory._linux_children(pid)), memory._linux_resident(pid)) == ([], 0)

    def test_where_ps_lists_the_processes_children_and_theirs_count(self) -> None:
        listed = "    1     0  100\n   70     1   20\n   71    70    3\n   72    71    4\n   80     1  500\n"
        assert memory._listed_resident(70, listed) == 27 * 1024

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

        queue.push(waiting.bind())
        assert queue.work("default", 1).done == 1  # the loop of async jobs is the process's, and stays
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
