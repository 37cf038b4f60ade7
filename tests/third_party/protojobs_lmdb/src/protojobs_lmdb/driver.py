"""The verbs on an LMDB file. What each promises is written in protojobs.protocols."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import TypeVar

from msgspec import convert, msgpack
from msgspec.structs import asdict, replace

from protojobs import records
from protojobs.clock import SYSTEM_CLOCK
from protojobs.entropy import fresh_id
from protojobs.errors import LeaseLost, OptionInvalid
from protojobs.lifecycle import FINISHED, RETURNS_FREE, SUSPECT_RECLAIMS, TRANSITIONS, JobState, Verb
from protojobs.records import CancelAnswer, ClaimedJob, Enqueued, RetryAnswer, Settled, Settlement, SettleStatus
from protojobs_lmdb.file import LAYOUT, Handle
from protojobs_lmdb.rows import MICROSECOND, Row, Step, id_in, key_of

T = TypeVar("T")
LOOK_S = 0.02  # how often `wait` looks whether there was a transaction, which takes a few microseconds
SEEN_MAX = 10_000  # rows that one call looks at, whatever it finds
COUNTED_MAX = 100_000  # due jobs; beyond that their number is an estimate
PASSED_OVER_MAX = 1_000  # jobs on their last attempt that a claim walks past to fill its prefetch
ZERO = dict.fromkeys(("attempts", "crashes", "returns", "reclaims"), 0)
NEW = {**ZERO, "claim_seq": 0, "status": "pending", "reserved_by": "", "reserved_at": None, "processed_at": None}
LEADS_TO = {Verb.COMPLETE: JobState.COMPLETED, Verb.FAIL: JobState.FAILED, Verb.CANCEL: JobState.CANCELLED} | (
    dict.fromkeys((Verb.RETRY, Verb.SNOOZE, Verb.RELEASE), JobState.PENDING)
)


class LmdbDriver(Handle):
    port_version = 1
    capabilities = records.Capabilities(server_time=False)

    def setup(self) -> None:
        with self.step(write=True, is_set_up=False) as step:
            step.txn.put(b"layout", LAYOUT)

    def teardown(self) -> None:
        with self.step(write=True, is_set_up=False) as step:  # the file stays: others may have it open
            for key in list(step.txn.cursor().iternext(values=False)):
                step.txn.delete(key)

    def now(self) -> datetime:
        with self.step() as step:
            return step.now

    def enqueue(self, jobs: Sequence[records.NewJob]) -> list[Enqueued]:
        if sum(len(job.data.encode()) for job in check(jobs)) > records.BATCH_BYTES_MAX:
            raise OptionInvalid("These are too many bytes.", mend=f"At most {records.BATCH_BYTES_MAX} at once.")
        with self.step(write=True) as step:
            times = [{"created_at": step.now, "available_at": due(step, job)} for job in jobs]
            return insert(step, [convert(asdict(job) | NEW | at, Row) for job, at in zip(jobs, times, strict=True)])

    # ------------------------------------------------------------------------------------------------ workers' leases

    def register(self, worker: records.WorkerInfo) -> None:
        with self.step(write=True) as step:
            put_worker(step, worker)

    def heartbeat(self, worker: str, progress: Mapping[records.Fence, float]) -> records.Heartbeat:
        with self.step(write=True) as step:
            put_worker(step, standing(step, worker))
            for claim, share in progress.items():
                if row := current(step, claim):
                    step.write(row, replace(row, progress=share))
            marked = [row for row in step.rows("held", worker) if row.is_cancel_requested]
            cancels = tuple(convert(row, records.Fence, from_attributes=True) for row in marked)
            return records.Heartbeat(cancels=cancels, others_end_in=first_end(step, apart_from=worker))

    def leave(self, worker: str) -> None:
        with self.step(write=True) as step:
            step.txn.delete(key_of("worker", worker))

    def reclaim(self, limit: int) -> records.Reclaimed:
        with self.step(write=True) as step:
            standing = workers(step)
            lapsed = {name: worker for name, worker in standing.items() if worker.lease_ends_at <= step.now}
            for name in lapsed:
                step.txn.delete(key_of("worker", name))
            # Those of the lapsed first: only of them is it known how their worker ran them.
            names = [*lapsed, *(name for name in step.groups("held") if name not in standing)]
            rows = list(islice(chain.from_iterable(step.rows("held", name) for name in names), limit + 1))
            lost = tuple(take_back(step, row, lapsed.get(row.reserved_by)) for row in rows[:limit])
            has_more, ends_in = len(rows) > limit, first_end(step)
            return records.Reclaimed(jobs=lost, workers=tuple(lapsed), has_more=has_more, others_end_in=ends_in)

    # ----------------------------------------------------------------------------------------------- claim and settle

    def claim(self, worker: str, queues: Sequence[str], *, slots: int, limit: int) -> list[ClaimedJob]:
        with self.step(write=True) as step:
            return lend(step, worker, queues, slots, limit)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return list(self.settle_and_claim("", settlements, (), slots=0, limit=0).settled)

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> records.ClaimReply:
        if any(said.verb not in LEADS_TO for said in check(settlements)):
            raise OptionInvalid("One of the verbs settles nothing.", mend="Use one of the six that do.")
        with self.step(write=True) as step:
            settled = tuple(settle(step, said) for said in settlements)
            try:
                lent = lend(step, worker, queues, slots, limit) if limit else []
            except LeaseLost:
                return records.ClaimReply(settled=settled, lease_lost=True)
            return records.ClaimReply(settled=settled, claimed=tuple(lent))

    def held(self, worker: str) -> list[ClaimedJob]:
        with self.step() as step:
            return [convert(row, ClaimedJob, from_attributes=True) for row in step.rows("held", worker)]

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        while True:  # LMDB has no bell; to look is a few reads of shared memory
            with self.step() as step:
                is_due = next(ready(step, queues), None) is not None
            left = ends_at - SYSTEM_CLOCK.monotonic()
            if is_due or left <= 0:
                return is_due
            SYSTEM_CLOCK.sleep(min(LOOK_S, left))

    # ---------------------------------------------------------------------------------------------------- inspection

    def get(self, ids: Sequence[str]) -> list[records.JobRecord]:
        with self.step() as step:
            rows = filter(None, map(step.row, dict.fromkeys(check(ids))))
            return [convert(row, records.JobRecord, from_attributes=True) for row in rows]

    def find(self, which: records.JobFilter, *, limit: int = 50, cursor: str | None = None) -> records.JobPage:
        def is_wanted(row: Row) -> bool:
            is_there = which.queue in (None, row.queue) and which.job_name in (None, row.job_name)
            return is_there and (not which.states or row.status in which.states)

        rows, cursor = self._page("job", cursor, limit, is_wanted)
        jobs = tuple(convert(row, records.JobRecord, from_attributes=True) for row in rows)
        return records.JobPage(jobs=jobs, cursor=cursor)

    def failed(self, *, queue: str | None = None, limit: int = 50, cursor: str | None = None) -> records.FailedPage:
        rows, cursor = self._page("failed", cursor, limit, lambda row: queue in (None, row.queue))
        return records.FailedPage(jobs=tuple(row.failed for row in rows if row.failed), cursor=cursor)

    def _page(
        self, index: str, cursor: str | None, limit: int, is_wanted: Callable[[Row], bool]
    ) -> tuple[list[Row], str | None]:
        found: list[Row] = []
        with self.step() as step:
            for seen, key in enumerate(step.keys_back(index, cursor)):
                if len(found) >= limit or seen >= SEEN_MAX:
                    return found, cursor
                row, cursor = step.row(id_in(key)), key.decode()
                found += [row] if row and is_wanted(row) else []
        return found, None

    def get_failed(self, ids: Sequence[str]) -> list[records.FailedJob]:
        with self.step() as step:
            return [row.failed for row in failures(step, dict.fromkeys(check(ids))) if row and row.failed]

    def stats(self, queue: str | None = None) -> records.Stats:
        with self.step() as step:
            return count(step, step.groups("count") if queue is None else [queue])

    def queues(self) -> list[records.QueueInfo]:
        with self.step() as step:
            paused = set(step.groups("paused"))
            names = sorted(paused.union(step.groups("count")))[:SEEN_MAX]
            return [records.QueueInfo(name=name, is_paused=name in paused, stats=count(step, [name])) for name in names]

    def workers(self) -> list[records.WorkerRecord]:
        with self.step() as step:
            rows = islice(workers(step).values(), SEEN_MAX)
            return [replace(row, processing=sum(1 for _ in step.keys("held", row.id))) for row in rows]

    # ------------------------------------------------------------------------------------------------ administration

    def cancel(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        with self.step(write=True) as step:
            return [cancel(step, step.row(job_id), reason) for job_id in check(ids)]

    def retry_failed(self, ids: Sequence[str]) -> list[RetryAnswer]:
        with self.step(write=True) as step:
            return [retry(step, row) for row in failures(step, check(ids))]

    def forget_failed(self, ids: Sequence[str]) -> int:
        with self.step(write=True) as step:
            return remove(step, Verb.FORGET, filter(None, failures(step, dict.fromkeys(check(ids)))))["total"]

    def clear(self, queue: str, *, limit: int = 1_000) -> records.Cleared:
        with self.step(write=True) as step:
            rows = chain.from_iterable(step.rows("in", queue, state) for state in JobState)
            return convert(remove(step, Verb.CLEAR, rows, limit), records.Cleared)

    def pause(self, queue: str) -> bool:
        with self.step(write=True) as step:
            return step.txn.put(key_of("paused", queue), b"", overwrite=False)

    def resume(self, queue: str) -> bool:
        with self.step(write=True) as step:
            return step.txn.delete(key_of("paused", queue))

    def prune(
        self,
        *,
        completed_older_than: float | None = None,
        failed_older_than: float | None = None,
        arrived_before: float = 0.0,
        limit: int = 1_000,
    ) -> records.Pruned:
        ages = dict.fromkeys(FINISHED, completed_older_than) | {JobState.FAILED: failed_older_than}
        with self.step(write=True) as step:
            ends = {state: step.now - timedelta(seconds=age) for state, age in ages.items() if age is not None}
            old = chain.from_iterable(step.rows("ended", state, before=end) for state, end in ends.items())
            arrived_by = step.now - timedelta(seconds=arrived_before)
            rows = (row for row in old if row.created_at < arrived_by)
            return convert(remove(step, Verb.PRUNE, rows, limit), records.Pruned)

    def export_jobs(
        self, token: str, *, cursor: str | None = None, limit: int = 500
    ) -> tuple[list[records.ExportedJob], str | None]:
        with self.step(write=True) as step:
            start = key_of("moving", token, int(cursor or 0) + 1)
            rows = list(islice(step.rows("moving", token, start=start), limit + 1))
            others = chain(step.rows("due"), step.rows("ended", JobState.FAILED))
            rows += islice(others, limit + 1 - len(rows))  # one more than a page: is there another?
            page = [row if row.token else begin(step, row, token) for row in rows[:limit]]
            jobs = [
                convert(replace(row, status=row.moved_from), records.ExportedJob, from_attributes=True) for row in page
            ]
            return jobs, str(page[-1].number) if len(rows) > limit else None

    def import_jobs(self, jobs: Sequence[records.ExportedJob]) -> list[Enqueued]:
        with self.step(write=True) as step:
            return insert(step, [convert(job, Row, from_attributes=True) for job in check(jobs)])

    def drop_exported(self, token: str, ids: Sequence[str]) -> int:
        with self.step(write=True) as step:
            rows = filter(None, map(step.row, dict.fromkeys(check(ids))))
            return remove(step, Verb.DROP_EXPORTED, (row for row in rows if row.token == token))["total"]


# ---------------------------------------------------------------------------------------------------- their elements


def check(things: Sequence[T]) -> Sequence[T]:
    if len(things) > records.BATCH_JOBS_MAX:
        raise OptionInvalid(f"{len(things)} at once are too many.", mend=f"At most {records.BATCH_JOBS_MAX}.")
    return things


def due(step: Step, said: records.NewJob | Settlement) -> datetime:
    return said.available_at or step.now + timedelta(seconds=said.delay)


def insert(step: Step, rows: Iterable[Row]) -> list[Enqueued]:
    answers: list[Enqueued] = []
    for row in rows:
        is_known = step.row(row.id) is not None
        answers.append(Enqueued(id=row.id, duplicate_of=row.id if is_known else None))
        if not is_known:
            step.write(None, row)
    return answers


def workers(step: Step) -> dict[str, records.WorkerRecord]:
    rows = [standing(step, id_in(key)) for key in step.keys("worker")]
    return {row.id: row for row in sorted(rows, key=lambda row: (row.started_at, row.id))}


def standing(step: Step, worker: str) -> records.WorkerRecord:
    if (found := step.txn.get(key_of("worker", worker))) is None:
        raise LeaseLost(f"worker {worker}: its lease no longer stands.", mend="Register under a new id.")
    return msgpack.decode(found, type=records.WorkerRecord)


def put_worker(step: Step, worker: records.WorkerInfo) -> None:
    ends_at = step.now + timedelta(seconds=worker.lease_s)
    row = {"started_at": step.now} | asdict(worker) | {"heartbeat_at": step.now, "lease_ends_at": ends_at}
    step.txn.put(key_of("worker", worker.id), msgpack.encode(row))


def first_end(step: Step, apart_from: str = "") -> float | None:
    ends = [worker.lease_ends_at for name, worker in workers(step).items() if name != apart_from]
    return (min(ends) - step.now).total_seconds() if ends else None


def take_back(step: Step, row: Row, worker: records.WorkerRecord | None) -> records.LostJob:
    is_crash = worker is not None and not worker.isolates and row.reclaims >= SUSPECT_RECLAIMS
    is_unspent = not is_crash and row.returns < RETURNS_FREE
    counts = {"returns": row.returns + 1, "reclaims": row.reclaims + 1, "claim_seq": row.claim_seq + 1}
    counts |= {"attempts": row.attempts - is_unspent, "crashes": row.crashes + is_crash}
    to = JobState.CANCELLED if row.is_cancel_requested else JobState.PENDING
    new = step.move(row, Verb.RECLAIM, to, step.now, **counts)
    return convert(replace(new, reserved_by=row.reserved_by), records.LostJob, from_attributes=True)


def ready(step: Step, queues: Iterable[str]) -> Iterator[bytes]:
    """The keys of the due jobs: queues in the caller's order, then the highest priority, then (available_at, id)."""
    paused = set(step.groups("paused"))
    for queue in dict.fromkeys(queues):
        for lane in step.groups("due", queue) if queue not in paused else ():
            yield from step.keys("due", queue, lane, before=step.now + MICROSECOND)


