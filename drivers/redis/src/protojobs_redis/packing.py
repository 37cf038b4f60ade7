"""How jobs look in the store and on the wire: MessagePack arrays, field by field as in scripts/prelude.lua."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import Struct
from msgspec.msgpack import Encoder

from protojobs.lifecycle import JobState
from protojobs.records import ClaimedJob, JobRecord, NewJob, Settlement

__all__ = [
    "LETTERS",
    "STATES",
    "Blob",
    "Entry",
    "Failure",
    "Pushed",
    "Row",
    "Time",
    "blob_of",
    "claimed",
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

encode = Encoder().encode


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


class Blob(Struct, array_like=True, gc=False):
    """The large part of a job, which never changes, and which scripts only hand through."""

    job_name: str
    job_class: str
    data: str
    retry_delay: float
    timeout: float
    retry_policy: str | None = None
    meta: str | None = None


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


class Pushed(Struct, array_like=True, gc=False):
    """The small part of a job on its way into the store."""

    id: str
    queue: str
    priority: int
    max_retries: int
    size: int
    due: int | str


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
    return micros(said.delay) if said.available_at is None else moment_text(said.available_at)


def pushed(job: NewJob) -> Pushed:
    """The small part of a new job."""
    size = len(job.data) if job.data.isascii() else len(job.data.encode())
    return Pushed(job.id, job.queue, job.priority, job.max_retries, size, due_of(job))


def blob_of(job: NewJob | JobRecord) -> bytes:
    """The large part of a job, packed."""
    return encode(Blob(job.job_name, job.job_class, job.data, job.retry_delay, job.timeout, job.retry_policy, job.meta))


def claimed(entry: Entry) -> ClaimedJob:
    """The job as it is lent."""
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
