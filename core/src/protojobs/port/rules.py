"""What each verb of the port does to one record of a job or schedule, as pure functions: record before -> record after.

For the writer of a driver, who finds the row, asks here what becomes of it, and stores that in the same atomic step. (A
store with a language of its own, SQL or Lua, says the same there.) Nothing here reads a clock or a store: `now` is the
store's time, read inside the step. A job comes out as the type that went in, so a driver's subclass of `ExportedJob` -
a job and its row of failed_jobs - keeps its own fields; a job to which nothing was done comes out as the same object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from msgspec import convert
from msgspec.structs import asdict, replace

from protojobs.errors import ContractBroken, OptionInvalid, shown
from protojobs.names import DELAY_MAX_S, check_name, is_storable  # a driver needs them, and imports the port only
from protojobs.port.lifecycle import RETURNS_FREE, SUSPECT_RECLAIMS, TRANSITIONS, JobState, Verb
from protojobs.port.records import (
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
    CancelAnswer,
    ClaimedJob,
    ExportedJob,
    FailedJob,
    Fence,
    JobFilter,
    JobRecord,
    LostJob,
    NewJob,
    RetryAnswer,
    Settled,
    Settlement,
    SettleStatus,
    WorkerInfo,
    WorkerRecord,
    payload_bytes,
)
from protojobs.port.results import RESULT_BYTES_MAX
from protojobs.port.schedules import SCHEDULE_ID_BYTES_MAX, FireStatus, Firing, Overlap, Schedule

__all__ = [
    "DELAY_MAX_S",
    "PASSED_OVER_MAX",
    "SETTLES_TO",
    "Counted",
    "DueJob",
    "after_reclaim",
    "after_settling",
    "as_claimed",
    "cancel",
    "carries",
    "check_batch",
    "check_cursor",
    "check_firings",
    "check_jobs",
    "check_name",
    "check_schedule_cursor",
    "check_settlements",
    "claim",
    "export",
    "fire",
    "first_end",
    "is_current",
    "is_removable",
    "is_storable",
    "is_wanted",
    "lendable",
    "new_row",
    "reclaim",
    "renewed",
    "retry_failed",
    "settle",
    "shortened",
]


class DueJob(Protocol):
    """What `lendable` reads of a job: a driver may pass rows of its own."""

    @property
    def attempts(self) -> int:
        """How many runs it has had."""
        ...

    @property
    def max_retries(self) -> int:
        """How many runs it has after the first."""
        ...

    @property
    def data(self) -> str:
        """Its payload."""
        ...


Job = TypeVar("Job", bound=ExportedJob)
Due = TypeVar("Due", bound=DueJob)
Thing = TypeVar("Thing")
Shown = TypeVar("Shown", JobRecord, FailedJob)

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
PASSED_OVER_MAX = 1_000  # due jobs without a spare attempt that a claim walks past to fill its prefetch


class Counted(Protocol):
    """What of a job decides where a settlement or a reclaim leads: a record of the port, or a row of a store."""

    @property
    def attempts(self) -> int: ...  # noqa: D102
    @property
    def returns(self) -> int: ...  # noqa: D102
    @property
    def crashes(self) -> int: ...  # noqa: D102
    @property
    def reclaims(self) -> int: ...  # noqa: D102
    @property
    def reason(self) -> str | None: ...  # noqa: D102
    @property
    def cancel_requested_at(self) -> datetime | None: ...  # noqa: D102


SETTLES_TO = {
    Verb.COMPLETE: JobState.COMPLETED,
    Verb.RETRY: JobState.PENDING,
    Verb.FAIL: JobState.FAILED,
    Verb.SNOOZE: JobState.PENDING,
    Verb.RELEASE: JobState.PENDING,
    Verb.CANCEL: JobState.CANCELLED,
}


def check_batch(things: Sequence[Thing]) -> Sequence[Thing]:
    """The same ids, jobs or settlements; `OptionInvalid` for more than BATCH_JOBS_MAX."""
    if len(things) > BATCH_JOBS_MAX:
        raise OptionInvalid(f"{len(things)} at once are too many.", mend=f"Send at most {BATCH_JOBS_MAX}.")
    return things


def check_jobs(jobs: Sequence[NewJob]) -> None:
    """Raise `OptionInvalid` for more jobs or payload bytes than one enqueue takes."""
    check_batch(jobs)
    # Every job passes here and in `lendable`: a payload in ASCII, as nearly all are, is measured without a call.
    size = sum([len(data) if (data := job.data).isascii() else payload_bytes(data) for job in jobs])
    if size > BATCH_BYTES_MAX:
        raise OptionInvalid(f"{size} payload bytes are too many.", mend=f"Send at most {BATCH_BYTES_MAX}.")


def check_settlements(settlements: Sequence[Settlement]) -> None:
    """Raise `OptionInvalid` for too many, or for a verb that settles nothing. Ask before any of them is applied.

    Likewise for what they carry: a result and `then` go with `complete` only, and all `then` together are bounded as
    one enqueue is, all results by BATCH_BYTES_MAX.
    """
    check_batch(settlements)
    for verb in [settlement.verb for settlement in settlements]:
        if verb not in SETTLES_TO:
            raise OptionInvalid(f"{shown(verb)} does not settle a claim.", mend="Use one of the six that do.")
    if carrying := [settlement for settlement in settlements if carries(settlement)]:
        _check_carried(carrying)


def carries(settlement: Settlement) -> bool:
    """Whether it brings a result, or jobs that come next: most do not, and a driver settles those in a shorter way."""
    return settlement.result is not None or bool(settlement.then)


def _check_carried(settlements: Sequence[Settlement]) -> None:
    if verbs := {settlement.verb for settlement in settlements} - {Verb.COMPLETE}:
        raise OptionInvalid(f"{shown(min(verbs))} takes neither a result nor jobs that come next: complete does.")
    sizes = [payload_bytes(settlement.result or "") for settlement in settlements]
    if max(sizes) > RESULT_BYTES_MAX:
        raise OptionInvalid(f"A result of {max(sizes)} bytes is too long.", mend=f"It has at most {RESULT_BYTES_MAX}.")
    if sum(sizes) > BATCH_BYTES_MAX:
        raise OptionInvalid(f"{sum(sizes)} bytes of results are too many.", mend=f"Send at most {BATCH_BYTES_MAX}.")
    check_jobs([job for settlement in settlements for job in settlement.then])


def new_row(job: NewJob, now: datetime) -> ExportedJob:
    """A pushed job as it is first stored."""
    return convert(asdict(job) | _NEW | {"created_at": now, "available_at": _due_at(job, now)}, ExportedJob)


def lendable(due: Iterable[Due], *, slots: int, limit: int) -> list[Due]:
    """Which of the due jobs one claim lends; they come, and go, in the order in which they are to run.

    At most `limit`, within BATCH_BYTES_MAX but for the first. Beyond `slots` one on its last attempt is passed over:
    it must not wait in a worker's memory. Takes little more from `due` than it lends, so `due` may be a lazy walk.
    """
    lent: list[Due] = []
    size = passed_over = 0
    for job in due:
        if len(lent) >= limit or passed_over >= PASSED_OVER_MAX:
            break
        if len(lent) >= slots and job.attempts >= job.max_retries:
            passed_over += 1
            continue
        size += len(data) if (data := job.data).isascii() else payload_bytes(data)
        if size > BATCH_BYTES_MAX and lent:
            break
        lent.append(job)
    return lent


def claim(job: Job, worker: str, now: datetime) -> tuple[Job, ClaimedJob]:
    """Lend a pending job to a worker, whose row must stand."""
    counts = {"attempts": job.attempts + 1, "claim_seq": job.claim_seq + 1}
    lent = _moved(job, Verb.CLAIM, JobState.PROCESSING, now, **counts, reserved_by=worker, progress=None)
    return lent, as_claimed(lent)


def as_claimed(job: JobRecord) -> ClaimedJob:
    """A processing job as its worker sees it: the answer of `claim` and of `held`."""
    return convert(asdict(job) | {"is_cancel_requested": job.cancel_requested_at is not None}, ClaimedJob)


def is_current(job: JobRecord, claim: Fence | Settlement) -> bool:
    """Whether this is the job's current claim: id, claim_seq and holder, all three."""
    is_held = job.reserved_by != "" and job.reserved_by == claim.reserved_by
    return is_held and job.id == claim.id and job.claim_seq == claim.claim_seq


