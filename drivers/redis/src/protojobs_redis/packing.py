"""How jobs look in the store and on the wire: MessagePack arrays, field by field as in scripts/prelude.lua."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Raw, Struct
from msgspec.msgpack import Decoder, Encoder, decode

from protojobs.port.lifecycle import JobState
from protojobs.port.records import ClaimedJob, FailedJob, JobRecord, NewJob, Settlement, SettleStatus
from protojobs.port.unreadable import is_unreadable, read, why_unreadable

__all__ = [
    "LETTERS",
    "SPOILT",
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
    "failed_job",
    "held_by",
    "is_number",
    "micros",
    "moment",
    "moment_or_none",
    "moment_text",
    "pushed",
    "record",
    "texts",
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
# What is asked for may hold half of a surrogate pair. In its place goes NUL, which no stored id or name holds: so there
# is none such.
HALVES = "protojobs.halves"
codecs.register_error(HALVES, lambda error: ("\0", error.end if isinstance(error, UnicodeEncodeError) else 0))


def is_number(text: str) -> bool:
    """Whether it is a whole number as scripts write one."""
    return text.isascii() and text.isdigit()


def texts(names: Iterable[str]) -> bytes:
    """Ids or names that are asked for, packed."""
    names = list(names)
    try:
        return encode(names)
    except UnicodeEncodeError:
        return encode([name.encode(errors=HALVES).decode() for name in names])


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
    """A job as scripts answer it: row and blob as they are kept, empty where there is none that a script could read."""

    id: str
    row: bytes
    blob: bytes
    is_misplaced: bool  # it says that it is pending, or processing, and is not where such jobs are looked for


class Failure(Struct, array_like=True, gc=False):
    """A row of failed_jobs. What else it shows is its job's."""

    job_id: str
    failed_at: Time
    attempts: int
    exception: str


SPOILT = (ValueError, KeyError, OverflowError)  # what comes of reading what no driver of ours has written
_rows, _blobs, _failures, _raws = Decoder(Row), Decoder(Blob), Decoder(Failure), Decoder(list[Raw])
_TIMES_OR_NONE = ("reserved_at", "processed_at", "cancel_requested_at")
_NO_ROW: dict[str, object] = {
    "queue": "",
    "priority": 0,
    "max_retries": 0,
    "created_at": 0,
    "available_at": 0,
    "state": "that of a row which cannot be read",
    **dict(zip(Row.__struct_fields__[7:], Row.__struct_defaults__[1:], strict=True)),
}


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


def claimed(entry: Entry) -> ClaimedJob | str:
    """The job as it was lent; or why it cannot be, since something other than this driver has written it."""
    job = record(entry)
    if is_unreadable(job) and (why := why_unreadable(_stored(entry))):
        return why
    return ClaimedJob(
        id=job.id,
        claim_seq=job.claim_seq,
        reserved_by=job.reserved_by,
        queue=job.queue,
        job_name=job.job_name,
        job_class=job.job_class,
        data=job.data,
        priority=job.priority,
        attempts=job.attempts,
        max_retries=job.max_retries,
        retry_delay=job.retry_delay,
        retry_policy=job.retry_policy,
        timeout=job.timeout,
        available_at=job.available_at,
        reserved_at=job.reserved_at or job.available_at,
        crashes=job.crashes,
        returns=job.returns,
        reclaims=job.reclaims,
        meta=job.meta,
        is_cancel_requested=job.cancel_requested_at is not None,
    )


def held_by(entry: Entry) -> tuple[str, Time, int]:
    """Who holds the job, since when, and the claim_seq of that claim; nobody, where its row cannot be read."""
    try:
        row = _rows.decode(entry.row)
    except ValueError:
        return "", 0, 0
    return row.reserved_by, row.reserved_at, row.claim_seq


def record(entry: Entry) -> JobRecord:
    """The job as people see it; of what something other than this driver has written, as much as can be read."""
    try:
        row, blob = _rows.decode(entry.row), _blobs.decode(entry.blob)
        if entry.is_misplaced:
            return read(JobRecord, _stored(entry))
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
    except SPOILT:
        return read(JobRecord, _stored(entry))


def failed_job(failed_id: str, failure: bytes, entry: Entry) -> FailedJob:
    """A row of failed_jobs, with what it shows of its job."""
    try:
        said, row, blob = _failures.decode(failure), _rows.decode(entry.row), _blobs.decode(entry.blob)
        return FailedJob(
            id=failed_id,
            job_id=said.job_id,
            queue=row.queue,
            job_class=blob.job_class,
            job_name=blob.job_name,
            data=blob.data,
            attempts=said.attempts,
            exception=said.exception,
            failed_at=moment(said.failed_at),
            fingerprint=row.fingerprint,
        )
    except SPOILT:
        job, row_of_it = _stored(entry), _values_of(Failure, failure)
        return read(
            FailedJob,
            {
                **{name: job[name] for name in ("queue", "job_class", "job_name", "data")},
                **{name: row_of_it.get(name) for name in ("attempts", "exception")},
                "id": failed_id,
                "job_id": entry.id,
                "failed_at": _time(row_of_it.get("failed_at")),
                "fingerprint": _values_of(Row, entry.row).get("fingerprint", ""),
            },
        )


# ------------------------------------------------------------------------------ what something else than we has written


def _stored(entry: Entry) -> dict[str, object]:
    """What can be read of a job, by the names of JobRecord, for `protojobs.port.unreadable` to judge."""
    row, blob = _values_of(Row, entry.row), _values_of(Blob, entry.blob)
    found = _NO_ROW | blob | row
    status: object = STATES.get(str(found["state"]), found["state"])
    return {
        **{name: found.get(name) for name in JobRecord.__struct_fields__},
        **{name: _time(found[name]) for name in ("created_at", "available_at")},
        **{name: _time(at) if (at := found[name]) else None for name in _TIMES_OR_NONE},
        "id": entry.id,
        "status": f"{status}, and in no list of such jobs" if entry.is_misplaced else status,
        "progress": None if found["progress"] == -1 else found["progress"],
        "reason": found["reason"] or None,
    }


def _values_of(kind: type[Struct], packed: bytes) -> dict[str, object]:
    """The values of an array by their names in `kind`; none where it is no array."""
    try:
        values = _raws.decode(packed)
    except ValueError:
        return {}
    return {name: _value(raw) for name, raw in zip(kind.__struct_fields__, values, strict=False)}


def _value(raw: Raw) -> object:
    try:
        return decode(raw)
    except ValueError:  # a text that is none
        packed = bytes(raw)
        return packed[{0xD9: 2, 0xDA: 3, 0xDB: 5}.get(packed[0], 1) :]


def _time(value: object) -> object:
    """The moment; the value itself where it is none."""
    try:
        return moment(value) if isinstance(value, int | str) else value
    except (ValueError, OverflowError):
        return value
