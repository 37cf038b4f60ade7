"""Short jobs lie ready in front of the threads: what may go wrong with one that was handed over and has not begun."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from protojobs import Job, JobQueue, job
from protojobs.events import Event
from protojobs.port.records import ClaimedJob
from protojobs.testing import ManualClock
from protojobs.worker import handover, prefetch
from protojobs.worker.lease import maintenance
from protojobs.worker.plan import Plan
from protojobs.worker.planner import Planner
from protojobs.worker.runs import starting, timeouts
from protojobs.worker.runs.executor import Runnable
from protojobs.worker.runs.threads import ThreadExecutor
from protojobs_memory import MemoryDriver

MakeQueue = Callable[..., JobQueue]
Eventually = Callable[[Callable[[], object]], None]
Working = Callable[..., AbstractContextManager[Any]]
Heard = Callable[..., list[Event]]

KNOWN = 200  # runs after which jobs of the name are known to be short, on the slowest machine too
WAITED_FOR_S = 4.0  # far longer than a run that leads may lie ready, far shorter than these tests may take


class Short:
    """A job that is short, but for the runs that are to hold their thread until they are let go.

    It has an attempt to spare: on their last one jobs are not fetched ahead.
    """

    def __init__(self) -> None:
        self.ran: list[object] = []
        self.held, self.may_go, self.may_answer = threading.Event(), threading.Event(), threading.Event()
        self.may_answer.set()
        self.executors: set[ThreadExecutor] = set()

        @job(name="short", timeout=0, max_retries=1)
        def short(mark: object) -> None:
            self.ran.append(mark)
            if mark == "hold":
                self.hold()

        @job(name="holder", timeout=0, max_retries=1)
        def holder() -> None:
            self.may_answer.clear()  # the results of those before it are on their way
            self.hold()

        @job(name="limited", timeout=0.05, max_retries=1)
        def limited(mark: object) -> None:
            self.ran.append(mark)

        @job(name="endless", timeout=0.05, max_retries=1, retry_delay=60.0)
        def endless() -> None:
            self.held.set()
            while True:
                time.sleep(0.001)

        self.short, self.limited = short, limited
        self.holder, self.endless = holder.bind(), endless.bind()

    def hold(self) -> None:
        self.held.set()
        while not self.may_go.is_set():
            time.sleep(0.001)

    def push_known(self, queue: JobQueue) -> None:
        """So many that the worker knows how short they are, and fetches more of them ahead."""
        queue.push_many([self.short.bind(f"known-{number}") for number in range(KNOWN)])

    def push_behind(self, queue: JobQueue, count: int = 20) -> list[str]:
        return queue.push_many([self.short.bind(f"behind-{number}") for number in range(count)])

    @property
    def ready(self) -> list[Runnable]:
        """What was handed to the threads and has not begun."""
        return [run for executor in self.executors for run in list(executor._handed)]

    @property
    def clocks(self) -> list[Callable[[], float]]:
        """Those that tell what is overdue."""
        return [executor.monotonic for executor in self.executors]

    @property
    def behind(self) -> list[object]:
        """Which of those pushed behind have begun, in order."""
        return [mark for mark in self.ran if str(mark).startswith("behind")]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Short]:
    made, start = Short(), ThreadExecutor.start

    def seen(executor: ThreadExecutor, run: Runnable) -> None:
        made.executors.add(executor)
        start(executor, run)

    monkeypatch.setattr(ThreadExecutor, "start", seen)
    yield made
    made.may_go.set()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies ready is not taken back for its waiting."""
    for module in (handover, starting):
        monkeypatch.setattr(module, "HANDOVER_WAIT_S", 3600.0)


def behind(count: int = 20) -> list[str]:
    return [f"behind-{number}" for number in range(count)]


def states(queue: JobQueue, ids: list[str]) -> set[tuple[str, int, int]]:
    records = [queue.get(job_id) for job_id in ids]
    return {(str(record.status), record.attempts, record.returns) for record in records if record}


