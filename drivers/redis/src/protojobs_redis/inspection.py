"""Looking into the store. Changes nothing; the reply of a script is bounded in rows and in bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import islice

from msgspec import Struct, convert
from msgspec.msgpack import Decoder
from msgspec.structs import asdict

from protojobs.errors import OptionInvalid, shown
from protojobs.port.records import (
    FailedJob,
    FailedPage,
    JobFilter,
    JobPage,
    JobRecord,
    QueueInfo,
    Stats,
    WorkerRecord,
)
from protojobs.port.results import JobResult
from protojobs.port.rules import check_batch, check_cursor
from protojobs_redis.packing import LETTERS, Entry, failed_job, is_number, job_result, moment, record, texts
from protojobs_redis.runner import ScriptRunner

__all__ = [
    "FailedEntry",
    "chars",
    "entries_of",
    "failed",
    "failed_page",
    "find",
    "get",
    "get_failed",
    "get_results",
    "queues",
    "stats",
    "workers",
]

EXAMINED_MAX = 10_000  # rows that one call of `find` or `failed` looks at, however few it shows
STEP_MAX = 1_000  # ... and one script of it
LISTED_MAX = 10_000  # workers, or queues, in one list
QUEUES_STEP = 200  # queues that one script counts

NO_STATE = "u"  # as scripts/find.lua has it

FailedEntry = tuple[str, bytes, Entry]


class _Counts(Struct, array_like=True):
    name: str
    is_paused: bool
    pending: int
    processing: int
    completed: int
    failed: int
    cancelled: int
    scheduled: int
    oldest_ready: str  # microseconds, or nothing


class _Worker(Struct, array_like=True):
    host: str
    pid: int
    queues: tuple[str, ...]
    concurrency: int
    lease: int  # microseconds
    isolates: bool
    started_at: int


class _Step(Struct, array_like=True):
    cursor: str
    examined: int
    entries: list[Entry]


class _FailedStep(Struct, array_like=True):
    cursor_score: str
    cursor_id: str
    examined: int
    entries: list[FailedEntry]


_read = Decoder(tuple[int, list[Entry]])
_read_failed = Decoder(tuple[int, list[FailedEntry]])
_read_results = Decoder(tuple[int, list[tuple[Entry, bytes, bytes | None, bytes]]])
_steps, _failed_steps = Decoder(_Step), Decoder(_FailedStep)
_counts, _queues = Decoder(_Counts), Decoder(list[_Counts])
_workers = Decoder(list[tuple[str, _Worker, int, int]])
_COUNTED = ("pending", "processing", "completed", "failed", "cancelled", "scheduled")


def get(scripts: ScriptRunner, ids: Sequence[str]) -> list[JobRecord]:
    """The jobs that exist among the ids."""
    check_batch(ids)
    return [record(entry) for entry in entries_of(scripts, list(dict.fromkeys(ids)))]


def entries_of(scripts: ScriptRunner, ids: Sequence[str]) -> Iterator[Entry]:
    """The jobs that exist among `ids`, a few megabytes at a time."""
    first = 0
    while first < len(ids):
        read, entries = scripts.decoded(_read, "get", texts(ids[first : first + STEP_MAX]))
        yield from entries
        first += read


def find(scripts: ScriptRunner, which: JobFilter, limit: int, cursor: str | None, chars_max: int | None) -> JobPage:
    """A page of jobs, newest id first. The cursor is the last id that was examined.

    States and queue are compared in the script; the name is in the large part of a job, so it is compared here.
    """
    check_cursor(cursor)
    if which.queue == "":  # no queue has that name, and to the script it means all
        return JobPage(jobs=())
    states = "".join(LETTERS.get(state, NO_STATE) for state in which.states)
    jobs: list[JobRecord] = []
    examined = 0
    while len(jobs) < limit and examined < EXAMINED_MAX:
        wanted = min(limit - len(jobs), STEP_MAX)
        step = scripts.decoded(
            _steps, "find", states, which.queue or "", cursor or "", wanted, STEP_MAX, chars(chars_max)
        )
        records = map(record, step.entries)
        jobs += [job for job in records if which.job_name in (None, job.job_name)]
        examined += step.examined
        cursor = step.cursor or None
        if cursor is None:
            break
    return JobPage(jobs=tuple(jobs), cursor=cursor)


def failed(
    scripts: ScriptRunner, queue: str | None, limit: int, cursor: str | None, chars_max: int | None
) -> FailedPage:
    """A page of failed_jobs, newest first."""
    _read_cursor(cursor)
    if queue == "":  # as in `find`
        return FailedPage(jobs=())
    return failed_page(scripts, queue or "", limit, cursor, chars(chars_max))


def failed_page(
    scripts: ScriptRunner, queue: str, limit: int, cursor: str | None, chars_max: str, *fingerprint: str
) -> FailedPage:
    """A page of those of a queue, or of one fingerprint.

    The cursor is the last row that was examined, as `failed_at/id`.
    """
    score, failed_id = _read_cursor(cursor)
    jobs: list[FailedJob] = []
    examined = 0
    while len(jobs) < limit and examined < EXAMINED_MAX:
        wanted = min(limit - len(jobs), STEP_MAX)
        step = scripts.decoded(
            _failed_steps, "failed", queue, score, failed_id, wanted, STEP_MAX, chars_max, *fingerprint
        )
        jobs += [failed_job(*entry) for entry in step.entries]
        examined += step.examined
        score, failed_id = step.cursor_score, step.cursor_id
        if not failed_id:
            break
    return FailedPage(jobs=tuple(jobs), cursor=f"{score}/{failed_id}" if failed_id else None)


def get_failed(scripts: ScriptRunner, ids: Sequence[str]) -> list[FailedJob]:
    """The rows of failed_jobs among the ids, each of a row or of its job."""
    check_batch(ids)
    ids, first = list(dict.fromkeys(ids)), 0
    jobs: dict[str, FailedJob] = {}  # by their own ids: one may be meant twice
    while first < len(ids):
        read, entries = scripts.decoded(_read_failed, "get_failed", texts(ids[first:]))
        jobs |= {entry[0]: failed_job(*entry) for entry in entries}
        first += read
    return list(jobs.values())


def get_results(scripts: ScriptRunner, ids: Sequence[str]) -> list[JobResult]:
    """How the jobs stand that exist among the ids, and what came of them; a few megabytes at a time."""
    check_batch(ids)
    ids, first = list(dict.fromkeys(ids)), 0
    results: list[JobResult] = []
    while first < len(ids):
        read, entries = scripts.decoded(_read_results, "get_results", texts(ids[first:]))
        results += [job_result(*entry) for entry in entries]
        first += read
    return results


def stats(scripts: ScriptRunner, queue: str | None) -> Stats:
    """The counts of one queue, or of all. Of more than 200 queues, each part is counted at its own moment."""
    if queue is not None:
        return _stats(scripts.decoded(_counts, "stats", queue))
    totals = Counter[str]()
    for counts in _queues_after(scripts, ""):
        totals.update({name: getattr(counts, name) for name in _COUNTED})
    return convert(totals, Stats)


def queues(scripts: ScriptRunner, after: str = "", limit: int = LISTED_MAX) -> list[QueueInfo]:
    """The queues that have jobs or are paused, by name."""
    return [_info(counts) for counts in islice(_queues_after(scripts, after, limit), limit)]


def _queues_after(scripts: ScriptRunner, after: str, limit: int = QUEUES_STEP) -> Iterator[_Counts]:
    """All of them, by name; few in one script where only a few are wanted."""
    size = max(1, min(limit, QUEUES_STEP))
    while True:
        page = scripts.decoded(_queues, "queues", after, size)
        yield from page
        if len(page) < size:
            return
        after = page[-1].name


def workers(scripts: ScriptRunner) -> list[WorkerRecord]:
    """The workers whose rows stand, oldest first."""
    rows = [_worker(*row) for row in scripts.decoded(_workers, "workers", LISTED_MAX)]
    return sorted(rows, key=lambda worker: (worker.started_at, worker.id))


def chars(chars_max: int | None) -> str:
    """How many characters of a text to show, as scripts take it."""
    return "" if chars_max is None else str(max(0, chars_max))


def _stats(counts: _Counts) -> Stats:
    return convert(counts, Stats, from_attributes=True)


def _info(counts: _Counts) -> QueueInfo:
    return QueueInfo(
        name=counts.name,
        is_paused=counts.is_paused,
        stats=_stats(counts),
        oldest_ready_s=int(counts.oldest_ready) / 1e6 if counts.oldest_ready else None,
    )


def _worker(worker: str, info: _Worker, lease_ends_at: int, processing: int) -> WorkerRecord:
    lease = timedelta(microseconds=info.lease)
    values = {
        "id": worker,
        "lease_s": lease.total_seconds(),
        "started_at": moment(info.started_at),
        "heartbeat_at": moment(lease_ends_at) - lease,
        "lease_ends_at": moment(lease_ends_at),
        "processing": processing,
    }
    return convert(asdict(info) | values, WorkerRecord)


def _read_cursor(cursor: str | None) -> tuple[str, str]:
    if cursor is None:
        return "", ""
    score, _, failed_id = cursor.partition("/")
    if not is_number(score) or not failed_id:
        raise OptionInvalid(f"{shown(cursor)} is no cursor of this list.", mend="Pass one that `failed` gave.")
    return score, failed_id
