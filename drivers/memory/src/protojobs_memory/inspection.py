"""Looking into a memory store. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice

from msgspec.structs import replace

from protojobs.errors import OptionInvalid
from protojobs.lifecycle import JobState
from protojobs.records import FailedJob, FailedPage, JobFilter, JobPage, JobRecord, QueueInfo, Stats, WorkerRecord
from protojobs.rules import check_batch
from protojobs_memory.handle import Handle
from protojobs_memory.sorted_keys import TimeKey
from protojobs_memory.state import Queue, Row, after
from protojobs_memory.views import record

__all__ = ["Inspection"]

EXAMINED_MAX = 10_000  # rows that one call of `find` or `failed` looks at, whatever it finds
LISTED_MAX = 10_000  # queues and workers in one list


class Inspection(Handle):
    """The verbs of `protojobs.protocols.Inspects`; their promises are written there."""

    def get(self, ids: Sequence[str]) -> list[JobRecord]:
        """See Inspects.get."""
        check_batch(ids)
        with self.state.lock:
            return [record(row) for job_id in dict.fromkeys(ids) if (row := self.state.rows.get(job_id))]

    def find(self, which: JobFilter, *, limit: int = 50, cursor: str | None = None) -> JobPage:
        """See Inspects.find. The cursor is the last id that was examined."""
        with self.state.lock:
            found: list[JobRecord] = []
            examined = 0
            for job_id in self.state.ids.downwards(cursor):
                if len(found) >= limit or examined >= EXAMINED_MAX:
                    return JobPage(jobs=tuple(found), cursor=cursor)
                row = self.state.rows[job_id]
                if _matches(row, which):
                    found.append(record(row))
                cursor = job_id
                examined += 1
            return JobPage(jobs=tuple(found))

    def failed(self, *, queue: str | None = None, limit: int = 50, cursor: str | None = None) -> FailedPage:
        """See Inspects.failed. The cursor is the last row that was examined, as `failed_at/id`."""
        with self.state.lock:
            found: list[FailedJob] = []
            examined = 0
            for key in self.state.failures.downwards(_read_cursor(cursor)):
                if len(found) >= limit or examined >= EXAMINED_MAX:
                    return FailedPage(jobs=tuple(found), cursor=cursor)
                failure = self.state.failed[key[1]]
                if queue is None or failure.queue == queue:
                    found.append(failure)
                cursor = f"{key[0].isoformat()}/{key[1]}"
                examined += 1
            return FailedPage(jobs=tuple(found))

    def get_failed(self, ids: Sequence[str]) -> list[FailedJob]:
        """See Inspects.get_failed."""
        check_batch(ids)
        with self.state.lock:
            return [row for failed_id in dict.fromkeys(ids) if (row := self.state.failed.get(failed_id))]

    def stats(self, queue: str | None = None) -> Stats:
        """See Inspects.stats. Always exact."""
        with self.state.lock:
            if queue is None:
                return _count(self.state.queues.values(), self.now())
            known = self.state.queues.get(queue)
            return _count([known] if known else [], self.now())

    def queues(self) -> list[QueueInfo]:
        """See Inspects.queues."""
        with self.state.lock:
            now = self.now()
            return [
                QueueInfo(name=name, is_paused=queue.is_paused, stats=_count([queue], now))
                for name, queue in islice(sorted(self.state.queues.items()), LISTED_MAX)
            ]

    def workers(self) -> list[WorkerRecord]:
        """See Inspects.workers."""
        with self.state.lock:
            oldest_first = sorted(self.state.workers.values(), key=lambda worker: (worker.started_at, worker.id))
            held = self.state.holders
            return [replace(row, processing=len(held.get(row.id, ()))) for row in oldest_first[:LISTED_MAX]]


def _matches(row: Row, which: JobFilter) -> bool:
    return (
        (not which.states or row.state in which.states)
        and (which.queue is None or row.job.queue == which.queue)
        and (which.job_name is None or row.job.job_name == which.job_name)
    )


def _read_cursor(cursor: str | None) -> TimeKey | None:
    if cursor is None:
        return None
    moment, _, failed_id = cursor.partition("/")
    try:
        return datetime.fromisoformat(moment), failed_id
    except ValueError:
        raise OptionInvalid(f"{cursor!r} is no cursor of this list.", mend="Pass one that `failed` gave.") from None


def _count(queues: Iterable[Queue], now: datetime) -> Stats:
    queues = list(queues)
    lanes = [lane for queue in queues for lane in queue.lanes.values()]
    return Stats(
        pending=sum(queue.counts[JobState.PENDING] for queue in queues),
        processing=sum(queue.counts[JobState.PROCESSING] for queue in queues),
        completed=sum(queue.counts[JobState.COMPLETED] for queue in queues),
        failed=sum(queue.counts[JobState.FAILED] for queue in queues),
        cancelled=sum(queue.counts[JobState.CANCELLED] for queue in queues),
        scheduled=sum(len(lane) - lane.count_below(after(now)) for lane in lanes),
    )