def lend(step: Step, worker: str, queues: Iterable[str], slots: int, limit: int) -> list[ClaimedJob]:
    standing(step, worker)
    rows: list[Row] = []
    size = passed_over = 0
    for row in step.rows_at(ready(step, queues)):
        if len(rows) >= slots and row.attempts >= row.max_retries:
            passed_over += 1  # its last attempt must not wait in a worker's memory
            continue
        size += len(row.data.encode())
        if len(rows) >= limit or passed_over > PASSED_OVER_MAX or (rows and size > records.BATCH_BYTES_MAX):
            break
        rows.append(row)
    return [lend_one(step, row, worker) for row in rows]


def lend_one(step: Step, row: Row, worker: str) -> ClaimedJob:
    changes = {"attempts": row.attempts + 1, "claim_seq": row.claim_seq + 1, "reserved_by": worker, "progress": None}
    new = step.move(row, Verb.CLAIM, JobState.PROCESSING, step.now, **changes)
    return convert(new, ClaimedJob, from_attributes=True)


def current(step: Step, claim: Settlement | records.Fence) -> Row | None:
    row = step.row(claim.id)
    is_held = row and row.reserved_by and row.reserved_by == claim.reserved_by
    return row if row and is_held and row.claim_seq == claim.claim_seq else None


