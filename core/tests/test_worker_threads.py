"""What a worker does where the system has no thread for it, and what its own threads keep."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest

from protojobs import JobQueue, events, job
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import StoreUnavailable
from protojobs.port.records import Fence, Heartbeat
from protojobs.testing import ManualClock
from protojobs.worker.lease.lease import WorkerLease
from protojobs.worker.plan import Plan
from protojobs.worker.round_trip import RoundTrip, RoundTripThreads
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


def test_a_courier_that_waits_keeps_nothing_of_what_it_carried(eventually: Eventually) -> None:
    store = MemoryDriver()
    delivered: list[RoundTrip] = []
    courier = RoundTripThreads(store, ["default"], delivered.append)
    exchange = RoundTrip(Plan(), "nobody")
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
