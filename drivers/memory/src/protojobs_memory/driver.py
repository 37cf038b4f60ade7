"""The life of a job in a memory store: stored, lent, settled, taken back. The simplest driver; read it first.

Each verb is one `with` block: it takes the store's lock, reads the time, and does all of its work or none. What the
verbs promise is said in `protojobs.port.driver`; the comments here say how little it takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import LeaseLost, OptionInvalid
from protojobs.port.driver import PORT_VERSION
from protojobs.port.lifecycle import RETURNS_FREE, SUSPECT_RECLAIMS, JobState, Verb
from protojobs.port.records import (
    BATCH_BYTES_MAX,
    Capabilities,
    ClaimedJob,
    ClaimReply,
    Enqueued,
    Fence,
    Heartbeat,
    LostJob,
    NewJob,
    Reclaimed,
    Settled,
    Settlement,
    SettleStatus,
    WorkerInfo,
    WorkerRecord,
)
from protojobs.port.rules import PASSED_OVER_MAX, SETTLES_TO, check_batch, check_settlements, first_end, renewed
from protojobs_memory.administration import Administration
from protojobs_memory.diagnosing import Diagnosing
from protojobs_memory.inspection import Inspection
from protojobs_memory.observing import Observing
from protojobs_memory.schedules import Schedules
from protojobs_memory.state import Row, after
from protojobs_memory.transfer import Transfer
from protojobs_memory.views import claimed, failure, fence, lost

__all__ = ["MemoryDriver"]

# See the same in state.py.
_PENDING, _PROCESSING, _COMPLETED = JobState.PENDING, JobState.PROCESSING, JobState.COMPLETED
_FAILED, _CANCELLED = JobState.FAILED, JobState.CANCELLED
_CLAIM, _SNOOZE, _RELEASE = Verb.CLAIM, Verb.SNOOZE, Verb.RELEASE
_APPLIED, _REPEATED, _STALE = SettleStatus.APPLIED, SettleStatus.REPEATED, SettleStatus.STALE


class MemoryDriver(Inspection, Administration, Schedules, Transfer, Observing, Diagnosing):
    """A store in this process. `memory://` makes a new one; all drivers of `memory://name` share one."""

    port_version = PORT_VERSION
    capabilities = Capabilities(cross_process=False, server_time=False, durable=False, observing=True)

    def setup(self) -> None:
        """Nothing to do."""

    def teardown(self) -> None:
        """Empty the store."""
        with self.state.lock:
            self.state.empty()

    def close(self) -> None:
        """Nothing to give back; the jobs stay as long as a driver object knows the store, or its name."""

    # ------------------------------------------------------------------------------------------------------- enqueue

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """See Driver.enqueue."""
        check_batch(jobs)
        sizes = [len(job.data) if job.data.isascii() else len(job.data.encode()) for job in jobs]
        if sum(sizes) > BATCH_BYTES_MAX:
            raise OptionInvalid(f"{sum(sizes)} payload bytes are too many.", mend=f"Send at most {BATCH_BYTES_MAX}.")
        with self.state.lock:
            now, known = self.now(), self.state.rows
            new: dict[str, Row] = {}
            answers: list[Enqueued] = []
            for job, size in zip(jobs, sizes, strict=True):
                is_known = job.id in known or job.id in new
                answers.append(Enqueued(id=job.id, duplicate_of=job.id if is_known else None))
                if not is_known:
                    due = _due(now, job.delay, job.available_at)
                    new[job.id] = Row(job=job, size=size, created_at=now, available_at=due)
            for job_id in sorted(new):  # in order they go to the end of each index; and nothing can fail from here on
                self.state.add(new[job_id])
            self.state.ring()
            return answers

    # ------------------------------------------------------------------------------------------------------- leases

    def register(self, worker: WorkerInfo) -> None:
        """See Driver.register."""
        with self.state.lock:
            self.state.workers[worker.id] = renewed(worker, self.now())

    def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
        """See Driver.heartbeat."""
        with self.state.lock:
            now = self.now()
            row = self._standing(worker)
            self.state.workers[worker] = renewed(row, now)
            for claim, share in progress.items():
                if (job := self._current(claim)) is not None:
                    job.progress = share
            held = self.state.holders.get(worker, {}).values()
            cancels = tuple(fence(job) for job in held if job.cancel_requested_at is not None)
            return Heartbeat(
                cancels=cancels, others_end_in=first_end(self.state.workers.values(), now, apart_from=worker), at=now
            )

    def leave(self, worker: str) -> None:
        """See Driver.leave."""
        with self.state.lock:
            self.state.workers.pop(worker, None)

    def reclaim(self, limit: int, *, until: datetime | None = None) -> Reclaimed:
        """See Driver.reclaim."""
        with self.state.lock:
            now, state = self.now(), self.state
            if until is not None and now > until:
                return Reclaimed(has_more=True)
            lapsed = {name: row for name, row in state.workers.items() if row.lease_ends_at <= now}
            for name in lapsed:
                del state.workers[name]
            # Jobs of the workers that lapsed just now come first: only for those it is known how their worker ran them.
            ownerless = sorted(state.holders.keys() - state.workers.keys(), key=lambda name: (name not in lapsed, name))
            rows = [row for name in ownerless for row in state.holders[name].values()]
            taken = [self._take_back(row, lapsed.get(row.reserved_by), now) for row in rows[:limit]]
            state.ring()
            return Reclaimed(
                jobs=tuple(taken),
                workers=tuple(lapsed),
                has_more=len(rows) > limit,
                others_end_in=first_end(state.workers.values(), now),
            )

    def _take_back(self, row: Row, worker: WorkerRecord | None, now: datetime) -> LostJob:
        """End one claim whose holder is gone: the job is pending again, and nothing that the holder says counts."""
        holder = row.reserved_by
        if worker is not None and not worker.isolates and row.reclaims >= SUSPECT_RECLAIMS:
            row.crashes += 1  # it ran alone there, so the worker's death is its doing
        elif row.returns < RETURNS_FREE:
            row.attempts -= 1
        row.returns += 1
        row.reclaims += 1
        row.claim_seq += 1
        if row.cancel_requested_at is not None:
            self.state.move(row, Verb.RECLAIM, JobState.CANCELLED, now)
        else:
            self.state.move(row, Verb.RECLAIM, JobState.PENDING, row.available_at)
        return lost(row, holder)

    def _standing(self, worker: str) -> WorkerRecord:
        row = self.state.workers.get(worker)
        if row is None:
            raise LeaseLost(
                f"worker {worker}: its lease no longer stands; others may have its jobs.",
                mend="Drop what was not started, register under a new id, and still send late results.",
            )
        return row

    # ------------------------------------------------------------------------------------------------ claim and settle

    def claim(self, worker: str, queues: Sequence[str], *, slots: int, limit: int) -> list[ClaimedJob]:
        """See Driver.claim."""
        with self.state.lock:
            self._standing(worker)
            now = self.now()
            lent: list[Row] = []
            size = passed_over = 0
            for row in self._due_rows(queues, now):
                if len(lent) >= limit or passed_over >= PASSED_OVER_MAX:
                    break
                if len(lent) >= slots and row.attempts + 1 > row.job.max_retries:
                    passed_over += 1  # its last attempt must not wait in a worker's memory
                    continue
                size += row.size
                if size > BATCH_BYTES_MAX and lent:
                    break
                lent.append(row)
            for row in lent:
                row.attempts += 1
                row.claim_seq += 1
                row.progress = None
                self.state.move(row, _CLAIM, _PROCESSING, now, holder=worker)
            return [claimed(row) for row in lent]

    def _due_rows(self, queues: Sequence[str], now: datetime) -> Iterator[Row]:
        """What may be lent now, in the order in which to lend it."""
        rows, bound = self.state.rows, after(now)
        for name in dict.fromkeys(queues):
            queue = self.state.queues.get(name)
            if queue is not None and not queue.is_paused:
                for lane in queue.lanes.values():
                    for _, job_id in lane.below(bound):
                        yield rows[job_id]

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """See Driver.settle."""
        check_settlements(settlements)
        with self.state.lock:
            now = self.now()
            answers = [self._settle_one(settlement, now) for settlement in settlements]
            self.state.ring()
            return answers

    def _settle_one(self, said: Settlement, now: datetime) -> Settled:
        row = self._current(said)
        if row is not None:
            self._apply(row, said, now)
            status = _APPLIED
        else:
            row = self.state.rows.get(said.id)
            was_settled = row is not None and row.claim_seq == said.claim_seq and not row.reserved_by
            status = _REPEATED if was_settled else _STALE
        if row is None:
            return Settled(id=said.id, status=status)
        return Settled(id=said.id, status=status, state=row.state, available_at=row.available_at)

    def _apply(self, row: Row, said: Settlement, now: datetime) -> None:
        """Do what the holder of the current claim says, unless a person has asked to cancel the job."""
        verb, to = said.verb, SETTLES_TO[said.verb]
        is_unspent = verb is _SNOOZE or verb is _RELEASE
        if verb is _RELEASE and said.counts_return:
            is_unspent = row.returns < RETURNS_FREE
            row.returns += 1
        row.attempts -= is_unspent
        row.crashes += said.counts_crash
        is_marked = row.cancel_requested_at is not None
        if said.reason and not is_marked:
            row.reason = said.reason
        if is_marked and to is not _COMPLETED:
            to = _CANCELLED
        at = _due(now, said.delay, said.available_at) if to is _PENDING else now
        self.state.move(row, verb, to, at)
        if to is _FAILED:
            self.state.add_failure(row, failure(row, said, now))

    def _current(self, claim: Settlement | Fence) -> Row | None:
        """The job, if this is its current claim: id, claim_seq and holder, all three."""
        row = self.state.rows.get(claim.id)
        if row is None or row.claim_seq != claim.claim_seq or row.reserved_by != claim.reserved_by:
            return None
        return row if row.reserved_by else None

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        """See Driver.settle_and_claim."""
        with self.state.lock:
            settled = tuple(self.settle(settlements))
            try:
                lent = tuple(self.claim(worker, queues, slots=slots, limit=limit)) if limit else ()
            except LeaseLost:
                return ClaimReply(settled=settled, lease_lost=True)
            return ClaimReply(settled=settled, claimed=lent)

    def held(self, worker: str) -> list[ClaimedJob]:
        """See Driver.held."""
        with self.state.lock:
            return [claimed(row) for row in self.state.holders.get(worker, {}).values()]

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See Driver.wait. The timeout is real time, whoever's clock the store goes by."""
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        with self.state.lock:
            while True:
                due_in = self._due_in(queues)
                left = ends_at - SYSTEM_CLOCK.monotonic()
                if due_in <= 0 or left <= 0:
                    return due_in <= 0
                self.state.doorbell.wait(min(due_in, left))

    def _due_in(self, queues: Sequence[str]) -> float:
        """Seconds until one of the queues has a due job; infinite when none is in sight."""
        now = self.now()
        known = [queue for name in queues if (queue := self.state.queues.get(name))]
        moments = [moment for queue in known if (moment := queue.next_due())]
        return (min(moments) - now).total_seconds() if moments else float("inf")


def _due(now: datetime, delay: float, moment: datetime | None) -> datetime:
    """The moment that was named, or else `delay` seconds from now."""
    if moment is not None:
        return moment
    return now + timedelta(seconds=delay) if delay else now
