"""Looking into a memory store. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec import convert
from msgspec.structs import replace

from protojobs.errors import OptionInvalid, shown
from protojobs.port.lifecycle import JobState
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
from protojobs.port.results import JobResult, last_line
from protojobs.port.rules import shortened
from protojobs_memory.sorted_keys import SortedKeys, TimeKey
from protojobs_memory.state import Queue, Row, State, after
from protojobs_memory.views import record

__all__ = ["count", "failed_page", "find", "get", "get_failed", "get_results", "queues", "stats", "workers"]

EXAMINED_MAX = 10_000  # rows that one call of `find` or `failed` looks at, however few it shows
LISTED_MAX = 10_000  # workers in one list


def get(state: State, ids: Sequence[str]) -> list[JobRecord]:
    """The jobs that exist among the ids."""
    return [record(row) for job_id in dict.fromkeys(ids) if (row := state.rows.get(job_id))]


def get_results(state: State, ids: Sequence[str]) -> list[JobResult]:
    """How the jobs stand that exist among the ids, and what came of them."""
    return [_result(state, row) for job_id in dict.fromkeys(ids) if (row := state.rows.get(job_id))]


def _result(state: State, row: Row) -> JobResult:
    return JobResult(
        id=row.job.id,
        job_name=row.job.job_name,
        state=row.state,
        result=row.result,
        error=last_line(state.failed[row.failed_id].exception) if row.failed_id else "",
        reason=row.reason,
        ended_at=row.processed_at,
    )


def find(state: State, which: JobFilter, limit: int, cursor: str | None, chars_max: int | None) -> JobPage:
    """A page of jobs, newest id first."""
    jobs: list[JobRecord] = []
    examined = 0
    for job_id in state.ids.downwards(cursor):
        if len(jobs) >= limit or examined >= EXAMINED_MAX:
            return JobPage(jobs=tuple(jobs), cursor=cursor)
        row = state.rows[job_id]
        if _is_wanted(row, which):
            jobs.append(shortened(record(row), chars_max))
        cursor = job_id
        examined += 1
    return JobPage(jobs=tuple(jobs))


def _is_wanted(row: Row, which: JobFilter) -> bool:
    """`rules.is_wanted` of a row: thousands may be examined for one that is shown, so none is made a record for it."""
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
    jobs: list[FailedJob] = []
    examined = 0
    bound = _read_cursor(cursor)
    for key in keys.downwards(bound) if keys else ():
        if len(jobs) >= limit or examined >= EXAMINED_MAX:
            return FailedPage(jobs=tuple(jobs), cursor=cursor)
        failure = state.failed[key[1]]
        if queue is None or failure.queue == queue:
            jobs.append(shortened(failure, chars_max))
        cursor = f"{key[0].isoformat()}/{key[1]}"
        examined += 1
    return FailedPage(jobs=tuple(jobs))


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


def get_failed(state: State, ids: Sequence[str]) -> list[FailedJob]:
    """The rows of failed_jobs among the ids, each of a row or of its job."""
    rows = state.rows
    failed_ids = dict.fromkeys((rows[one].failed_id or "") if one in rows else one for one in ids)
    return [failure for failed_id in failed_ids if (failure := state.failed.get(failed_id))]


def stats(state: State, now: datetime, name: str | None) -> Stats:
    """The counts of one queue, or of all."""
    if name is None:
        return count(state.queues.values(), now)
    queue = state.queues.get(name)
    return count([queue] if queue else [], now)


def queues(state: State, now: datetime, after_name: str, limit: int) -> list[QueueInfo]:
    """The queues that have jobs or are paused, by name."""
    names = sorted(name for name in state.queues if name > after_name)
    return [_info(state.queues[name], now) for name in names[:limit]]


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
    counts = {state.value: sum(queue.counts[state] for queue in queues) for state in JobState}
    counts["scheduled"] = sum(len(lane) - lane.count_below(after(now)) for lane in lanes)
    return convert(counts, Stats)


def workers(state: State) -> list[WorkerRecord]:
    """The workers whose rows stand, oldest first."""
    oldest_first = sorted(state.workers.values(), key=lambda worker: (worker.started_at, worker.id))
    held = state.holders
    return [replace(row, processing=len(held.get(row.id, ()))) for row in oldest_first[:LISTED_MAX]]
