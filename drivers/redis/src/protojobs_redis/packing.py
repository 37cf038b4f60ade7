"""How jobs look in the store and on the wire: MessagePack arrays, field by field as in scripts/prelude.lua."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct
from msgspec.msgpack import Encoder

from protojobs.lifecycle import JobState
from protojobs.records import ClaimedJob, JobRecord, NewJob, Settlement, SettleStatus

__all__ = [
    "LETTERS",
    "STATES",
    "Answered",
    "Blob",
    "Entry",
    "Failure",
    "Lent",
    "Pushed",
    "Row",
    "Time",
    "blob_of",
    "claimed",
    "claims",
    "due_of",
    "encode",
    "micros",
    "moment",
    "moment_or_none",
    "moment_text",
    "pushed",
    "record",
]

Time = int | str  # microseconds since 1970; as text where a double could not hold them. 0: no time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

STATES = {
    "p": JobState.PENDING,
    "r": JobState.PROCESSING,
    "c": JobState.COMPLETED,
    "f": JobState.FAILED,
    "x": JobState.CANCELLED,
    "m": JobState.MOVING,
}
LETTERS = {state: letter for letter, state in STATES.items()}

encode = _values = Encoder().encode


class Row(Struct, array_like=True, gc=False):
    """The small part of a job, which scripts read and change. Values that say nothing are not stored at its end."""

    queue: str
    priority: int
    max_retries: int
    size: int  # bytes of the payload
    created_at: Time
    available_at: Time
    state: str = "p"
    attempts: int = 0
    claim_seq: int = 0
    reserved_by: str = ""
    reserved_at: Time = 0
    processed_at: Time = 0
    crashes: int = 0
    returns: int = 0
    reclaims: int = 0
    progress: float = -1
    cancel_requested_at: Time = 0
    reason: str = ""
    failed_id: str = ""
    moved_from: str = ""
    fingerprint: str = ""  # of its failure


class Blob(Struct, array_like=True, gc=False):
    """The part of a job that never changes, and which scripts only hand through. It is stored without its array's head.

    Three of its fields are in the row, too, where scripts can read them; here they make one piece with the others.
    """

    queue: str
    job_name: str
    job_class: str
    data: str
    priority: int
    max_retries: int
    retry_delay: float
    retry_policy: str | None
    timeout: float
    meta: str | None


# A job as scripts/claiming.lua lends it: id, claim_seq, attempts, available_at, reserved_at, crashes, returns,
# reclaims, is it marked to be cancelled, its holder, and what is in Blob. A tuple, since those are made fastest.
Lent = tuple[
    str, int, int, datetime, datetime, int, int, int, bool, str,
    str, str, str, str, int, int, float, str | None, float, str | None,
]  # fmt: skip
# The answer to a settlement, as scripts/completing.lua gives it.
Answered = tuple[str, SettleStatus, JobState | None, datetime | None]


class Entry(Struct, array_like=True, gc=False):
    """A job as scripts answer it."""

    id: str
    row: Row
    blob: Blob


class Failure(Struct, array_like=True, gc=False):
    """A row of failed_jobs. What else it shows is its job's."""

    job_id: str
    failed_at: Time
    attempts: int
    exception: str


def micros(seconds: float | timedelta) -> int:
    """A duration in microseconds."""
    return (seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)) // MICROSECOND


def moment(at: Time) -> datetime:
    """A stored time."""
    return EPOCH + timedelta(0, 0, int(at))


def moment_or_none(at: Time) -> datetime | None:
    """A stored time that may be missing."""
    return moment(at) if at else None


def moment_text(at: datetime | None) -> str:
    """A time on its way to a script: exact, however far ahead."""
    return str((at - EPOCH) // MICROSECOND) if at else "0"


def due_of(said: NewJob | Settlement) -> int | str:
    """The moment that was named, as text, or else the delay in microseconds."""
    if said.available_at is not None:
        return moment_text(said.available_at)
    return micros(said.delay) if said.delay else 0


Pushed = tuple[str, str, int, int, int, int | str]


def pushed(job: NewJob) -> Pushed:
    """What scripts read of a new job: id, queue, priority, max_retries, bytes of data, due."""
    size = len(job.data) if job.data.isascii() else len(job.data.encode())
    return job.id, job.queue, job.priority, job.max_retries, size, due_of(job)


def blob_of(job: NewJob | JobRecord) -> bytes:
    """The part of a job that never changes, packed."""
    return _values(
        (
            job.queue,
            job.job_name,
            job.job_class,
            job.data,
            job.priority,
            job.max_retries,
            job.retry_delay,
            job.retry_policy,
            job.timeout,
            job.meta,
        )
    )[1:]


def claims(lent: Sequence[Lent]) -> list[ClaimedJob]:
    """Jobs as they are lent. By position, since twenty names for each would cost as much as all the rest."""
    return [
        ClaimedJob(
            id, seq, holder, queue, name, kind, data, priority, attempts, retries, delay, policy, timeout, due, since,
            crashes, returns, reclaims, meta, is_marked,
        )
        for (
            id, seq, attempts, due, since, crashes, returns, reclaims, is_marked, holder,
            queue, name, kind, data, priority, retries, delay, policy, timeout, meta,
        ) in lent
    ]  # fmt: skip


def claimed(entry: Entry) -> ClaimedJob:
    """The job as it was lent."""
    row, blob = entry.row, entry.blob
    return ClaimedJob(
        id=entry.id,
        claim_seq=row.claim_seq,
        reserved_by=row.reserved_by,
        queue=row.queue,
        job_name=blob.job_name,
        job_class=blob.job_class,
        data=blob.data,
        priority=row.priority,
        attempts=row.attempts,
        max_retries=row.max_retries,
        retry_delay=blob.retry_delay,
        retry_policy=blob.retry_policy,
        timeout=blob.timeout,
        available_at=moment(row.available_at),
        reserved_at=moment(row.reserved_at),
        crashes=row.crashes,
        returns=row.returns,
        reclaims=row.reclaims,
        meta=blob.meta,
        is_cancel_requested=bool(row.cancel_requested_at),
    )


def record(entry: Entry) -> JobRecord:
    """The job as people see it."""
    row, blob = entry.row, entry.blob
    return JobRecord(
        id=entry.id,
        queue=row.queue,
        job_name=blob.job_name,
        job_class=blob.job_class,
        data=blob.data,
        status=STATES[row.state],
        priority=row.priority,
        attempts=row.attempts,
        max_retries=row.max_retries,
        retry_delay=blob.retry_delay,
        retry_policy=blob.retry_policy,
        timeout=blob.timeout,
        created_at=moment(row.created_at),
        available_at=moment(row.available_at),
        reserved_at=moment_or_none(row.reserved_at),
        processed_at=moment_or_none(row.processed_at),
        reserved_by=row.reserved_by,
        claim_seq=row.claim_seq,
        crashes=row.crashes,
        returns=row.returns,
        reclaims=row.reclaims,
        progress=row.progress if row.progress >= 0 else None,
        cancel_requested_at=moment_or_none(row.cancel_requested_at),
        reason=row.reason or None,
        meta=blob.meta,
    )