def settle(job: Job | None, settlement: Settlement, now: datetime, *, failed_id: str) -> tuple[Job | None, Settled]:
    """Do what the holder of the current claim says. `job` is the one of that id, None where there is none.

    A job that fails comes out with its row of failed_jobs, which is named `failed_id`.
    """
    if job is None:
        return None, Settled(id=settlement.id, status=SettleStatus.STALE)
    if is_current(job, settlement):
        job, status = _applied(job, settlement, now, failed_id), SettleStatus.APPLIED
    else:
        was_settled = job.claim_seq == settlement.claim_seq and not job.reserved_by
        status = SettleStatus.REPEATED if was_settled else SettleStatus.STALE
    return job, Settled(id=settlement.id, status=status, state=job.status, available_at=job.available_at)


def _applied(job: Job, settlement: Settlement, now: datetime, failed_id: str) -> Job:
    to, counts, reason = after_settling(job, settlement)
    return _moved(
        job,
        settlement.verb,
        to,
        _due_at(settlement, now) if to is JobState.PENDING else now,
        **counts,
        reason=reason,
        failed=_failure(job, settlement, now, failed_id) if to is JobState.FAILED else job.failed,
    )


def after_settling(job: Counted, settlement: Settlement) -> tuple[JobState, dict[str, int], str | None]:
    """The state of a job after a settlement of its current claim, its counts, and its reason."""
    to = SETTLES_TO[settlement.verb]
    is_marked = job.cancel_requested_at is not None
    if is_marked and to is not JobState.COMPLETED:  # the person's wish outlives the run; work that was done stays done
        to = JobState.CANCELLED
    is_counted = settlement.verb is Verb.RELEASE and settlement.counts_return
    is_unspent = settlement.verb in (Verb.SNOOZE, Verb.RELEASE) and not (is_counted and job.returns >= RETURNS_FREE)
    counts = {
        "attempts": job.attempts - is_unspent,
        "returns": job.returns + is_counted,
        "crashes": job.crashes + settlement.counts_crash,
    }
    return to, counts, settlement.reason if settlement.reason and not is_marked else job.reason


