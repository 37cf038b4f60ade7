"""The end of a worker that does not end as planned: left by an exception, or beside a run that cannot be ended."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from protojobs import JobQueue, StopToken, events, job
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import ConfigurationError, StoreUnavailable
from protojobs.hooks import Dispatcher
from protojobs.port.records import ClaimReply, Heartbeat, Settlement, WorkerInfo
from protojobs.worker.launch import work
from protojobs_memory import MemoryDriver

MakeQueue = Callable[..., JobQueue]
Working = Callable[..., AbstractContextManager[Any]]
Eventually = Callable[[Callable[[], object]], None]


class Fault(Exception):
    pass


class Failing(MemoryDriver):
    """Once it is told to, the next claim fails as no driver should."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        if self.fails:
            self.fails = False
            raise Fault
        return super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)


class Runs:
    """Jobs that tell that they run; the deaf one cannot be ended from outside."""

    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()
        self.is_over = threading.Event()

        @job(name="long", timeout=0)
        def long() -> None:
            self.began.set()
            try:
                while not self.may_end.is_set():
                    time.sleep(0.001)
            finally:
                self.is_over.set()

        @job(name="deaf", timeout=0)
        def deaf() -> None:
            self.began.set()
            self.may_end.wait()  # one long call in C
            self.is_over.set()

        @job(name="late", timeout=0.05, max_retries=9)
        def late() -> None:
            self.began.set()
            self.may_end.wait()

        self.long, self.deaf, self.late = long.bind(), deaf.bind(), late.bind()


@pytest.fixture
def runs() -> Iterator[Runs]:
    made = Runs()
    yield made
    made.may_end.set()


def fail_when(began: threading.Event, store: Failing) -> None:
    def wait() -> None:
        began.wait(10)
        store.fails = True

    threading.Thread(target=wait, daemon=True).start()


class TestLeftByAnException:
    def test_its_runs_are_cut_and_given_back_before_it_is_left(self, make_queue: MakeQueue, runs: Runs) -> None:
        store = Failing()
        queue = make_queue(store)
        job_id = queue.push(runs.long)
        fail_when(runs.began, store)
        with pytest.raises(Fault):
            queue.work("default")
        assert runs.is_over.is_set()
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts, record.returns, record.reclaims) == ("pending", 0, 1, 0)
        assert queue.workers() == []

    def test_while_a_run_goes_on_its_lease_stands(
        self, make_queue: MakeQueue, runs: Runs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("protojobs.worker.loop.END_S", 0.1)
        store = Failing()
        queue = make_queue(store)
        job_id = queue.push(runs.deaf)
        fail_when(runs.began, store)
        with pytest.raises(Fault):
            queue.work("default")
        assert not runs.is_over.is_set()
        (row,) = queue.workers()
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.reserved_by) == ("processing", row.id)