class TestBehindASlowRun:
    def test_what_lies_ready_behind_one_that_was_short_until_now_goes_back_unspent_and_others_have_it(
        self, make_queue: MakeQueue, short: Short, working: Working, eventually: Eventually
    ) -> None:
        queue = make_queue(concurrency=1)
        short.push_known(queue)
        queue.push(short.short.bind("hold"))
        ids = short.push_behind(queue)
        with working(queue):
            assert short.held.wait(5)
            held_at = time.monotonic()
            eventually(lambda: states(queue, ids) == {("pending", 0, 0)})
            assert time.monotonic() - held_at < WAITED_FOR_S
            assert queue.work("default", len(ids), concurrency=1).done == len(ids)
            assert sorted(map(str, short.behind)) == sorted(behind())
            short.may_go.set()
            eventually(lambda: queue.stats().completed == KNOWN + 1 + len(ids))
        assert len(short.ran) == KNOWN + 1 + len(ids)

    def test_results_of_the_runs_before_it_are_stored_meanwhile(
        self, make_queue: MakeQueue, short: Short, working: Working, eventually: Eventually, patient: None
    ) -> None:
        queue = make_queue(concurrency=1)
        short.push_known(queue)
        queue.push(short.short.bind("hold"))
        short.push_behind(queue)
        with working(queue):
            assert short.held.wait(5)
            eventually(lambda: queue.stats().completed == KNOWN)
            assert short.ready

    def test_its_neighbours_go_on(
        self, make_queue: MakeQueue, short: Short, working: Working, eventually: Eventually
    ) -> None:
        queue = make_queue(concurrency=2)
        short.push_known(queue)
        queue.push(short.short.bind("hold"))
        short.push_behind(queue, 1_000)
        with working(queue):
            assert short.held.wait(5)
            eventually(lambda: queue.stats().completed == KNOWN + 1_000)
        assert len(short.behind) == 1_000

    def test_a_store_that_holds_up_the_claim_loop_costs_what_lies_ready_no_attempt(
        self,
        clock: ManualClock,
        make_queue: MakeQueue,
        short: Short,
        working: Working,
        eventually: Eventually,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Its timeout passes, and nobody can take it back: it has not begun, so it has not failed, nor is it stuck."""
        monkeypatch.setattr(timeouts, "SWEEP_S", 0.005)
        monkeypatch.setattr(timeouts, "END_S", 0.05)
        monkeypatch.setattr(maintenance, "COMPARE_EVERY_S", 0.0)
        store = Slow(short.may_answer, clock=clock)
        queue = make_queue(store, concurrency=1)
        queue.push_many([short.limited.bind(f"known-{number}") for number in range(KNOWN)])
        queue.push(short.holder)
        ids = queue.push_many([short.limited.bind(name) for name in behind()])
        with working(queue) as found:
            assert short.held.wait(5)
            eventually(lambda: "did not end within" in caplog.text)
            # All of them: one that was handed over later may still begin, before those that come back.
            eventually(lambda: all(run.begins_by < now() for run in short.ready for now in short.clocks))
            assert short.ready
            short.may_go.set()
            eventually(lambda: not short.ready)  # else the loop gives the first ones back, and begins the others
            short.may_answer.set()
            eventually(lambda: states(queue, ids) == {("completed", 1, 0)})
            assert found.report is None
        assert (found.report.failed, found.report.reason) == (0, "stopped")
        assert short.behind == behind()


class Slow(MemoryDriver):
    """Does not say what a worker holds while it may not answer; a claim loop asks that, and waits."""

    def __init__(self, may_answer: threading.Event, *, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.may_answer = may_answer

    def held(self, worker: str) -> list[ClaimedJob]:
        assert self.may_answer.wait(10)
        return super().held(worker)


class TestLyingReady:
    @pytest.fixture(autouse=True)
    def _patient(self, patient: None) -> None: ...

    def test_a_stop_gives_it_back_and_it_never_runs_here(
        self, make_queue: MakeQueue, short: Short, working: Working, eventually: Eventually
    ) -> None:
        queue = make_queue(concurrency=1)
        short.push_known(queue)
        queue.push(short.short.bind("hold"))
        ids = short.push_behind(queue)
        with working(queue) as found:
            assert short.held.wait(5)
            eventually(lambda: len(short.ready) == len(ids))
            found.token.stop()
            eventually(lambda: states(queue, ids) == {("pending", 0, 0)})
            short.may_go.set()
            report = found.join()
        assert (report.runs, report.done, report.reason) == (KNOWN + 1, KNOWN + 1, "stopped")
        assert short.behind == []

    def test_a_second_stop_does_so_too(
        self, make_queue: MakeQueue, short: Short, working: Working, eventually: Eventually
    ) -> None:
        queue = make_queue(concurrency=1)
        short.push_known(queue)
        queue.push(short.short.bind("hold"))
        ids = short.push_behind(queue)
        with working(queue) as found:
            assert short.held.wait(5)
            eventually(lambda: len(short.ready) == len(ids))
            found.token.stop()
            found.token.stop()
            assert found.join().reason == "stopped"
        assert states(queue, ids) == {("pending", 0, 0)}
        assert short.behind == []

    def test_what_a_person_cancels_does_not_run(
        self, make_queue: MakeQueue, short: Short, working: Working, eventually: Eventually, heard: Heard
    ) -> None:
        cancelled = heard("job.cancelled")
        queue = make_queue(concurrency=1, lease=1.0)
        short.push_known(queue)
        queue.push(short.short.bind("hold"))
        ids = short.push_behind(queue)
        with working(queue):
            assert short.held.wait(5)
            eventually(lambda: len(short.ready) == len(ids))
            queue.cancel(ids[7])
            eventually(lambda: [event.get("job_id") for event in cancelled] == [ids[7]])
            short.may_go.set()
            eventually(lambda: queue.stats().completed == KNOWN + len(ids))
        assert sorted(map(str, short.behind)) == sorted({*behind()} - {"behind-7"})

    def test_under_a_lost_lease_it_is_dropped(
        self, make_queue: MakeQueue, short: Short, working: Working, eventually: Eventually
    ) -> None:
        """Others have it by then; here it would run a second time."""
        queue = make_queue(concurrency=1, lease=1.0)
        short.push_known(queue)
        queue.push(short.short.bind("hold"))
        ids = short.push_behind(queue)
        with working(queue):
            assert short.held.wait(5)
            eventually(lambda: len(short.ready) == len(ids))
            (lost,) = queue.workers()
            queue.driver.leave(lost.id)  # its row is gone; its next call tells it so
            eventually(lambda: {found.id for found in queue.workers()} - {lost.id})
            eventually(lambda: not short.ready)
            queue.driver.reclaim(1_000)
            assert states(queue, ids) == {("pending", 0, 1)}
            short.may_go.set()
            eventually(lambda: queue.stats().completed == KNOWN + 1 + len(ids))
        assert sorted(map(str, short.behind)) == sorted(behind())

    @pytest.mark.parametrize("kind", ["timeout", "exit"])
    def test_it_runs_though_the_only_thread_is_lost_to_the_run_before(
        self,
        make_queue: MakeQueue,
        short: Short,
        working: Working,
        eventually: Eventually,
        monkeypatch: pytest.MonkeyPatch,
        kind: str,
    ) -> None:
        monkeypatch.setattr(timeouts, "SWEEP_S", 0.005)

        @job(name="exits", timeout=0, max_retries=1, retry_delay=60.0)
        def exits() -> None:
            short.hold()
            raise SystemExit(3)

        queue = make_queue(concurrency=1)
        short.push_known(queue)
        lost = queue.push(exits.bind() if kind == "exit" else short.endless)
        ids = short.push_behind(queue)
        with working(queue, None, KNOWN + 1 + len(ids)) as found:
            assert short.held.wait(5)
            assert short.ready
            short.may_go.set()
            report = found.join()
        assert (report.done, report.runs, report.reason) == (KNOWN + len(ids), KNOWN + len(ids) + 1, "max_jobs")
        assert states(queue, [lost]) == {("pending", 1, 0)}
        assert short.behind == behind()


class TestHowMuch:
    @pytest.mark.parametrize("slots", [1, 4])
    def test_exactly_as_many_runs_as_asked_for(self, make_queue: MakeQueue, short: Short, slots: int) -> None:
        queue = make_queue(concurrency=slots)
        short.push_known(queue)
        short.push_behind(queue, 300)
        report = queue.work("default", KNOWN + 77)
        assert (report.runs, report.done, report.reason) == (KNOWN + 77, KNOWN + 77, "max_jobs")
        assert len(short.ran) == queue.stats().completed == KNOWN + 77
        assert queue.work("default", 1_000).done == 300 - 77
        assert len(short.ran) == KNOWN + 300

    def test_with_one_slot_they_begin_in_their_order(self, make_queue: MakeQueue, short: Short) -> None:
        queue = make_queue(concurrency=1)
        short.push_known(queue)
        short.push_behind(queue, 500)
        assert queue.work("default", KNOWN + 500).done == KNOWN + 500
        assert short.behind == behind(500)

    def test_none_begins_while_runs_without_a_thread_have_all_slots(
        self,
        make_queue: MakeQueue,
        short: Short,
        working: Working,
        eventually: Eventually,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The threads are idle then, and would begin what leads: more at once than there are slots."""
        monkeypatch.setattr("protojobs.worker.plan.PREFETCH_WAIT_S", 0.1)
        started: list[object] = []

        @job(name="waiting", timeout=0, max_retries=1)
        async def waiting() -> None:
            started.append(None)
            while not short.may_go.is_set():
                await asyncio.sleep(0.001)

        queue = make_queue(concurrency=2)
        short.push_known(queue)
        queue.push_many([waiting.bind()] * 2)
        ids = short.push_behind(queue)
        with working(queue):
            eventually(lambda: len(started) == 2)
            eventually(lambda: states(queue, ids) == {("pending", 0, 0)} or short.behind)
            assert short.behind == []

    def test_one_after_the_other_where_each_result_is_stored_first(
        self, make_queue: MakeQueue, short: Short, working: Working
    ) -> None:
        queue = make_queue(concurrency=1, settle="sync")
        short.push_known(queue)
        queue.push(short.short.bind("hold"))
        short.push_behind(queue)
        with working(queue):
            assert short.held.wait(5)
            assert queue.stats().processing == 1
            assert short.ready == []

    def test_failed_is_called_amid_a_flood_of_short_jobs(self, make_queue: MakeQueue, short: Short) -> None:
        class Failing(Job):
            name = "failing"
            max_retries, retry_on = 1, (KeyError,)  # given up at once, and yet not lent to free slots only

            def handle(self, data: object) -> None:
                raise ValueError

            def failed(self, exception: BaseException, data: object) -> None:
                short.ran.append("failed")

        queue = make_queue(concurrency=1)
        short.push_known(queue)
        queue.push(Failing)
        short.push_behind(queue, 5_000)
        queue.work("default", KNOWN + 5_001)
        assert "failed" in short.ran[:-1_000]
        assert len(short.ran) == KNOWN + 5_001


def test_a_job_on_its_last_attempt_runs_amid_a_flood_of_short_ones(
    make_queue: MakeQueue, short: Short, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is lent to a free slot only, and with two batches under way none is free by itself."""
    monkeypatch.setattr(prefetch, "LAST_TRY_S", 0.02)

    @job(name="last", max_retries=0)
    def last() -> None:
        short.ran.append("last")

    queue = make_queue(concurrency=1)
    short.push_known(queue)
    queue.push(last.bind())
    short.push_behind(queue, 20_000)
    queue.work("default", KNOWN + 20_001)
    assert "last" in short.ran[:-5_000]


def test_failed_has_a_thread_beside_one_that_cannot_be_ended(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "SWEEP_S", 0.005)
    monkeypatch.setattr(timeouts, "END_S", 0.1)
    may_end, called = threading.Event(), threading.Event()

    class Deaf(Job):
        name = "deaf"
        max_retries = 0
        timeout = 0.05

        def handle(self, data: object) -> None:
            may_end.wait(10)  # one call in C

        def failed(self, exception: BaseException, data: object) -> None:
            called.set()

    queue = make_queue(concurrency=1, exit_bound=1.0)
    queue.push(Deaf)
    try:
        assert queue.work("default", 1).reason == "stuck"
        assert called.is_set()
    finally:
        may_end.set()


class TestOnTheEventLoop:
    def test_short_async_jobs_lie_ready_too_so_that_the_claim_loop_is_not_woken_for_each(
        self, make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        turns, plan = list[float](), Planner.plan

        def counted(planner: Planner, now: float) -> Plan:
            turns.append(now)
            return plan(planner, now)

        @job(name="short-async", max_retries=1)
        async def short_async() -> None: ...

        monkeypatch.setattr(Planner, "plan", counted)
        queue = make_queue(concurrency=2)
        queue.push_many([short_async.bind() for _ in range(2_000)])
        assert queue.work(max_jobs=2_000).done == 2_000
        assert len(turns) < 1_000  # and some 2,000 if each run's end woke it

    def test_no_more_of_them_are_at_work_at_once_than_there_are_slots(self, make_queue: MakeQueue) -> None:
        at_work, most = 0, list[int]()

        @job(name="short-async", max_retries=1)
        async def short_async() -> None:
            nonlocal at_work
            at_work += 1
            most.append(at_work)
            await asyncio.sleep(0)
            at_work -= 1

        queue = make_queue(concurrency=3)
        queue.push_many([short_async.bind() for _ in range(1_000)])
        assert queue.work(max_jobs=1_000).done == 1_000
        assert max(most) <= 3