def _failure(job: ExportedJob, settlement: Settlement, now: datetime, failed_id: str) -> FailedJob:
    cause = {"exception": settlement.error, "fingerprint": settlement.fingerprint}
    return convert(asdict(job) | cause | {"id": failed_id, "job_id": job.id, "failed_at": now}, FailedJob)


def renewed(worker: WorkerInfo, now: datetime) -> WorkerRecord:
    """The worker's row with a lease that begins now. One that is no row yet starts now."""
    lease = {"heartbeat_at": now, "lease_ends_at": now + timedelta(seconds=worker.lease_s)}
    return convert({"started_at": now} | asdict(worker) | lease, WorkerRecord)


def first_end(workers: Iterable[WorkerRecord], now: datetime, *, apart_from: str = "") -> float | None:
    """Seconds until the first of their leases ends, that of one worker left out; negative once it has."""
    ends = [worker.lease_ends_at for worker in workers if worker.id != apart_from]
    return (min(ends) - now).total_seconds() if ends else None


def reclaim(job: Job, worker: WorkerRecord | None, now: datetime) -> tuple[Job, LostJob]:
    """Take a job back. `worker` is its holder's row, if that lapsed in this very step; None for an orphan."""
    to, counts = after_reclaim(job, dies_with_its_jobs=worker is not None and not worker.isolates)
    after = _moved(
        job,
        Verb.RECLAIM,
        to,
        job.available_at if to is JobState.PENDING else now,
        **counts,
        claim_seq=job.claim_seq + 1,
    )
    return after, convert(asdict(after) | {"state": after.status, "reserved_by": job.reserved_by}, LostJob)


