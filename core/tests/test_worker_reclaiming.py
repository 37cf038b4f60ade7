"""A reclaim that an outage held up must not take the jobs of the living, who could not beat meanwhile either."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import pytest

from protojobs import JobQueue, StopToken, job
from protojobs.entropy import fresh_id
from protojobs.port.records import Reclaimed, WorkerInfo
from protojobs.worker.launch import work
from protojobs.worker.planner import Planner
from protojobs_memory import MemoryDriver

Eventually = Callable[[Callable[[], object]], None]
Working = Callable[..., AbstractContextManager[Any]]
LEASE_S = 1.0


class HeldUp(MemoryDriver):
    """Its first reclaim is executed when an outage of three leases is over, just before the other worker beats."""

    def __init__(self) -> None:
        super().__init__()
        self.is_on_its_way, self.is_back = threading.Event(), threading.Event()
        self.first: Reclaimed | None = None
        self.other = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("default",), concurrency=1, lease_s=LEASE_S)

    def reclaim(self, limit: int, *, until: datetime | None = None) -> Reclaimed:
        if self.first is not None:
            return super().reclaim(limit, until=until)
        self.is_on_its_way.set()
        self.is_back.wait(10)
        with self.state.lock:
            self.time_offset += 3 * LEASE_S
            self.first = super().reclaim(limit, until=until)
            self.heartbeat(self.other.id, {})  # its lease has lapsed long ago, and stands
        return self.first


def test_the_jobs_of_a_living_worker_stay_with_it(working: Working, eventually: Eventually) -> None:
    @job(name="step")
    def step() -> None: ...

    store = HeldUp()
    queue = JobQueue(store, {"poll_interval": 0.02, "lease": LEASE_S})
    job_id = queue.push(step.bind())
    store.register(store.other)
    assert len(store.claim(store.other.id, ["default"], slots=1, limit=1)) == 1
    with working(queue):
        assert store.is_on_its_way.wait(10)
        store.is_back.set()
        eventually(lambda: store.first)
    assert store.first == Reclaimed(has_more=True)
    assert [claim.id for claim in store.held(store.other.id)] == [job_id]


class TestOneThatEndsSoon:
    """A worker may reclaim once it is half a lease old. One with nothing to do stays as long for a dead one's jobs."""

    def dead(self, store: MemoryDriver, queue: str = "default", *, leaves: bool = False) -> WorkerInfo:
        """It holds all that is due; its lease has ended, by the store's time alone."""
        info = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=(queue,), concurrency=9, lease_s=LEASE_S)
        store.register(info)
        assert store.claim(info.id, [queue], slots=9, limit=9)
        if leaves:
            store.leave(info.id)
        else:
            store.time_offset += 2 * LEASE_S
        return info

    @pytest.mark.parametrize("leaves", [False, True])
    def test_takes_them_back_and_runs_them(self, leaves: bool, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "protojobs.worker")
        store = MemoryDriver()
        queue = JobQueue(store, {"poll_interval": 0.02, "lease": LEASE_S})

        @job(name="step")
        def step() -> None: ...

        queue.push_many([step.bind()] * 3)
        info = self.dead(store, leaves=leaves)
        assert queue.work("default", 5).done == 3
        assert f"worker {info.id} died and holds jobs" in caplog.text

    def test_takes_them_back_when_its_time_is_over(self) -> None:
        store = MemoryDriver()
        queue = JobQueue(store, {"poll_interval": 0.02, "lease": LEASE_S})

        @job(name="step")
        def step() -> None: ...

        job_id = queue.push(step.bind())
        self.dead(store)
        assert work(queue.runtime, max_time_s=0.01).reason == "max_time"
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.reclaims) == ("pending", 1)

    @pytest.mark.parametrize("case", ["living", "elsewhere", "reached its maximum", "stopped"])
    def test_stays_for_nothing_else(self, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
        stays: list[float] = []
        monkeypatch.setattr(Planner, "stay", lambda _self, until: stays.append(until))
        store = MemoryDriver()
        queue = JobQueue(store, {"poll_interval": 0.02, "lease": LEASE_S})

        @job(name="step")
        def step() -> None: ...

        queue.push(step.bind().on_queue("other" if case == "elsewhere" else "default"))
        info = self.dead(store, "other" if case == "elsewhere" else "default")
        if case == "living":
            store.heartbeat(info.id, {})
        stop = StopToken()
        if case == "stopped":
            stop.stop()
        if case == "reached its maximum":
            queue.push(step.bind())
        queue.work("default", None if case == "stopped" else 1, stop=stop)
        assert stays == []

    def test_after_an_outage_of_many_leases_the_living_keep_theirs(self) -> None:
        """All leases have ended long ago, and the first to come is one that would end at once."""
        store = MemoryDriver()
        queue = JobQueue(store, {"poll_interval": 0.02, "lease": LEASE_S})

        @job(name="step")
        def step() -> None: ...

        job_id = queue.push(step.bind())
        living = self.dead(store)
        store.time_offset += 10 * LEASE_S
        beats = threading.Timer(LEASE_S / 4, lambda: store.heartbeat(living.id, {}))  # its next try
        beats.start()
        assert queue.work("default", 5).runs == 0
        beats.join()
        assert [claim.id for claim in store.held(living.id)] == [job_id]
