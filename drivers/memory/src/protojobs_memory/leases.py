"""Leases of workers: registered, renewed, given up, and the jobs of those that lapsed reclaimed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from protojobs.errors import LeaseLost
from protojobs.port import rules
from protojobs.port.records import Fence, Heartbeat, LostJob, Reclaimed, WorkerInfo, WorkerRecord
from protojobs_memory.state import Row, State
from protojobs_memory.views import exported, fence

__all__ = ["check_lease", "heartbeat", "leave", "reclaim", "register"]


def register(state: State, now: datetime, worker: WorkerInfo) -> None:
    """Store the worker's row, with a lease that begins now."""
    state.workers[worker.id] = rules.renewed(worker, now)


def check_lease(state: State, worker: str) -> WorkerRecord:
    """The worker's row; LeaseLost if it is gone."""
    row = state.workers.get(worker)
    if row is None:
        raise LeaseLost(
            f"worker {worker}: its lease no longer stands; others may have its jobs.",
            mend="Drop what was not started, register under a new id, and still send late results.",
        )
    return row


def heartbeat(state: State, now: datetime, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
    """Renew the lease, and store the progress of current claims."""
    row = check_lease(state, worker)
    state.workers[worker] = rules.renewed(row, now)
    for claim, share in progress.items():
        if (job := state.current(claim)) is not None:
            job.progress = share
    held = state.holders.get(worker, {}).values()
    cancels = tuple(fence(job) for job in held if job.cancel_requested_at is not None)
    others_end_in = rules.first_end(state.workers.values(), now, apart_from=worker)
    return Heartbeat(cancels=cancels, others_end_in=others_end_in, at=now)


def leave(state: State, worker: str) -> None:
    """Delete the worker's row."""
    state.workers.pop(worker, None)


def reclaim(state: State, now: datetime, limit: int, until: datetime | None) -> Reclaimed:
    """Delete the rows whose lease has ended, and reclaim their jobs and the orphans."""
    if until is not None and now > until:
        return Reclaimed(has_more=True)
    lapsed = {name: row for name, row in state.workers.items() if row.lease_ends_at <= now}
    for name in lapsed:
        del state.workers[name]
    # Jobs of the workers that lapsed just now come first: only for those it is known how their worker ran them.
    ownerless = sorted(state.holders.keys() - state.workers.keys(), key=lambda name: (name not in lapsed, name))
    rows = [row for name in ownerless for row in state.holders[name].values()]
    jobs = [_reclaim_one(state, now, row, lapsed.get(row.reserved_by)) for row in rows[:limit]]
    state.wake()
    return Reclaimed(
        jobs=tuple(jobs),
        workers=tuple(lapsed),
        has_more=len(rows) > limit,
        others_end_in=rules.first_end(state.workers.values(), now),
    )


def _reclaim_one(state: State, now: datetime, row: Row, worker: WorkerRecord | None) -> LostJob:
    job, lost = rules.reclaim(exported(state, row), worker, now)
    state.replace(row, job)
    return lost