def after_reclaim(job: Counted, *, dies_with_its_jobs: bool) -> tuple[JobState, dict[str, int]]:
    """The state of a job after it was taken back, and its counts.

    `dies_with_its_jobs`: its worker, whose lease has lapsed, ran suspects in its own process, so that a suspect may
    have killed it.
    """
    is_crash = dies_with_its_jobs and job.reclaims >= SUSPECT_RECLAIMS
    is_unspent = not is_crash and job.returns < RETURNS_FREE
    counts = {
        "attempts": job.attempts - is_unspent,
        "crashes": job.crashes + is_crash,
        "returns": job.returns + 1,
        "reclaims": job.reclaims + 1,
    }
    return JobState.PENDING if job.cancel_requested_at is None else JobState.CANCELLED, counts


def cancel(job: Job | None, reason: str, now: datetime) -> tuple[Job | None, CancelAnswer]:
    """End a pending job, or mark a processing one: its worker decides, and the mark outlives it."""
    if job is None:
        return None, CancelAnswer.MISSING
    if (job.status, Verb.CANCEL) not in TRANSITIONS:
        return job, CancelAnswer.FINISHED
    reason_kept = reason or job.reason
    if job.status in (JobState.PENDING, JobState.UNREADABLE):
        return _moved(job, Verb.CANCEL, JobState.CANCELLED, now, reason=reason_kept), CancelAnswer.CANCELLED
    marked_at = job.cancel_requested_at or now
    return replace(job, cancel_requested_at=marked_at, reason=reason_kept), CancelAnswer.REQUESTED


def retry_failed(job: Job | None, now: datetime) -> tuple[Job | None, RetryAnswer]:
    """Requeue the job of a row of failed_jobs, which goes; None where there is no such row."""
    if job is None:
        return None, RetryAnswer.MISSING
    if (job.status, Verb.RETRY_FAILED) not in TRANSITIONS:
        return job, RetryAnswer.CONFLICT
    counts = _UNTRIED | {"claim_seq": job.claim_seq + 1}
    return _moved(job, Verb.RETRY_FAILED, JobState.PENDING, now, **counts, failed=None), RetryAnswer.REQUEUED


def export(job: Job) -> Job:
    """Set a job aside for another store. The driver keeps which state it had, and under which token it moves."""
    return _moved(job, Verb.EXPORT, JobState.MOVING, job.processed_at, claim_seq=job.claim_seq + 1)


def is_removable(job: JobRecord, verb: Verb) -> bool:
    """Whether the verb (forget, clear, prune, drop_exported) may delete the job as it stands."""
    return None in TRANSITIONS.get((job.status, verb), ())


def is_wanted(job: JobRecord, which: JobFilter) -> bool:
    """Whether `find` shows the job."""
    is_there = which.queue in (None, job.queue) and which.job_name in (None, job.job_name)
    return is_there and (not which.states or job.status in which.states)


def shortened(shown: Shown, chars_max: int | None) -> Shown:
    """A job, or a row of failed_jobs, as a list shows it that was asked for so many characters of each text."""
    if chars_max is None:
        return shown
    if isinstance(shown, FailedJob):
        end = max(0, len(shown.exception) - chars_max)
        return replace(shown, data=shown.data[:chars_max], exception=shown.exception[end:])
    return replace(shown, data=shown.data[:chars_max])