def settle(step: Step, said: Settlement) -> Settled:
    status, row = SettleStatus.APPLIED, current(step, said)
    if row is not None:
        row = apply(step, row, said)
    elif (row := step.row(said.id)) and row.claim_seq == said.claim_seq and not row.reserved_by:
        status = SettleStatus.REPEATED
    else:
        status = SettleStatus.STALE
    at = row.available_at if row else None
    return Settled(id=said.id, status=status, state=row.status if row else None, available_at=at)


def apply(step: Step, row: Row, said: Settlement) -> Row:
    is_cancelled = row.is_cancel_requested and said.verb is not Verb.COMPLETE
    to = JobState.CANCELLED if is_cancelled else LEADS_TO[said.verb]
    is_unspent = said.verb in (Verb.SNOOZE, Verb.RELEASE) and not (said.counts_return and row.returns >= RETURNS_FREE)
    changes: dict[str, object] = {"attempts": row.attempts - is_unspent, "returns": row.returns + said.counts_return}
    changes["crashes"] = row.crashes + said.counts_crash
    if said.reason and not row.is_cancel_requested:
        changes["reason"] = said.reason
    if to is JobState.FAILED:
        facts = {"id": fresh_id(), "job_id": row.id, "exception": said.error, "failed_at": step.now}
        changes["failed"] = convert(asdict(row) | facts, records.FailedJob)
    return step.move(row, said.verb, to, due(step, said) if to is JobState.PENDING else step.now, **changes)


