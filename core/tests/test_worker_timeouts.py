"""A run that outlasts its time: it is ended where Python can end it, and where not, the worker says so and ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from protojobs import Job, JobContext, JobQueue, events, job
from protojobs.events import Event
from protojobs.worker.runs import timeouts

MakeQueue = Callable[..., JobQueue]
Eventually = Callable[[Callable[[], object]], None]


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "SWEEP_S", 0.005)
    monkeypatch.setattr(timeouts, "END_S", 0.2)


@pytest.fixture
def queue(make_queue: MakeQueue) -> JobQueue:
    return make_queue(exit_bound=1.0, shutdown_grace=0.2, timeout=0.05, max_retries=0)


def the_failure(queue: JobQueue) -> str:
    (failed,) = queue.failed_jobs()
    return failed.exception


class TestOnesThatNeverBegan:
    def test_an_async_run_that_waits_for_a_loop_that_another_blocks_costs_no_attempt(
        self, queue: JobQueue, heard: Callable[..., list[Event]]
    ) -> None:
        may_go, begun = threading.Event(), list[str]()

        def count(event: Event) -> None:
            begun.append(str(event.get("job_name")))
            if begun.count("waits") == 2:  # it has been taken back once
                may_go.set()

        events.on("job.processing", count)

        @job(name="blocks", timeout=0, priority=9)
        async def blocks() -> None:
            assert may_go.wait(20)

        @job(name="waits")
        async def waits() -> None: ...

        queue.push_many([blocks.bind(), waits.bind()])
        report = queue.work("default", 2)
        assert (report.done, report.failed, report.reason) == (2, 0, "max_jobs")

    def test_an_async_run_that_begins_late_has_its_whole_time(self, make_queue: MakeQueue) -> None:
        queue = make_queue(timeout=0.3, max_retries=0)
        is_blocking = threading.Event()

        @job(name="blocks", timeout=0)
        async def blocks() -> None:
            is_blocking.set()
            time.sleep(0.25)

        @job(name="takes its time")
        async def takes_its_time() -> None:
            await asyncio.sleep(0.2)

        queue.push_many([blocks.bind(), takes_its_time.bind()])
        assert queue.work("default", 2).done == 2


class TestThreads:
    def test_a_plain_job_is_ended_between_two_bytecodes_and_has_failed(self, queue: JobQueue) -> None:
        @job(name="endless")
        def endless() -> None:
            while True:
                time.sleep(0.001)

        queue.push(endless.bind())
        report = queue.work("default", 1)
        assert (report.failed, report.reason) == (1, "max_jobs")
        lines = the_failure(queue).splitlines()
        assert lines[-1] == "protojobs.errors.JobTimeout: the run outlasted its timeout of 0.05 s"
        assert lines[0].startswith("Traceback")
        assert "in endless" in lines[1]  # where it was, without our own frames before it

    def test_two_that_hang_in_different_functions_are_two_groups(self, queue: JobQueue) -> None:
        def waits_for_the_bank() -> None:
            while True:
                time.sleep(0.001)

        def waits_for_the_post() -> None:
            while True:
                time.sleep(0.001)

        @job(name="endless")
        def endless(pays: bool) -> None:
            (waits_for_the_bank if pays else waits_for_the_post)()

        queue.push_many([endless.bind(True), endless.bind(False), endless.bind(True)])
        assert queue.work("default", 3).failed == 3
        failed = {(row.fingerprint, "for_the_bank" in row.exception) for row in queue.failed_jobs()}
        assert len(failed) == 2

    def test_a_job_that_catches_exception_does_not_catch_its_end(self, queue: JobQueue) -> None:
        cleaned_up: list[bool] = []

        @job(name="stubborn")
        def stubborn() -> None:
            try:
                while True:
                    try:
                        time.sleep(0.001)
                    except Exception:
                        pass
            finally:
                cleaned_up.append(True)

        queue.push(stubborn.bind())
        assert queue.work("default", 1).failed == 1
        assert cleaned_up == [True]

    def test_a_job_that_swallows_even_its_end_and_returns_is_completed(self, queue: JobQueue) -> None:
        @job(name="deaf")
        def deaf() -> str:
            try:
                while True:
                    time.sleep(0.001)
            except BaseException:
                return "done all the same"

        queue.push(deaf.bind())
        assert queue.work("default", 1).done == 1

    def test_a_timeout_is_a_failed_attempt_that_is_tried_again_by_the_policy(self, queue: JobQueue) -> None:
        class Slow(Job):
            name = "slow"
            max_retries = 1
            retry_on = (OSError,)  # a timeout is tried again whatever is named here

            def handle(self, data: object) -> None:
                while True:
                    time.sleep(0.001)

        record = queue.get(_run_once(queue, Slow))
        assert record is not None
        assert (record.status, record.attempts) == ("pending", 1)

    def test_the_next_job_never_feels_what_was_aimed_at_its_predecessor(self, queue: JobQueue) -> None:
        """Runs that end about when they are timed out: each is completed or failed, and no thread is poisoned."""

        @job(name="close", timeout=0.01)
        def close() -> None:
            ends = time.monotonic() + 0.0098
            while time.monotonic() < ends:
                pass

        @job(name="quick", timeout=0)
        def quick() -> None:
            sum(range(1000))

        queue.push_many([what.bind() for _ in range(40) for what in (close, quick)])
        report = queue.work("default", 80)
        assert report.done + report.failed == 80
        assert {failed.job_name for failed in queue.failed_jobs()} <= {"close"}

    def test_without_a_timeout_nothing_is_cut(self, queue: JobQueue) -> None:
        @job(name="patient", timeout=0)
        def patient() -> None:
            time.sleep(0.15)

        queue.push(patient.bind())
        assert queue.work("default", 1).done == 1

    def test_a_job_may_ask_how_much_time_it_has(self, queue: JobQueue) -> None:
        left: list[float | None] = []

        @job(name="asks", timeout=30)
        def asks(context: JobContext) -> None:
            left.append(context.deadline_s)

        queue.push(asks.bind())  # type: ignore[call-arg]  # the context comes from the worker
        queue.push(asks.bind().with_timeout(0))  # type: ignore[call-arg]  # as above
        queue.work("default", 2, concurrency=1)
        assert left[0] is not None
        assert 29 < left[0] <= 30
        assert left[1] is None


class TestAsync:
    def test_an_async_job_is_cancelled_and_has_failed(self, queue: JobQueue) -> None:
        cleaned_up: list[bool] = []

        @job(name="endless")
        async def endless() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                cleaned_up.append(True)

        queue.push(endless.bind())
        assert queue.work("default", 1).failed == 1
        lines = the_failure(queue).splitlines()
        assert lines[-1] == "protojobs.errors.JobTimeout: the run outlasted its timeout of 0.05 s"
        assert "in endless" in lines[1]
        assert "await asyncio.sleep(60)" in lines[2]
        assert cleaned_up == [True]

    def test_one_that_swallows_its_cancellation_and_returns_is_completed(self, queue: JobQueue) -> None:
        @job(name="deaf")
        async def deaf() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return

        queue.push(deaf.bind())
        assert queue.work("default", 1).done == 1

    def test_one_that_swallows_every_cancellation_and_goes_on_makes_the_worker_stuck(self, queue: JobQueue) -> None:
        @job(name="deaf")
        async def deaf() -> None:
            for _ in range(100):
                try:
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    continue

        queue.push(deaf.bind())
        assert queue.work("default", 1).reason == "stuck"
        assert "could not be ended" in the_failure(queue)


class TestStuck:
    def test_a_thread_that_cannot_be_ended_is_reported_and_its_retry_waits_for_exit_bound(
        self, queue: JobQueue, eventually: Eventually, heard: Callable[..., list[Event]]
    ) -> None:
        may_go, ended = threading.Event(), threading.Event()
        stopped = heard("worker.stopped")

        @job(name="in-c", max_retries=1, retry_delay=0)
        def in_c() -> None:
            may_go.wait(20)  # one call; what is raised in this thread waits for it
            ended.set()

        job_id = queue.push(in_c.bind())
        began = time.monotonic()
        report = queue.work("default", 5)
        assert report.reason == "stuck"
        assert time.monotonic() - began < 1.5
        assert [event.get("reason") for event in stopped] == ["stuck"]
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts) == ("pending", 1)
        assert (record.available_at - record.created_at).total_seconds() >= 1.0
        assert queue.workers() == []
        may_go.set()
        eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "protojobs-job"])
        assert not ended.is_set()

    def test_its_neighbours_may_not_hold_up_the_end_beyond_exit_bound(self, make_queue: MakeQueue) -> None:
        queue = make_queue(exit_bound=0.6, shutdown_grace=60.0, max_retries=0)
        may_go = threading.Event()

        @job(name="in-c", timeout=0.05)
        def in_c() -> None:
            may_go.wait(20)

        @job(name="long", timeout=0)
        def long() -> None:
            while not may_go.is_set():
                time.sleep(0.002)

        queue.push(in_c.bind())
        other = queue.push(long.bind())
        began = time.monotonic()
        report = queue.work("default", 5)
        took = time.monotonic() - began
        may_go.set()
        assert report.reason == "stuck"
        assert took < 0.05 + 0.2 + 0.6 + 0.4  # the timeout, what it is given to end, exit_bound, and a slow machine
        record = queue.get(other)
        assert record is not None
        assert (record.status, record.attempts) == ("pending", 0)

    def test_while_a_run_is_stuck_none_of_its_own_code_is_asked_anything_in_the_claim_loop(
        self, queue: JobQueue
    ) -> None:
        may_go = threading.Event()
        asked_in: list[str] = []

        class InC(Job):
            name = "in-c"
            max_retries = 5

            def handle(self, data: object) -> None:
                may_go.wait(20)

            def retry_in(self, attempt: int, exception: BaseException) -> float:
                asked_in.append(threading.current_thread().name)
                return 0.0

        queue.push(InC)
        assert queue.work("default", 5).reason == "stuck"
        assert asked_in == []
        may_go.set()


def _run_once(queue: JobQueue, what: type[Job]) -> str:
    job_id = queue.push(what)
    queue.work("default", 1)
    return job_id