def check_cursor(cursor: str | None) -> str | None:
    """`cursor`, if it is the id after which a list goes on; OptionInvalid for what no list has given."""
    if cursor is not None and not _ID.fullmatch(cursor):
        raise OptionInvalid(f"{shown(cursor)} is no cursor of this list.", mend="Pass one that the list gave.")
    return cursor


def check_schedule_cursor(cursor: str | None) -> str | None:
    """`cursor`, if it may be the id of the schedule after which a list goes on; else OptionInvalid."""
    if cursor is not None and not (is_storable(cursor) and 0 < len(cursor.encode()) <= SCHEDULE_ID_BYTES_MAX):
        raise OptionInvalid(f"{shown(cursor)} is no cursor of this list.", mend="Pass one that the list gave.")
    return cursor


def check_firings(firings: Sequence[Firing]) -> None:
    """Raise `OptionInvalid` for too many or too large ones, and for one that would not lead forward."""
    check_batch(firings)
    check_jobs([firing.job for firing in firings if firing.job is not None])
    for firing in firings:
        if firing.due < firing.expected_next or (firing.next_due is not None and firing.next_due <= firing.due):
            raise OptionInvalid(f"schedule {shown(firing.id)}: a firing leads from its time to a later one.")


def fire(
    schedule: Schedule | None, firing: Firing, now: datetime, *, last_job: JobState | None, is_known: bool
) -> tuple[Schedule | None, FireStatus]:
    """Move a schedule on. `schedule` is the one of that id, None where there is none.

    `last_job` is the state of the job that it fired last, None where there is none (any more). `is_known` says that the
    store has a job of the new one's id. With FIRED the job is to be stored in the same step.
    """
    if schedule is None or schedule.is_paused or schedule.next_due_at != firing.expected_next or firing.due > now:
        return schedule, FireStatus.LOST
    if schedule.last_due_at is not None and firing.due <= schedule.last_due_at:  # no time ever fires again
        return schedule, FireStatus.LOST
    status = FireStatus.DUPLICATE if is_known else FireStatus.FIRED
    if firing.job is None or _is_held_up(schedule.overlap, last_job):
        status = FireStatus.SKIPPED
    job_id = schedule.last_job_id if status is FireStatus.SKIPPED or firing.job is None else firing.job.id
    moved = replace(
        schedule,
        next_due_at=firing.next_due,
        last_due_at=firing.due,
        last_job_id=job_id,
        version=schedule.version + 1,
    )
    return moved, status


def _is_held_up(overlap: Overlap, last_job: JobState | None) -> bool:
    if overlap is Overlap.ALLOW:
        return False
    is_waiting = last_job in (JobState.PENDING, JobState.MOVING)
    return is_waiting or (overlap is Overlap.SKIP and last_job is JobState.PROCESSING)


_UNTRIED = {"attempts": 0, "crashes": 0, "returns": 0, "reclaims": 0}
_NEW = _UNTRIED | {
    "status": JobState.PENDING,
    "claim_seq": 0,
    "reserved_by": "",
    "reserved_at": None,
    "processed_at": None,
}


def _moved(job: Job, verb: Verb, to: JobState, at: datetime | None, **changes: object) -> Job:
    """The job in its next state, if lifecycle.py has that move. It is due, was lent or ended `at`."""
    if to not in TRANSITIONS.get((job.status, verb), ()):
        raise ContractBroken(f"job {job.id}: {verb} cannot lead from {job.status} to {to}.")
    after: dict[str, object] = {"status": to, "reserved_by": ""}
    if to is JobState.PENDING:
        after |= {"available_at": at, "reserved_at": None, "processed_at": None}
    else:
        after["reserved_at" if to is JobState.PROCESSING else "processed_at"] = at
    return replace(job, **after | changes)


def _due_at(source: NewJob | Settlement, now: datetime) -> datetime:
    return source.available_at or now + timedelta(seconds=source.delay)
