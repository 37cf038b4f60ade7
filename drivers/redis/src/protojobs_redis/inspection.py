"""Looking into the store. Changes nothing; what one script answers is bounded in rows and in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import reduce
from itertools import islice

from msgspec import Struct
from msgspec.msgpack import Decoder

from protojobs.errors import OptionInvalid, shown
from protojobs.port.records import (
    COUNTED_MAX,
    FailedJob,
    FailedPage,
    JobFilter,
    JobPage,
    JobRecord,
    QueueInfo,
    Stats,
    WorkerRecord,
)
from protojobs.port.rules import check_cursor
from protojobs_redis.handle import Handle, check_batch
from protojobs_redis.packing import LETTERS, Entry, failed_job, is_number, moment, record, texts

__all__ = ["FailedEntry", "Inspection", "chars"]

EXAMINED_MAX = 10_000  # rows that one call of `find` or `failed` looks at, whatever it finds
STEP_MAX = 1_000  # ... and one script of it
LISTED_MAX = 10_000  # workers in one list
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

    def stats(self) -> Stats:
        return Stats(
            pending=self.pending,
            processing=self.processing,
            completed=self.completed,
            failed=self.failed,
            cancelled=self.cancelled,
            scheduled=self.scheduled,
        )


class _Worker(Struct, array_like=True):
    host: str
    pid: int
    queues: tuple[str, ...]
    concurrency: int
    lease: int  # microseconds
    isolates: bool
    started_at: int


class _Found(Struct, array_like=True):
    cursor: str
    examined: int
    entries: list[Entry]


class _FoundFailed(Struct, array_like=True):
    cursor_score: str
    cursor_id: str
    examined: int
    entries: list[FailedEntry]


_read = Decoder(tuple[int, list[Entry]])
_read_failed = Decoder(tuple[int, list[FailedEntry]])
_found, _found_failed = Decoder(_Found), Decoder(_FoundFailed)
_counts, _queues = Decoder(_Counts), Decoder(list[_Counts])
_workers = Decoder(list[tuple[str, _Worker, int, int]])


class Inspection(Handle):
    """The verbs of `protojobs.port.administration.Inspects`; their promises are written there."""

    def get(self, ids: Sequence[str]) -> list[JobRecord]:
        """See Inspects.get."""
        check_batch(ids)
        return [record(entry) for entry in self._entries(list(dict.fromkeys(ids)))]

    def _entries(self, ids: Sequence[str]) -> Iterator[Entry]:
        """The jobs that exist among `ids`, a few megabytes at a time."""
        place = 0
        while place < len(ids):
            read, entries = self._packed(_read, "get", texts(ids[place : place + STEP_MAX]))
            yield from entries
            place += read

    def find(
        self, which: JobFilter, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> JobPage:
        """See Inspects.find. The cursor is the last id that was examined.

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
            step = self._packed(
                _found, "find", states, which.queue or "", cursor or "", wanted, STEP_MAX, chars(chars_max)
            )
            found = map(record, step.entries)
            jobs += [job for job in found if which.job_name in (None, job.job_name)]
            examined += step.examined
            cursor = step.cursor or None
            if cursor is None:
                break
        return JobPage(jobs=tuple(jobs), cursor=cursor)

    def failed(
        self, *, queue: str | None = None, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> FailedPage:
        """See Inspects.failed."""
        _read_cursor(cursor)
        if queue == "":  # as in `find`
            return FailedPage(jobs=())
        return self._failed_page(queue or "", limit, cursor, chars(chars_max))

    def _failed_page(self, queue: str, limit: int, cursor: str | None, chars_max: str, *fingerprint: str) -> FailedPage:
        """A page of those of a queue, or of one fingerprint.

        The cursor is the last row that was examined, as `failed_at/id`.
        """
        score, failed_id = _read_cursor(cursor)
        jobs: list[FailedJob] = []
        examined = 0
        while len(jobs) < limit and examined < EXAMINED_MAX:
            wanted = min(limit - len(jobs), STEP_MAX)
            step = self._packed(
                _found_failed, "failed", queue, score, failed_id, wanted, STEP_MAX, chars_max, *fingerprint
            )
            jobs += [failed_job(*found) for found in step.entries]
            examined += step.examined
            score, failed_id = step.cursor_score, step.cursor_id
            if not failed_id:
                break
        return FailedPage(jobs=tuple(jobs), cursor=f"{score}/{failed_id}" if failed_id else None)

    def get_failed(self, ids: Sequence[str]) -> list[FailedJob]:
        """See Inspects.get_failed."""
        check_batch(ids)
        ids, place = list(dict.fromkeys(ids)), 0
        jobs: dict[str, FailedJob] = {}  # by their own ids: one may be meant twice
        while place < len(ids):
            read, entries = self._packed(_read_failed, "get_failed", texts(ids[place:]))
            jobs |= {found[0]: failed_job(*found) for found in entries}
            place += read
        return list(jobs.values())

    def stats(self, queue: str | None = None, *, counted_max: int = COUNTED_MAX) -> Stats:
        """See Inspects.stats. Always exact; of more than 200 queues, each part at its own moment."""
        if queue is not None:
            return self._packed(_counts, "stats", queue).stats()
        return reduce(_together, (counts.stats() for counts in self._queues_behind("")), Stats())

    def queues(self, *, after: str = "", limit: int = 10_000, counted_max: int = COUNTED_MAX) -> list[QueueInfo]:
        """See Inspects.queues. Always exact."""
        return [_info(counts) for counts in islice(self._queues_behind(after, limit), limit)]

    def _queues_behind(self, after: str, limit: int = QUEUES_STEP) -> Iterator[_Counts]:
        """All of them, by name; few in one script where only a few are wanted."""
        size = max(1, min(limit, QUEUES_STEP))
        while True:
            page = self._packed(_queues, "queues", after, size)
            yield from page
            if len(page) < size:
                return
            after = page[-1].name

    def workers(self) -> list[WorkerRecord]:
        """See Inspects.workers."""
        found = [_worker(*row) for row in self._packed(_workers, "workers", LISTED_MAX)]
        return sorted(found, key=lambda worker: (worker.started_at, worker.id))


def chars(chars_max: int | None) -> str:
    """How many characters of a text to show, as scripts take it."""
    return "" if chars_max is None else str(max(0, chars_max))


def _info(counts: _Counts) -> QueueInfo:
    return QueueInfo(
        name=counts.name,
        is_paused=counts.is_paused,
        stats=counts.stats(),
        oldest_ready_s=int(counts.oldest_ready) / 1e6 if counts.oldest_ready else None,
    )


def _worker(worker: str, info: _Worker, lease_ends_at: int, processing: int) -> WorkerRecord:
    lease = timedelta(microseconds=info.lease)
    return WorkerRecord(
        id=worker,
        host=info.host,
        pid=info.pid,
        queues=info.queues,
        concurrency=info.concurrency,
        lease_s=lease.total_seconds(),
        isolates=info.isolates,
        started_at=moment(info.started_at),
        heartbeat_at=moment(lease_ends_at) - lease,
        lease_ends_at=moment(lease_ends_at),
        processing=processing,
    )


def _together(one: Stats, other: Stats) -> Stats:
    return Stats(
        pending=one.pending + other.pending,
        processing=one.processing + other.processing,
        completed=one.completed + other.completed,
        failed=one.failed + other.failed,
        cancelled=one.cancelled + other.cancelled,
        scheduled=one.scheduled + other.scheduled,
    )


def _read_cursor(cursor: str | None) -> tuple[str, str]:
    if cursor is None:
        return "", ""
    score, _, failed_id = cursor.partition("/")
    if not is_number(score) or not failed_id:
        raise OptionInvalid(f"{shown(cursor)} is no cursor of this list.", mend="Pass one that `failed` gave.")
    return score, failed_id
