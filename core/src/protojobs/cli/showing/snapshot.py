"""Reads the state of the whole store, in a few bounded calls: what `status` and `top` show."""

from __future__ import annotations

from datetime import datetime

import msgspec

from protojobs.port.driver import Store
from protojobs.port.records import COUNTED_MAX, QueueInfo, WorkerRecord

__all__ = ["COUNTED", "Load", "Snapshot", "look"]

COUNTED = 10_000  # waiting jobs of each queue that are counted one by one; beyond, "or more" will do


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one queue, or of all. `is_estimate`: of what is ready, running and scheduled there may be more."""

    queue: str
    is_paused: bool
    ready: int
    running: int
    scheduled: int
    completed: int
    failed: int
    oldest_s: float | None  # for how long the oldest ready job has waited; None: none is ready
    is_estimate: bool
    workers: int  # that serve it, and are alive
    slots: int  # of those


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The store at one moment, by its own clock."""

    at: datetime
    total: Load
    queues: tuple[Load, ...]
    workers: tuple[WorkerRecord, ...]  # alive ones
    lapsed: int
    busy: int  # slots


def look(store: Store, *, counted_max: int = COUNTED) -> Snapshot:
    """Count up to `counted_max` waiting jobs of each queue."""
    infos = store.queues(counted_max=min(counted_max, COUNTED_MAX))
    now = store.now()
    workers = store.workers()
    alive = [worker for worker in workers if worker.lease_ends_at > now]
    loads = tuple(_load(info, alive) for info in infos)
    return Snapshot(
        at=now,
        total=_total(loads, alive),
        queues=loads,
        workers=tuple(alive),
        lapsed=len(workers) - len(alive),
        busy=sum(worker.processing for worker in alive),
    )


def _load(info: QueueInfo, alive: list[WorkerRecord]) -> Load:
    stats = info.stats
    serving = [worker for worker in alive if worker.serves(info.name)]
    return Load(
        queue=info.name,
        is_paused=info.is_paused,
        ready=max(stats.pending - stats.scheduled, 0),
        running=stats.processing,
        scheduled=stats.scheduled,
        completed=stats.completed,
        failed=stats.failed,
        oldest_s=info.oldest_ready_s,
        is_estimate=stats.is_estimate,
        workers=len(serving),
        slots=sum(worker.concurrency for worker in serving),
    )


def _total(loads: tuple[Load, ...], alive: list[WorkerRecord]) -> Load:
    # The jobs of a paused queue wait because somebody wants them to; `oldest` of all is about the others.
    waits = [load.oldest_s for load in loads if load.oldest_s is not None and not load.is_paused]
    return Load(
        queue="",
        is_paused=False,
        ready=sum(load.ready for load in loads),
        running=sum(load.running for load in loads),
        scheduled=sum(load.scheduled for load in loads),
        completed=sum(load.completed for load in loads),
        failed=sum(load.failed for load in loads),
        oldest_s=max(waits, default=None),
        is_estimate=any(load.is_estimate for load in loads),
        workers=len(alive),
        slots=sum(worker.concurrency for worker in alive),
    )
