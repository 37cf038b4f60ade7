"""From enqueue to settle: jobs are stored, claimed by workers, and settled.

Claim and complete change a row in place, since every job passes them. All other settlements are decided by
`protojobs.port.rules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from protojobs.entropy import fresh_id
from protojobs.port import rules
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ClaimedJob, Enqueued, NewJob, Settled, Settlement, SettleStatus
from protojobs_memory.leases import check_lease
from protojobs_memory.state import Row, State, after
from protojobs_memory.views import claimed, exported

__all__ = ["claim", "due_in", "due_rows", "enqueue", "held", "settle"]

# See the same in state.py.
_PROCESSING, _COMPLETED = JobState.PROCESSING, JobState.COMPLETED
_CLAIM, _COMPLETE, _FAIL = Verb.CLAIM, Verb.COMPLETE, Verb.FAIL
_APPLIED = SettleStatus.APPLIED


def enqueue(state: State, now: datetime, jobs: Sequence[NewJob]) -> list[Enqueued]:
    """Store the jobs whose ids are not known yet."""
    known = state.rows
    new: dict[str, Row] = {}
    results: list[Enqueued] = []
    for job in jobs:
        is_known = job.id in known or job.id in new
        results.append(Enqueued(id=job.id, duplicate_of=job.id if is_known else None))
        if not is_known:
            new[job.id] = Row(job=job, created_at=now, available_at=_due_at(job, now))
    for job_id in sorted(new):  # in order they go to the end of each index; and nothing can fail from here on
        state.add(new[job_id])
    state.wake()
    return results


def claim(state: State, now: datetime, worker: str, queues: Sequence[str], slots: int, limit: int) -> list[ClaimedJob]:
    """Claim due jobs for a worker whose lease stands; LeaseLost if it does not."""
    check_lease(state, worker)
    rows = rules.lendable(due_rows(state, now, queues), slots=slots, limit=limit)
    for row in rows:
        row.attempts += 1
        row.claim_seq += 1
        row.progress = None
        state.move(row, _CLAIM, _PROCESSING, now, holder=worker)
    return [claimed(row) for row in rows]


def due_rows(state: State, now: datetime, queues: Sequence[str]) -> Iterator[Row]:
    """The due jobs, in the order in which they are claimed."""
    rows, bound = state.rows, after(now)
    for name in dict.fromkeys(queues):
        queue = state.queues.get(name)
        if queue is not None and not queue.is_paused:
            for lane in queue.lanes.values():
                for _, job_id in lane.below(bound):
                    yield rows[job_id]


def settle(state: State, now: datetime, settlements: Sequence[Settlement]) -> list[Settled]:
    """Apply each settlement whose claim is the job's current one."""
    results = [_settle_one(state, now, settlement) for settlement in settlements]
    state.wake()
    return results


def _settle_one(state: State, now: datetime, settlement: Settlement) -> Settled:
    if settlement.verb is _COMPLETE and not settlement.counts_crash and not settlement.reason:
        row = state.current(settlement)
        if row is not None:
            state.move(row, _COMPLETE, _COMPLETED, now)
            _keep_carried(state, now, row, settlement)
            return Settled(settlement.id, _APPLIED, _COMPLETED, row.available_at)
    row = state.rows.get(settlement.id)
    job = exported(state, row) if row is not None else None
    failed_id = fresh_id() if settlement.verb is _FAIL else ""
    job, settled = rules.settle(job, settlement, now, failed_id=failed_id)
    if row is not None and job is not None and settled.status is _APPLIED:
        state.replace(row, job)
        _keep_carried(state, now, row, settlement)
    return settled


def _keep_carried(state: State, now: datetime, row: Row, settlement: Settlement) -> None:
    """Store what the settlement that completed this job has brought along."""
    row.result = settlement.result
    if settlement.then:
        enqueue(state, now, settlement.then)


def held(state: State, worker: str) -> list[ClaimedJob]:
    """The jobs that the worker holds."""
    return [claimed(row) for row in state.holders.get(worker, {}).values()]


def due_in(state: State, now: datetime, queues: Sequence[str]) -> float:
    """Seconds until one of the queues has a due job; infinite when none is in sight."""
    known = [queue for name in queues if (queue := state.queues.get(name))]
    moments = [moment for queue in known if (moment := queue.next_due())]
    return (min(moments) - now).total_seconds() if moments else float("inf")


def _due_at(job: NewJob, now: datetime) -> datetime:
    """The moment that was named, or else `delay` seconds from now."""
    if job.available_at is not None:
        return job.available_at
    return now + timedelta(seconds=job.delay) if job.delay else now
