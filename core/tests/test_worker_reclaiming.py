"""A reclaim that an outage held up must not take the jobs of the living, who could not beat meanwhile either."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from protojobs import JobQueue, job
from protojobs.entropy import fresh_id
from protojobs.records import Reclaimed, WorkerInfo
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
