"""How jobs look in the store and on the wire: MessagePack arrays, field by field as in scripts/prelude.lua."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Raw, Struct, convert
from msgspec.msgpack import Decoder, Encoder, decode
from msgspec.structs import asdict, replace

from protojobs.clock import EPOCH
from protojobs.port.lifecycle import JobState
from protojobs.port.records import (
    ClaimedJob,
    ExportedJob,
    FailedJob,
    JobRecord,
    NewJob,
    Settlement,
    SettleStatus,
    payload_bytes,
)
from protojobs.port.results import JobResult
from protojobs.port.rules import as_claimed
from protojobs.port.unreadable_rows import is_unreadable, read, why_unreadable

__all__ = [
    "LETTERS",
    "SPOILT",
    "STATES",
    "Blob",
    "Entry",
    "Failure",
    "PackedClaim",
    "PackedSettled",
    "Row",
    "Time",
    "blob_of",
    "claimed",
    "claims_of",
    "due_of",
    "encode",
    "failed_job",
    "held_by",
    "imported_row",
    "is_number",
    "job_result",
    "micros",
    "moment",
    "moment_text",
    "pushed",
    "record",
    "texts",
]

Time = int | str  # microseconds since 1970; as text where a double could not hold them. 0: no time

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
# A caller may ask for an id or a name with half of a surrogate pair. In its place goes NUL, which no stored id or name
# holds: so none is there.
HALVES = "protojobs.halves"
codecs.register_error(HALVES, lambda error: ("\0", error.end if isinstance(error, UnicodeEncodeError) else 0))


def is_number(text: str) -> bool:
    """Whether it is a whole number as scripts write one."""
    return text.isascii() and text.isdigit()


def texts(names: Iterable[str]) -> bytes:
    """Ids or names that a caller asks for, packed."""
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
    has_result: int = 0


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


# A claim as scripts/claiming.lua returns it: id, claim_seq, attempts, available_at, reserved_at, crashes, returns,
# reclaims, is it marked to be cancelled, its holder, and what is in Blob. A tuple, since those are made fastest.
PackedClaim = tuple[
    str, int, int, datetime, datetime, int, int, int, bool, str,
    str, str, str, str, int, int, float, str | None, float, str | None,
]  # fmt: skip
# What became of a settlement, as scripts/completing.lua returns it.
PackedSettled = tuple[str, SettleStatus, JobState | None, datetime | None]


class Entry(Struct, array_like=True, gc=False):
    """A job as scripts return it: row and blob as they are kept, empty where there is none that a script could read."""

    id: str
    row: bytes
    blob: bytes
    is_misplaced: bool  # its row says pending, or processing, and it is not where such jobs are looked for


class Failure(Struct, array_like=True, gc=False):
    """A row of failed_jobs. What else it shows is its job's."""

    job_id: str
    failed_at: Time
    attempts: int
    exception: str


SPOILT = (ValueError, OverflowError)  # what comes of reading what no driver of ours has written
_rows, _blobs, _failures, _raws = Decoder(Row), Decoder(Blob), Decoder(Failure), Decoder(list[Raw])
_TIMES_OR_NONE = ("reserved_at", "processed_at", "cancel_requested_at")
_NO_BLOB = dict.fromkeys(("job_name", "job_class", "data"), "") | dict.fromkeys(("retry_delay", "timeout"), 0.0)
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


