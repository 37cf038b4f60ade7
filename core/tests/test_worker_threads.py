"""What a worker does where the system has no thread for it, and what its own threads keep."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from protojobs import JobQueue, StopToken, events, job
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import StoreUnavailable
from protojobs.port.records import ClaimReply, Fence, Heartbeat, Settlement
from protojobs.testing import ManualClock
from protojobs.worker.lease.lease import WorkerLease
from protojobs.worker.plan import Plan
from protojobs.worker.round_trip import RoundTrip, RoundTripThreads
from protojobs.worker.runs.jobs_loop import stop_jobs_loop
from protojobs_memory import MemoryDriver

MakeQueue = Callable[..., JobQueue]
Eventually = Callable[[Callable[[], object]], None]
Working = Callable[..., AbstractContextManager[Any]]


class NoThreads:
    """The system has no thread for those of a name, as beyond a limit of processes, until there are again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.refused, self.there_are = 0, False
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name == name and not self.there_are:
                self.refused += 1
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.parametrize("name", ["protojobs-job", "protojobs-loop", "protojobs-timeouts"])
def test_a_run_that_needs_one_goes_back_and_the_worker_stays(
    queue: JobQueue,
    working: Working,
    eventually: Eventually,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    @job(name="plain", timeout=60)
    def plain() -> None: ...

    @job(name="waiting", timeout=60)
    async def waiting() -> None: ...

    stop_jobs_loop()  # that an earlier test has left
    threads = NoThreads(monkeypatch, name)
    job_id = queue.push(waiting.bind() if name == "protojobs-loop" else plain.bind())

    def state() -> tuple[str, int, int, str]:
        record = queue.get(job_id)
        assert record is not None
        return record.status, record.attempts, record.returns, record.reason

    with working(queue) as worker:
        eventually(lambda: state() == ("pending", 0, 0, "no thread could be started"))
        assert worker.thread.is_alive()
        threads.there_are = True
        clock.advance(5.0)
        eventually(lambda: state()[0] == "completed")


@pytest.mark.parametrize("name", ["protojobs-store", "protojobs-wakeup", "protojobs-observers"])
def test_one_beside_the_runs_is_done_without(
    make_queue: MakeQueue, working: Working, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    @job(name="quick")
    def quick() -> None:
        time.sleep(0.002)

    threads = NoThreads(monkeypatch, name)
    events.on("job.processed", lambda _event: None)
    queue = make_queue(concurrency=1)
    queue.push_many([quick.bind()] * 60)
    with working(queue):
        eventually(lambda: queue.stats().completed == 60)
        eventually(lambda: threads.refused)
        queue.push(quick.bind())
        eventually(lambda: queue.stats().completed == 61)


class Claims(MemoryDriver):
    """Notes in which thread a claim found jobs, and whether somebody listens."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []
        self.mistake: Exception | None = None
        self.listening = False

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        self.listening = True
        try:
            return super().wait(queues, timeout)
        finally:
            self.listening = False

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        thread = threading.current_thread().name
        if self.mistake is not None and thread == "protojobs-wakeup":
            raise self.mistake
        reply = super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)
        self.threads += [thread] * len(reply.claimed)
        return reply


def test_a_job_for_an_idle_worker_is_claimed_by_the_thread_that_hears_of_it(eventually: Eventually) -> None:
    ran: list[str] = []

    @job(name="here")
    def here() -> None:
        ran.append(threading.current_thread().name)

    driver, stop = Claims(), StopToken()
    queue = JobQueue(driver, {"poll_interval": 60.0})
    worker = threading.Thread(target=lambda: queue.work(stop=stop), name="test-worker", daemon=True)
    worker.start()

    def is_claimed_there() -> bool:
        """Of one more job: the loop itself claims it where it is not back at its inbox yet."""
        count = len(ran)
        eventually(lambda: driver.listening)
        queue.push(here)
        eventually(lambda: queue.stats().completed > count)
        return driver.threads[-1] == "protojobs-wakeup"

    eventually(is_claimed_there)
    stop.stop()
    worker.join(10)
    assert set(ran) == {"protojobs-job"}


def test_what_breaks_in_that_thread_ends_the_worker_as_in_its_own(eventually: Eventually) -> None:
    @job(name="here")
    def here() -> None: ...

    driver, raised = Claims(), list[Exception]()
    queue = JobQueue(driver, {"poll_interval": 60.0})

    def work() -> None:
        try:
            queue.work()
        except ZeroDivisionError as error:
            raised.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    eventually(lambda: driver.listening)
    driver.mistake = ZeroDivisionError("a driver's mistake")

    def is_over() -> bool:
        queue.push(here)  # one more: the loop itself claims it where it is not back at its inbox yet
        return raised == [driver.mistake]

    eventually(is_over)
    worker.join(10)


def test_a_courier_that_waits_keeps_nothing_of_what_it_carried(eventually: Eventually) -> None:
    store = MemoryDriver()
    delivered: list[RoundTrip] = []
    courier = RoundTripThreads(store, delivered.append)
    exchange = RoundTrip(Plan(), "nobody", ["default"])
    kept = weakref.ref(exchange)
    courier.send(exchange)
    eventually(lambda: delivered)
    delivered.clear()
    del exchange
    eventually(lambda: kept() is None)
    courier.close()


def test_progress_that_a_heartbeat_could_not_bring_goes_with_the_next_unless_there_is_newer(
    eventually: Eventually,
) -> None:
    brought: list[dict[str, float]] = []

    class Hiccups(MemoryDriver):
        def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
            brought.append({fence.id: share for fence, share in progress.items()})
            if len(brought) == 1:
                lease.report(newer, 0.8)  # while the call is on its way
                raise StoreUnavailable("no answer")
            return super().heartbeat(worker, {})

    lease = WorkerLease(Hiccups(), ["default"], concurrency=1, lease_s=0.3, clock=SYSTEM_CLOCK)
    older, newer = (Fence(id=name, claim_seq=1, reserved_by=lease.info.id) for name in ("older", "newer"))
    lease.report(older, 0.5)
    lease.report(newer, 0.5)
    lease.renew_identity()
    lease.start(lambda _beat: None)
    eventually(lambda: len(brought) >= 2)
    lease.stop()
    assert brought[:2] == [{"older": 0.5, "newer": 0.5}, {"older": 0.5, "newer": 0.8}]
