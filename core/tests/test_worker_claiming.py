"""Which jobs a worker runs, in which order, how many at once, and how it learns of new ones."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

import pytest

from protojobs import BoundJob, Job, JobContext, JobQueue, job
from protojobs.errors import OptionInvalid
from protojobs.events import Event
from protojobs.port.records import ClaimReply, Settlement
from protojobs.testing import ManualClock
from protojobs_memory import MemoryDriver

MakeQueue = Callable[..., JobQueue]
Eventually = Callable[[Callable[[], object]], None]
Working = Callable[..., AbstractContextManager[Any]]
ran: list[object] = []


@pytest.fixture(autouse=True)
def note() -> Callable[[object], BoundJob]:
    ran.clear()

    @job(name="note")
    def noting(mark: object) -> None:
        ran.append(mark)

    return lambda mark: noting.bind(mark)


Note = Callable[[object], BoundJob]


def _has_run(times: int) -> bool:
    return len(ran) == times


def _is(queue: JobQueue, job_id: str, state: str) -> bool:
    record = queue.get(job_id)
    return record is not None and record.status == state


class TestOrder:
    def test_oldest_first_within_a_priority_and_higher_priorities_first(self, queue: JobQueue, note: Note) -> None:
        for mark, priority in (("a", 0), ("b", 5), ("c", -5), ("d", 5), ("e", 0), ("f", 100), ("g", -100)):
            queue.push(note(mark).with_priority(priority))
        queue.work("default", 7, concurrency=1)
        assert ran == ["f", "b", "d", "a", "e", "c", "g"]

    def test_queues_in_the_order_in_which_the_worker_names_them(self, queue: JobQueue, note: Note) -> None:
        for mark in ("low", "high", "low", "high"):
            queue.push(note(mark).on_queue(mark))
        queue.work(["high", "low"], 4, concurrency=1)
        assert ran == ["high", "high", "low", "low"]

    def test_only_the_named_queues_and_without_a_name_the_default_one(self, queue: JobQueue, note: Note) -> None:
        queue.push(note("other").on_queue("Default"))
        queue.push(note("default"))
        assert queue.work(None, 5).done == 1
        assert ran == ["default"]

    @pytest.mark.parametrize("names", [[], ["a", "a"], "", ["a", ""], [f"q{n}" for n in range(101)], [["a"]], [3]])
    def test_lists_of_queues_that_make_no_sense_are_refused(self, queue: JobQueue, names: object) -> None:
        with pytest.raises(OptionInvalid):
            queue.work(names, 1)  # type: ignore[arg-type]  # what an unchecked caller may pass
        assert queue.workers() == []

    def test_a_paused_queue_lends_nothing_until_it_is_resumed(
        self, queue: JobQueue, note: Note, heard: Callable[..., list[Event]]
    ) -> None:
        told = heard("queue.paused", "queue.resumed")
        queue.push(note(1))
        assert (queue.pause("default"), queue.pause("default")) == (True, False)
        assert queue.work("default", 1).runs == 0
        assert (queue.resume("default"), queue.resume("default")) == (True, False)
        assert queue.work("default", 1).done == 1
        assert [event.event_name for event in told] == ["queue.paused", "queue.resumed"]


class TestConcurrency:
    @pytest.mark.parametrize("slots", [1, 3])
    def test_no_more_jobs_run_at_once_than_there_are_slots(self, queue: JobQueue, slots: int) -> None:
        lock, now, most = threading.Lock(), 0, 0

        def enter(change: int) -> None:
            nonlocal now, most
            with lock:
                now += change
                most = max(most, now)

        @job(name="plain")
        def plain() -> None:
            enter(1)
            time.sleep(0.003)
            enter(-1)

        @job(name="waiting")
        async def waiting() -> None:
            enter(1)
            await asyncio.sleep(0.003)
            enter(-1)

        queue.push_many([what.bind() for _ in range(15) for what in (plain, waiting)])
        assert queue.work("default", 30, concurrency=slots).done == 30
        assert most == slots

    @pytest.mark.parametrize("slots", [0, -1, 1.5, "2", True, 10_001])
    def test_a_number_of_slots_that_makes_no_sense_is_refused(self, queue: JobQueue, slots: object) -> None:
        with pytest.raises(OptionInvalid, match="concurrency"):
            queue.work("default", 1, concurrency=slots)  # type: ignore[arg-type]  # as above

    def test_settle_sync_stores_each_result_before_its_slot_takes_another_job(self, clock: ManualClock) -> None:
        class Watching(MemoryDriver):
            """Notes how many jobs are processing at each settle."""

            most = 0

            def settle_and_claim(
                self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
            ) -> ClaimReply:
                reply = super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)
                self.most = max(self.most, self.stats().processing)
                return reply

        @job(name="plain")
        def plain() -> None: ...

        found = {}
        for settle in ("sync", "batch"):
            driver = Watching(clock=clock)
            queue = JobQueue(driver, {"settle": settle, "concurrency": 2})
            queue.push_many([plain.bind()] * 200)
            assert queue.work("default", 200).done == 200
            found[settle] = driver.most
        assert found["sync"] <= 2
        assert found["batch"] > 2

    def test_a_thousand_jobs_take_few_round_trips(self, clock: ManualClock, note: Note) -> None:
        class Counting(MemoryDriver):
            trips = 0

            def settle_and_claim(
                self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
            ) -> ClaimReply:
                self.trips += 1
                return super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)

        driver = Counting(clock=clock)
        queue = JobQueue(driver, {"concurrency": 8})
        queue.push_many([note(n) for n in range(1000)])
        assert queue.work("default", 1000).done == 1000
        assert driver.trips < 400


class TestNewJobs:
    def test_a_waiting_worker_hears_of_a_new_job_at_once(self, make_queue: MakeQueue, note: Note, working: Working,
                                                          eventually: Eventually) -> None:  # fmt: skip
        queue = make_queue(poll_interval=60.0)
        with working(queue):
            for mark in range(3):
                time.sleep(0.02)
                pushed_at = time.monotonic()
                queue.push(note(mark))
                eventually(partial(_has_run, mark + 1))
                assert time.monotonic() - pushed_at < 1.0

    def test_without_a_bell_it_finds_jobs_by_polling(self, clock: ManualClock, note: Note, working: Working,
                                                     eventually: Eventually) -> None:  # fmt: skip
        class Deaf(MemoryDriver):
            def wait(self, queues: Sequence[str], timeout: float) -> bool:
                time.sleep(timeout)
                return False

        queue = JobQueue(Deaf(clock=clock), {"poll_interval": 0.02})
        with working(queue):
            time.sleep(0.05)
            queue.push(note(1))
            eventually(lambda: ran)

    def test_an_idle_worker_and_one_whose_maximum_is_nearly_reached_do_not_spin(self, clock: ManualClock) -> None:
        @job(name="slow", timeout=0)
        def slow(seconds: float) -> None:
            time.sleep(seconds)

        queue = JobQueue(MemoryDriver(clock=clock), {"concurrency": 4})
        queue.push_many([slow.bind(0), slow.bind(0), slow.bind(0.4)])
        before = time.thread_time()
        assert queue.work("default", 3).done == 3
        assert time.thread_time() - before < 0.2


class TestCancelling:
    def test_a_running_async_job_is_stopped_and_ends_cancelled(
        self, make_queue: MakeQueue, working: Working, eventually: Eventually, heard: Callable[..., list[Event]]
    ) -> None:
        cancelled = heard("job.cancelled")
        queue, started = make_queue(lease=1.0), threading.Event()

        @job(name="waiting")
        async def waiting() -> None:
            started.set()
            await asyncio.sleep(60)

        job_id = queue.push(waiting.bind())
        with working(queue):
            assert started.wait(5)
            assert queue.cancel(job_id, reason="no longer needed") == "requested"
            eventually(lambda: (record := queue.get(job_id)) is not None and record.status == "cancelled")
            eventually(lambda: cancelled)
        record = queue.get(job_id)
        assert record is not None
        assert record.reason == "no longer needed"

    @pytest.mark.parametrize("is_async", [False, True])
    @pytest.mark.parametrize(
        ("then", "state"), [("returns", "cancelled"), ("raises", "cancelled"), ("never asks", "completed")]
    )
    def test_a_running_job_that_hears_of_it_is_cancelled_and_one_that_does_not_ask_completes(
        self, make_queue: MakeQueue, working: Working, eventually: Eventually, then: str, state: str, is_async: bool,
    ) -> None:  # fmt: skip
        queue, started, was_told = make_queue(lease=1.0), threading.Event(), threading.Event()

        def asks(context: JobContext) -> str:
            started.set()
            while not (was_told.is_set() if then == "never asks" else context.cancelled()):
                time.sleep(0.002)
            if then == "raises":
                raise InterruptedError
            return "as far as I came"

        @job(name="plain")
        def plain(context: JobContext) -> str:
            return asks(context)

        @job(name="async")
        async def on_the_loop(context: JobContext) -> str:
            return asks(context)

        tell = JobContext.request_cancel

        def told(self: JobContext) -> None:
            tell(self)
            was_told.set()

        with pytest.MonkeyPatch.context() as patch, working(queue):
            patch.setattr(JobContext, "request_cancel", told)
            job_id = queue.push((on_the_loop if is_async else plain).bind())  # type: ignore[call-arg]
            assert started.wait(5)
            queue.cancel(job_id)
            eventually(partial(_is, queue, job_id, state))
        assert list(queue.failed_jobs()) == []

    def test_an_async_job_that_catches_its_cancellation_and_returns_is_cancelled(
        self, make_queue: MakeQueue, working: Working, eventually: Eventually
    ) -> None:
        queue, started = make_queue(lease=1.0), threading.Event()

        @job(name="tidies")
        async def tidies() -> str:
            started.set()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            return "tidied up"

        with working(queue):
            job_id = queue.push(tidies.bind())
            assert started.wait(5)
            queue.cancel(job_id)
            eventually(partial(_is, queue, job_id, "cancelled"))

    def test_a_pending_job_is_cancelled_at_once_and_never_runs(self, queue: JobQueue, note: Note) -> None:
        job_id = queue.push(note(1))
        assert [queue.cancel(job_id), queue.cancel(job_id), queue.cancel("0" * 36)] == [
            "cancelled",
            "finished",
            "missing",
        ]
        assert queue.work("default", 1).runs == 0
        assert ran == []


class TestProgress:
    def test_progress_is_stored_with_the_next_heartbeat(
        self, make_queue: MakeQueue, working: Working, eventually: Eventually
    ) -> None:
        queue, may_go = make_queue(lease=1.0), threading.Event()

        class Long(Job):
            name = "long"

            def handle(self, data: object, context: JobContext) -> None:
                for step in range(100):
                    context.progress(step / 200)
                context.progress(0.5)
                may_go.wait(5)

        job_id = queue.push(Long)
        with working(queue):
            eventually(lambda: (record := queue.get(job_id)) is not None and record.progress == 0.5)
            may_go.set()

    @pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
    def test_progress_beyond_its_range_is_the_jobs_mistake(self, queue: JobQueue, share: float) -> None:
        @job(name="wrong", max_retries=0)
        def wrong(context: JobContext) -> None:
            context.progress(share)

        queue.push(wrong.bind())  # type: ignore[call-arg]  # the context comes from the worker
        assert queue.work("default", 1).failed == 1
        (failed,) = queue.failed_jobs()
        assert "It goes from 0 to 1" in failed.exception
