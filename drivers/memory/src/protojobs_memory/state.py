"""What a memory store holds, and the only place where a job changes its state.

Read `State.move` and `State.replace` first: everything a job can go through is one call of them. Whoever calls anything
here holds `State.lock`; that is what makes each verb of the driver one atomic step.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from protojobs.errors import ContractBroken
from protojobs.port.lifecycle import FINISHED, TRANSITIONS, JobState, Verb
from protojobs.port.records import ExportedJob, FailedJob, Fence, JobRecord, NewJob, Settlement, WorkerRecord
from protojobs.port.schedules import Schedule
from protojobs_memory.notes import Notes
from protojobs_memory.sorted_keys import SortedKeys, TimeKey

__all__ = ["Queue", "Row", "State", "after"]

MICROSECOND = timedelta(microseconds=1)
# By names of our own: before Python 3.12 looking a member up in its class takes longer than all that is done with it.
_PENDING, _PROCESSING = JobState.PENDING, JobState.PROCESSING


def after(moment: datetime) -> TimeKey:
    """The bound below which lie exactly the keys of `moment` and before."""
    return moment + MICROSECOND, ""


class Row(Struct, eq=False, gc=False):
    """A job in the store: as it was pushed, which never changes, and what has become of it."""

    job: NewJob
    created_at: datetime
    available_at: datetime
    state: JobState = JobState.PENDING
    attempts: int = 0
    claim_seq: int = 0
    reserved_by: str = ""  # empty outside processing
    reserved_at: datetime | None = None
    processed_at: datetime | None = None
    crashes: int = 0
    returns: int = 0
    reclaims: int = 0
    progress: float | None = None
    cancel_requested_at: datetime | None = None
    reason: str | None = None
    result: str | None = None  # what its run returned, of a completed job
    failed_id: str | None = None  # its row in failed_jobs
    moving_from: JobState | None = None  # while moving: the state that it had ...
    export_key: str = ""  # ... and its place in the order of its export

    @property
    def data(self) -> str:
        """Its payload."""
        return self.job.data

    @property
    def max_retries(self) -> int:
        """How many runs it has after the first."""
        return self.job.max_retries


_CHANGED_BY_RULES = tuple(name for name in Row.__struct_fields__ if name in JobRecord.__struct_fields__)


class Queue:
    """The jobs of one queue. A lane holds the pending ones of one priority, by (available_at, id)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_paused = False
        self.rows: dict[str, Row] = {}
        self.lanes: dict[int, SortedKeys[TimeKey]] = {}  # by priority, the highest first
        self.counts = dict.fromkeys(JobState, 0)

    def lane(self, priority: int) -> SortedKeys[TimeKey]:
        """The lane of this priority, made at its first job."""
        lane = self.lanes.get(priority)
        if lane is None:
            lane = self.lanes[priority] = SortedKeys()
            self.lanes = dict(sorted(self.lanes.items(), reverse=True))
        return lane

    def next_due(self) -> datetime | None:
        """When the first of its jobs is, or was, due; None when no job of it can be claimed."""
        if self.is_paused:
            return None
        firsts = [key[0] for lane in self.lanes.values() if (key := lane.first())]
        return min(firsts, default=None)


