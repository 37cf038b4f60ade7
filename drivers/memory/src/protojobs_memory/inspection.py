"""Looking into a memory store. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec.structs import replace

from protojobs.errors import OptionInvalid, shown
from protojobs.port.lifecycle import JobState
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
from protojobs.port.rules import check_batch, check_cursor, shortened
from protojobs_memory.handle import Handle
from protojobs_memory.sorted_keys import SortedKeys, TimeKey
from protojobs_memory.state import Queue, Row, State, after
from protojobs_memory.views import record

__all__ = ["Inspection", "count", "failed_page"]

EXAMINED_MAX = 10_000  # rows that one call of `find` or `failed` looks at, whatever it finds
LISTED_MAX = 10_000  # workers in one list


class Inspection(Handle):
    """The verbs of `protojobs.port.administration.Inspects`; their promises are written there."""

    def get(self, ids: Sequence[str]) -> list[JobRecord]:
        """See Inspects.get."""
        check_batch(ids)
        with self.state.lock:
            return [record(row) for job_id in dict.fromkeys(ids) if (row := self.state.rows.get(job_id))]

    def find(
        self, which: JobFilter, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> JobPage:
        """See Inspects.find. The cursor is the last id that was examined."""
        check_cursor(cursor)
        with self.state.lock:
            found: list[JobRecord] = []
            examined = 0
            for job_id in self.state.ids.downwards(cursor):
                if len(found) >= limit or examined >= EXAMINED_MAX:
                    return JobPage(jobs=tuple(found), cursor=cursor)
                row = self.state.rows[job_id]
                if _matches(row, which):
                    found.append(shortened(record(row), chars_max))
                cursor = job_id
                examined += 1
            return JobPage(jobs=tuple(found))

    def failed(
        self, *, queue: str | None = None, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> FailedPage:
        """See Inspects.failed."""
        with self.state.lock:
            return failed_page(self.state, self.state.failures, queue, limit, cursor, chars_max)

    def get_failed(self, ids: Sequence[str]) -> list[FailedJob]:
        """See Inspects.get_failed."""
        check_batch(ids)
        with self.state.lock:
            rows, failed = self.state.rows, self.state.failed
            meant = dict.fromkeys((rows[one].failed_id or "") if one in rows else one for one in ids)
            return [row for failed_id in meant if (row := failed.get(failed_id))]

    def stats(self, queue: str | None = None, *, counted_max: int = COUNTED_MAX) -> Stats:
        """See Inspects.stats. Always exact."""
        with self.state.lock:
            if queue is None:
                return count(self.state.queues.values(), self.now())
            known = self.state.queues.get(queue)
            return count([known] if known else [], self.now())

    def queues(self, *, after: str = "", limit: int = 10_000, counted_max: int = COUNTED_MAX) -> list[QueueInfo]:
        """See Inspects.queues. Always exact."""
        with self.state.lock:
            now = self.now()
            names = sorted(name for name in self.state.queues if name > after)
            return [_info(self.state.queues[name], now) for name in names[:limit]]

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


def failed_page(
    state: State,
    keys: SortedKeys[TimeKey] | None,
    queue: str | None,
    limit: int,
    cursor: str | None,
    chars_max: int | None,
) -> FailedPage:
    """A page of an index of failed_jobs. The cursor is the last row that was examined, as `failed_at/id`."""
    found: list[FailedJob] = []
    examined = 0
    bound = _read_cursor(cursor)
    for key in keys.downwards(bound) if keys else ():
        if len(found) >= limit or examined >= EXAMINED_MAX:
            return FailedPage(jobs=tuple(found), cursor=cursor)
        failure = state.failed[key[1]]
        if queue is None or failure.queue == queue:
            found.append(shortened(failure, chars_max))
        cursor = f"{key[0].isoformat()}/{key[1]}"
        examined += 1
    return FailedPage(jobs=tuple(found))


def _read_cursor(cursor: str | None) -> TimeKey | None:
    if cursor is None:
        return None
    text, _, failed_id = cursor.partition("/")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or not failed_id:
        raise OptionInvalid(f"{shown(cursor)} is no cursor of this list.", mend="Pass one that `failed` gave.")
    return moment, failed_id


def _info(queue: Queue, now: datetime) -> QueueInfo:
    firsts = [key[0] for lane in queue.lanes.values() if (key := lane.first())]
    waited_s = (now - min(firsts)).total_seconds() if firsts else -1.0
    return QueueInfo(
        name=queue.name,
        is_paused=queue.is_paused,
        stats=count([queue], now),
        oldest_ready_s=waited_s if waited_s >= 0 else None,
    )


def count(queues: Iterable[Queue], now: datetime) -> Stats:
    """The counts of the queues together."""
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