def moment_text(at: datetime | None) -> str:
    """A time on its way to a script: exact, however far ahead."""
    return str((at - EPOCH) // MICROSECOND) if at else "0"


def due_of(item: NewJob | Settlement) -> int | str:
    """The moment that was named, as text, or else the delay in microseconds."""
    if item.available_at is not None:
        return moment_text(item.available_at)
    return micros(item.delay) if item.delay else 0


def pushed(job: NewJob) -> tuple[str, str, int, int, int, int | str]:
    """What scripts read of a new job: id, queue, priority, max_retries, bytes of data, due."""
    due = 0 if job.available_at is None and not job.delay else due_of(job)
    return job.id, job.queue, job.priority, job.max_retries, payload_bytes(job.data), due


def blob_of(job: NewJob | JobRecord) -> bytes:
    """The part of a job that never changes, packed: what is in Blob, in its order."""
    return encode(
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


def imported_row(job: ExportedJob) -> Row:
    """The row of a job as it was where it came from; its times are text, as scripts/import_jobs.lua reads them."""
    is_failed, failed = job.status is JobState.FAILED, job.failed
    ended_at = job.processed_at or (failed.failed_at if failed else None)
    values: dict[str, Any] = asdict(job) | {
        "size": payload_bytes(job.data),
        "state": LETTERS[job.status],
        "reserved_by": "",
        "processed_at": ended_at if is_failed else None,
        "failed_id": failed.id if failed else "",
        "fingerprint": failed.fingerprint if failed else "",
    }
    fields = {name: value for name in Row.__struct_fields__ if (value := values.get(name)) is not None}
    texts: dict[str, Any] = {name: moment_text(at) if isinstance(at, datetime) else at for name, at in fields.items()}
    return Row(**texts)


def claims_of(packed: Sequence[PackedClaim]) -> list[ClaimedJob]:
    """Jobs as their worker sees them. By position, since twenty names for each would cost as much as all the rest."""
    return [
        ClaimedJob(
            id, seq, holder, queue, name, kind, data, priority, attempts, retries, delay, policy, timeout, due, since,
            crashes, returns, reclaims, meta, is_marked,
        )
        for (
            id, seq, attempts, due, since, crashes, returns, reclaims, is_marked, holder,
            queue, name, kind, data, priority, retries, delay, policy, timeout, meta,
        ) in packed
    ]  # fmt: skip


def claimed(entry: Entry) -> ClaimedJob | str:
    """The job as its worker sees it; or why it cannot be read, since something else than this driver has written it."""
    job = record(entry)
    if is_unreadable(job) and (why := why_unreadable(_readable_values(entry))):
        return why
    return as_claimed(replace(job, reserved_at=job.reserved_at or job.available_at))


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
        if not entry.is_misplaced:
            row.progress = row.progress if row.progress >= 0 else -1
            return convert(_as_record(entry, asdict(blob) | asdict(row)), JobRecord)
    except SPOILT:
        pass
    return read(JobRecord, _readable_values(entry))


def failed_job(failed_id: str, packed: bytes, entry: Entry) -> FailedJob:
    """A row of failed_jobs, with what it shows of its job."""
    try:
        failure, row, blob = _failures.decode(packed), _rows.decode(entry.row), _blobs.decode(entry.blob)
        named = {"id": failed_id, "queue": row.queue, "fingerprint": row.fingerprint}
        return convert(asdict(blob) | asdict(failure) | named | {"failed_at": moment(failure.failed_at)}, FailedJob)
    except SPOILT:
        job, values = _readable_values(entry), _values_of(Failure, packed)
        return read(
            FailedJob,
            {
                **{name: job[name] for name in ("queue", "job_class", "job_name", "data")},
                **{name: values.get(name) for name in ("attempts", "exception")},
                "id": failed_id,
                "job_id": entry.id,
                "failed_at": _time(values.get("failed_at")),
                "fingerprint": _values_of(Row, entry.row).get("fingerprint", ""),
            },
        )


def job_result(entry: Entry, job_name: bytes, result: bytes | None, error: bytes) -> JobResult:
    """How the job stands, and what came of it. The entry is without its blob."""
    reason: str | None = None
    ended_at: datetime | None = None
    try:
        row = _rows.decode(entry.row)
        state = JobState.UNREADABLE if entry.is_misplaced else STATES.get(row.state, JobState.UNREADABLE)
        reason, ended_at = row.reason or None, moment(row.processed_at) if row.processed_at else None
    except SPOILT:
        state = JobState.UNREADABLE
    if state is JobState.UNREADABLE:
        job = read(JobRecord, _as_record(entry, _NO_BLOB | _NO_ROW | _values_of(Row, entry.row)))
        state, reason, ended_at = job.status, job.reason, job.processed_at
    return JobResult(
        id=entry.id,
        job_name=job_name.decode(errors="backslashreplace"),
        state=state,
        result=None if result is None else result.decode(errors="backslashreplace"),
        error=error.decode(errors="backslashreplace"),
        reason=reason,
        ended_at=ended_at,
    )


def _readable_values(entry: Entry) -> dict[str, object]:
    """What can be read of a job, by the names of JobRecord, for `protojobs.port.unreadable_rows` to judge."""
    return _as_record(entry, _NO_ROW | _values_of(Blob, entry.blob) | _values_of(Row, entry.row))


def _as_record(entry: Entry, values: Mapping[str, object]) -> dict[str, object]:
    """Values of Blob and Row as those of JobRecord."""
    status: object = STATES.get(str(values["state"]), values["state"])
    return {
        **{name: values.get(name) for name in JobRecord.__struct_fields__},
        **{name: _time(values[name]) for name in ("created_at", "available_at")},
        **{name: _time(at) if (at := values[name]) else None for name in _TIMES_OR_NONE},
        "id": entry.id,
        "status": f"{status}, and in no list of such jobs" if entry.is_misplaced else status,
        "progress": None if values["progress"] == -1 else values["progress"],
        "reason": values["reason"] or None,
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