class State:
    """Everything that one store holds, behind one lock.

    A forked child keeps a copy of the jobs as they were at the fork, never one from the middle of a step, under a lock
    of its own; from then on the two stores go separate ways.
    """

    def __init__(self) -> None:
        self.renew_lock()
        self.time_high = datetime.min.replace(tzinfo=UTC)
        self.empty()
        with _forking:
            _states.add(self)

    def renew_lock(self) -> None:
        """Make a fresh lock, and the condition on it by which waiting threads are woken."""
        self.lock = threading.RLock()
        self.wakeup = threading.Condition(self.lock)

    def empty(self) -> None:
        """Forget all jobs, workers, pauses, schedules and notes."""
        self.rows: dict[str, Row] = {}
        self.ids: SortedKeys[str] = SortedKeys()
        self.queues: dict[str, Queue] = {}
        self.holders: defaultdict[str, dict[str, Row]] = defaultdict(dict)  # worker -> the jobs that it holds
        self.workers: dict[str, WorkerRecord] = {}
        self.ended: dict[JobState, SortedKeys[TimeKey]] = {state: SortedKeys() for state in FINISHED}
        self.failed: dict[str, FailedJob] = {}
        self.failures: SortedKeys[TimeKey] = SortedKeys()  # the same by (failed_at, id)
        self.alike: dict[str, SortedKeys[TimeKey]] = {}  # ... and by fingerprint; none is empty
        self.notes = Notes()
        self.exports: dict[str, SortedKeys[str]] = {}  # token -> what moves under it, as `number/id`
        self.schedules: dict[str, Schedule] = {}
        self.next_times: SortedKeys[TimeKey] = SortedKeys()  # of those that are not paused and go on
        self.exports_begun = 0  # numbers them, and never goes back, so that a cursor stays a place

    def never_back(self, moment: datetime) -> datetime:
        """`moment`, or the latest one seen before, should this machine's clock have been set back."""
        self.time_high = max(self.time_high, moment)
        return self.time_high

    def queue(self, name: str) -> Queue:
        """The queue of this name, made at its first job or pause."""
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name)
        return queue

    def current(self, claim: Settlement | Fence) -> Row | None:
        """The job, if this is its current claim: id, claim_seq and holder, all three."""
        row = self.rows.get(claim.id)
        if row is None or row.claim_seq != claim.claim_seq or row.reserved_by != claim.reserved_by:
            return None
        return row if row.reserved_by else None

    def add(self, row: Row) -> None:
        """Store a job that is not there yet."""
        job = row.job
        self.rows[job.id] = row
        self.ids.add(job.id)
        queue = self.queue(job.queue)
        queue.rows[job.id] = row
        self._enter(row, queue)

    def move(self, row: Row, verb: Verb, to: JobState, at: datetime, *, holder: str = "") -> None:
        """Bring a job to its next state, if the table of lifecycle.py has that move.

        `at` is the moment that the new state asks for: when it is due (pending), was claimed (processing), or ended.
        """
        if to not in TRANSITIONS.get((row.state, verb), ()):
            raise ContractBroken(f"job {row.job.id}: {verb} cannot lead from {row.state} to {to}.")
        queue = self.queues[row.job.queue]
        self._leave(row, queue)
        row.state = to
        row.reserved_by = holder
        if to is _PROCESSING:
            row.reserved_at = at
        elif to is _PENDING:
            row.available_at, row.reserved_at, row.processed_at = at, None, None
        elif to in FINISHED:
            row.processed_at = at
        self._enter(row, queue)

    def replace(self, row: Row, job: ExportedJob) -> None:
        """Make of a row what `protojobs.port.rules` made of it."""
        queue = self.queues[row.job.queue]
        self._leave(row, queue)
        row.state = job.status
        for name in _CHANGED_BY_RULES:
            setattr(row, name, getattr(job, name))
        self._enter(row, queue)
        if job.failed is None:
            self.drop_failure(row)
        elif row.failed_id is None:
            self.add_failure(row, job.failed)

    def remove(self, row: Row, verb: Verb) -> None:
        """Delete a job and its row of failed_jobs, if the table allows that verb here."""
        if None not in TRANSITIONS.get((row.state, verb), ()):
            raise ContractBroken(f"job {row.job.id}: {verb} cannot delete it while it is {row.state}.")
        queue = self.queues[row.job.queue]
        self._leave(row, queue)
        self.drop_failure(row)
        del self.rows[row.job.id]
        self.ids.remove(row.job.id)
        self.notes.drop_attempts(row.job.id)
        del queue.rows[row.job.id]
        if not queue.rows and not queue.is_paused:
            del self.queues[queue.name]

    def add_failure(self, row: Row, failure: FailedJob) -> None:
        """Write the job's row of failed_jobs."""
        row.failed_id = failure.id
        self.failed[failure.id] = failure
        self.failures.add((failure.failed_at, failure.id))
        self.alike.setdefault(failure.fingerprint, SortedKeys()).add((failure.failed_at, failure.id))

    def drop_failure(self, row: Row) -> None:
        """Delete the job's row of failed_jobs, if it has one."""
        if row.failed_id is not None:
            failure = self.failed.pop(row.failed_id)
            self.failures.remove((failure.failed_at, failure.id))
            alike = self.alike[failure.fingerprint]
            alike.remove((failure.failed_at, failure.id))
            if not alike:
                del self.alike[failure.fingerprint]
            row.failed_id = None

    def wake(self) -> None:
        """Wake whoever waits for jobs."""
        self.wakeup.notify_all()

    def _enter(self, row: Row, queue: Queue) -> None:
        """Enter the job where its state is looked for."""
        state, job = row.state, row.job
        queue.counts[state] += 1
        if state is _PENDING:
            queue.lane(job.priority).add((row.available_at, job.id))
        elif state is _PROCESSING:
            self.holders[row.reserved_by][job.id] = row
        elif state in FINISHED and row.processed_at is not None:
            self.ended[state].add((row.processed_at, job.id))

    def _leave(self, row: Row, queue: Queue) -> None:
        """The reverse of `_enter`."""
        state, job = row.state, row.job
        queue.counts[state] -= 1
        if state is _PENDING:
            queue.lanes[job.priority].remove((row.available_at, job.id))
        elif state is _PROCESSING:
            held = self.holders[row.reserved_by]
            del held[job.id]
            if not held:
                del self.holders[row.reserved_by]
        elif state in FINISHED and row.processed_at is not None:
            self.ended[state].remove((row.processed_at, job.id))


_states: weakref.WeakSet[State] = weakref.WeakSet()
_locked: list[State] = []  # by the thread that forks; exactly these are free again afterwards, whatever came meanwhile
_forking = threading.RLock()  # while one thread forks, others neither fork nor add a store


def _before_fork() -> None:
    _forking.acquire()
    _locked.extend(_states)
    for state in _locked:
        state.lock.acquire()


def _in_parent() -> None:
    for state in _locked:
        state.lock.release()
    _locked.clear()
    _forking.release()


def _in_child() -> None:
    global _forking
    for state in _locked:
        state.renew_lock()
    _locked.clear()
    _forking = threading.RLock()  # threads that the child does not have may have waited for it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