class TestStuck:
    """A run cannot be ended, so its process must; by when is said, and nothing waits beyond that."""

    def test_observers_who_hang_are_not_waited_for_beyond_that(
        self, make_queue: MakeQueue, runs: Runs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waited: list[float] = []
        monkeypatch.setattr("protojobs.worker.runs.timeouts.END_S", 0.1)
        monkeypatch.setattr(Dispatcher, "close", lambda _self, timeout: waited.append(timeout))
        queue = make_queue(exit_bound=0.4)
        queue.push(runs.late)
        assert work(queue.runtime).reason == "stuck"
        assert len(waited) == 1
        assert waited[0] <= 0.4

    def test_one_who_hangs_with_a_full_backlog_is_given_the_time_once(self, queue: JobQueue) -> None:
        hangs, may_end = threading.Event(), threading.Event()

        @events.on("worker.stopped")
        def listen(_event: object) -> None:
            hangs.set()
            may_end.wait(10)

        dispatcher = Dispatcher(queue.hooks)
        event = events.WorkerStopped(worker="w", reason="stuck", done=0, failed=0)
        dispatcher.send(event)
        assert hangs.wait(5)
        while not dispatcher.dropped:
            dispatcher.send(event)
        joined: list[float | None] = []
        thread = dispatcher._thread
        assert thread is not None
        thread.join = joined.append  # type: ignore[method-assign,assignment]
        closing = threading.Thread(target=dispatcher.close, args=(5.0,))
        closing.start()
        time.sleep(0.2)  # it waits for room in the backlog
        may_end.set()
        closing.join(10)
        assert joined
        assert joined[0] is not None
        assert joined[0] < 4.9

    @pytest.mark.parametrize("is_away", [False, True])
    def test_by_when_the_process_must_be_gone_is_told_whatever_holds_the_claim_loop_up(
        self, make_queue: MakeQueue, runs: Runs, monkeypatch: pytest.MonkeyPatch, eventually: Eventually, is_away: bool
    ) -> None:
        monkeypatch.setattr("protojobs.worker.runs.timeouts.END_S", 0.1)
        is_held, may_answer = threading.Event(), threading.Event()

        class HeldUp(MemoryDriver):
            def settle_and_claim(
                self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
            ) -> ClaimReply:
                if is_away and runs.began.is_set() and not may_answer.is_set():
                    is_held.set()
                    may_answer.wait(10)
                    raise StoreUnavailable("no answer")
                return super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)

        told: list[float] = []
        queue = make_queue(HeldUp(), exit_bound=5.0)
        queue.push(runs.late)
        stop = StopToken()
        worker = threading.Thread(target=lambda: work(queue.runtime, stop=stop, must_end_by=told.append), daemon=True)
        worker.start()
        eventually(lambda: told)
        assert SYSTEM_CLOCK.monotonic() < told[0] <= SYSTEM_CLOCK.monotonic() + 5.0
        assert is_held.is_set() or not is_away
        runs.may_end.set()
        eventually(lambda: len(told) == 2)
        assert told[1] == math.inf  # it has ended after all
        may_answer.set()
        stop.stop()
        worker.join(10)
        assert not worker.is_alive()

    def test_of_an_exclusive_run_it_is_before_the_lease_can_end(
        self, make_queue: MakeQueue, runs: Runs, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
    ) -> None:
        class Away(MemoryDriver):
            def heartbeat(self, *_args: object, **_named: object) -> Heartbeat:
                raise StoreUnavailable("no route to host")

        @job(name="books", exclusive=True, timeout=0)
        def books() -> None:
            runs.began.set()
            runs.may_end.wait()

        told: list[float] = []
        queue = make_queue(Away(), lease=3.0, exit_bound=60.0)
        queue.push(books.bind())
        began = SYSTEM_CLOCK.monotonic()
        stop = StopToken()
        worker = threading.Thread(target=lambda: work(queue.runtime, stop=stop, must_end_by=told.append), daemon=True)
        worker.start()
        ends = time.monotonic() + 20
        while not told and time.monotonic() < ends:
            time.sleep(0.01)
        assert told[0] <= max(began + 3.0 + 1.0, SYSTEM_CLOCK.monotonic() + 0.2)  # it registers within the second
        worker.join(20)
        assert not worker.is_alive()


class TestHardExit:
    PROGRAM = """
import sys, threading, time
from protojobs.cli.supervising.hard_exit import HardExit
hard = HardExit()
now = time.monotonic()
for moment in sys.argv[2].split(","):
    hard.at(now + float(moment))
print("set", flush=True)
held = threading.Lock()
held.acquire()
held.acquire(timeout=float(sys.argv[1]))
"""

    def end(self, waits_s: float, *moments: float) -> int:
        command = [sys.executable, "-c", self.PROGRAM, str(waits_s), ",".join(map(str, moments))]
        return subprocess.run(command, timeout=60, stdout=subprocess.DEVNULL, check=False).returncode

    def test_the_process_is_gone_whatever_it_waits_for(self) -> None:
        assert self.end(50.0, 100.0, 0.1) == 1

    def test_a_moment_may_be_taken_back(self) -> None:
        assert self.end(1.0, 0.8, math.inf) == 0


def test_a_worker_that_may_not_register_anew_when_it_has_lost_its_lease_stays_and_tries_again(
    make_queue: MakeQueue, runs: Runs, working: Working, eventually: Eventually
) -> None:
    class Forbidding(MemoryDriver):
        registered = 0

        def register(self, worker: WorkerInfo) -> None:
            self.registered += 1
            if self.registered == 2:
                raise ConfigurationError("the password was changed.", mend="Change it back.")
            super().register(worker)

    store = Forbidding()
    queue = make_queue(store)
    with working(queue) as worker:
        eventually(queue.workers)
        store.leave(queue.workers()[0].id)
        eventually(lambda: store.registered > 2)
        assert worker.thread.is_alive()
        queue.push(runs.long)
        eventually(runs.began.is_set)
        runs.may_end.set()