def failures(step: Step, failed_ids: Iterable[str]) -> Iterator[Row | None]:
    """The jobs that have these rows of failed_jobs."""
    return (next(step.rows("failure", failed_id), None) for failed_id in failed_ids)


def count(step: Step, queues: Iterable[str]) -> records.Stats:
    counts = Counter[str]()
    for queue in queues:
        counts.update({state.value: step.count(0, "count", queue, state) for state in JobState})
        lanes = [step.keys("due", queue, lane, before=step.now + MICROSECOND) for lane in step.groups("due", queue)]
        counts["due"] += sum(1 for _ in islice(chain.from_iterable(lanes), COUNTED_MAX))
    scheduled, is_estimate = counts["pending"] - counts["due"], counts["due"] >= COUNTED_MAX
    return convert({**counts, "scheduled": scheduled, "is_estimate": is_estimate}, records.Stats)


def cancel(step: Step, row: Row | None, reason: str) -> CancelAnswer:
    if row is None or (row.status, Verb.CANCEL) not in TRANSITIONS:
        return CancelAnswer.FINISHED if row else CancelAnswer.MISSING
    reasons = {"reason": reason or row.reason}
    if row.status is JobState.PENDING:
        step.move(row, Verb.CANCEL, JobState.CANCELLED, step.now, **reasons)
        return CancelAnswer.CANCELLED
    step.write(row, replace(row, cancel_requested_at=row.cancel_requested_at or step.now, **reasons))
    return CancelAnswer.REQUESTED  # its worker decides; the mark outlives it


def retry(step: Step, row: Row | None) -> RetryAnswer:
    if row is None or row.status is not JobState.FAILED:
        return RetryAnswer.CONFLICT if row else RetryAnswer.MISSING
    changes = {**ZERO, "claim_seq": row.claim_seq + 1, "failed": None}
    step.move(row, Verb.RETRY_FAILED, JobState.PENDING, step.now, **changes)
    return RetryAnswer.REQUEUED


def begin(step: Step, row: Row, token: str) -> Row:
    changes = {"token": token, "number": step.count(1, "exports"), "moved_from": row.status}
    return step.move(row, Verb.EXPORT, JobState.MOVING, row.processed_at, claim_seq=row.claim_seq + 1, **changes)


def remove(step: Step, verb: Verb, rows: Iterable[Row], limit: int = SEEN_MAX) -> dict[str, int]:
    """Delete those that the verb may delete: how many of each state, in all, and whether there are more."""
    found = list(islice((row for row in rows if None in TRANSITIONS.get((row.status, verb), ())), limit + 1))
    for row in found[:limit]:
        step.write(row, None)
    counts = Counter(row.status.value for row in found[:limit])
    return {**counts, "total": counts.total(), "has_more": len(found) > limit}
