"""What a person may look at: jobs, queues, workers, schedules, errors. Bounded round trips, nothing changes."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice

from msgspec.structs import replace

from protojobs.errors import OptionInvalid
from protojobs.inspector.counting import counted
from protojobs.inspector.scope import Scope
from protojobs.inspector.search import LIST_CHARS_MAX, Found, Search
from protojobs.inspector.seen_schedule import SeenSchedule
from protojobs.inspector.timeline import timeline
from protojobs.inspector.views import Count, ErrorGroup, ErrorPage, JobListing, JobView, Overview, WorkerView
from protojobs.jobs.fingerprints import last_line, template
from protojobs.names import just_before
from protojobs.port.lifecycle import JobState
from protojobs.port.observing import HOUR, ActionPage, FailureGroup, Result
from protojobs.port.records import FailedJob, JobFilter, JobRecord, QueueInfo, Stats, WorkerRecord
from protojobs.port.schedules import Schedule, SchedulePage, only
from protojobs.querying.query import Query, parse
from protojobs.queue.waiting import look
from protojobs.scheduler.planning import due_times
from protojobs.worker.reports.unserved import unserved

__all__ = [
    "COUNTED_MAX",
    "audit",
    "count",
    "error",
    "errors",
    "failure",
    "job",
    "jobs",
    "next_times",
    "now",
    "overview",
    "queue",
    "queues",
    "running",
    "schedule",
    "schedule_words",
    "schedules",
    "stats",
    "worker",
    "workers",
]

LIMIT_MAX = 1_000  # of what one call lists
COUNTED_MAX = 10_000  # live jobs of each queue that are counted for a page
EXAMINED_MAX, SEARCH_S = 2_000, 1.0  # a search stops at either, and goes on by its cursor ...
FINDS_MAX = 2  # ... or here: a store that passes over thousands of rows for a few answers with short pages
GROUP_COUNTED_MAX = 1_000
TRACE_CHARS_MAX = 16 * 1024  # of each traceback, its end, where failures are grouped
GROUPS_LOOKED_AT = 100  # for the figures of one group
OVERVIEW_QUEUES = 1_000
RUNNING_SHOWN, RUNNING_LOOKED_AT = 10, 500
HELD_SHOWN = 100


def now(scope: Scope) -> datetime:
    """Store time, from which ages are counted. One round trip."""
    with scope.looking():
        return scope.driver.now()


def overview(scope: Scope, *, is_brief: bool = False) -> Overview:
    """The store at a glance. Six round trips; with `is_brief` four, without `failed_24h` and `running`."""
    with scope.looking():
        driver = scope.driver
        now, stats, workers = driver.now(), driver.stats(counted_max=COUNTED_MAX), driver.workers()
        queues = driver.queues(limit=OVERVIEW_QUEUES, counted_max=1)
        failed = _failed_since(scope, now) if scope.is_observing and not is_brief else None
    alive = [worker for worker in workers if worker.lease_ends_at > now]
    waits = [(queue.oldest_ready_s, queue.name) for queue in queues if queue.oldest_ready_s is not None]
    oldest_s, oldest = max(waits) if waits else (None, "")
    return Overview(
        at=now,
        stats=stats,
        workers=len(alive),
        workers_late=len(workers) - len(alive),
        slots=sum(worker.concurrency for worker in alive),
        busy=sum(min(worker.processing, worker.concurrency) for worker in alive),
        oldest_ready_queue=oldest,
        oldest_ready_s=oldest_s,
        paused=tuple(queue.name for queue in queues if queue.is_paused),
        unserved=tuple(info.name for info in unserved(queues, alive, now)),
        failed_24h=failed,
        running=() if is_brief else running(scope),
    )


def running(scope: Scope) -> tuple[JobRecord, ...]:
    """The ten jobs that have run longest, of the 500 latest that are running. One round trip."""
    states, chars_max = (JobState.PROCESSING,), _chars(scope, LIST_CHARS_MAX)
    with scope.looking():
        jobs = scope.driver.find(JobFilter(states=states), limit=RUNNING_LOOKED_AT, chars_max=chars_max).jobs
    longest = sorted(jobs, key=lambda job: (job.reserved_at is None, job.reserved_at, job.id))[:RUNNING_SHOWN]
    return tuple(scope.redaction.listed(job, LIST_CHARS_MAX) for job in longest)


def jobs(
    scope: Scope, query: str = "", *, limit: int = 50, cursor: str | None = None, chars_max: int | None = LIST_CHARS_MAX
) -> JobListing:
    """A page of the jobs that match, newest first; failed ones by when they failed.

    At most two pages of the store: it examines about 2,000 jobs, for a second, and then says `has_ended_early`:
    search on with its `cursor`. `chars_max` of the data of each; None: all of it. Raises QueryInvalid.
    """
    asked, wanted = parse(query), _limit(limit)
    with scope.looking():
        search = _search(scope, asked, chars_max)
        page = wanted if search.is_decided else None
        matches, examined, ends = list[Found](), 0, scope.queue.clock.monotonic() + SEARCH_S
        for finds, batch in enumerate(search.batches(cursor, page=page), 1):
            matches += batch.found
            examined, cursor = examined + batch.examined, batch.cursor
            is_over = examined >= EXAMINED_MAX or finds >= FINDS_MAX or scope.queue.clock.monotonic() >= ends
            if cursor is None or len(matches) >= wanted or is_over:
                break
    is_full = len(matches) >= wanted
    if is_full:
        matches = matches[:wanted]
        cursor = matches[-1].cursor
    return JobListing(
        jobs=tuple(one.job for one in matches),
        cursor=cursor,
        examined=examined,
        has_ended_early=cursor is not None and not is_full,
        failures={one.job.id: one.failure for one in matches if one.failure is not None},
    )


def count(scope: Scope, query: str = "", *, cap: int = COUNTED_MAX) -> Count:
    """How many jobs match: from the store's counters where the query is of states (and a queue) only, in one round
    trip; else by examining up to `cap` jobs, for a second.
    """
    asked = parse(query)
    with scope.looking():
        return counted(_search(scope, asked), cap, scope.queue.clock)


def job(scope: Scope, job_id: str) -> JobView | None:
    """All there is to know of one job; None when there is none. At most five round trips."""
    with scope.looking():
        job = next(iter(scope.driver.get([job_id])), None)
        if job is None:
            return None
        is_failed = job.status is JobState.FAILED
        failure = next(iter(scope.driver.get_failed([job_id])), None) if is_failed else None
        attempts = tuple(scope.observer().attempts(job_id)) if scope.is_observing else ()
        kept = look(scope.driver, [job_id]).get(job_id) if job.status is JobState.COMPLETED else None
        now = scope.driver.now()
    return JobView(
        job=scope.redaction.of(job),
        failure=None if failure is None else scope.redaction.of(failure),
        attempts=attempts,
        timeline=timeline(job, attempts, now),
        result=None if kept is None or kept.result is None else scope.redaction.text(kept.result),
        is_known=scope.queue.registry.find(job.job_name) is not None,
    )


def failure(scope: Scope, job_id: str) -> FailedJob | None:
    """A failed job's row with its whole traceback, by the row's id or the job's. One round trip."""
    with scope.looking():
        row = next(iter(scope.driver.get_failed([job_id])), None)
    return None if row is None else scope.redaction.of(row)


def errors(scope: Scope, *, limit: int = 50) -> list[ErrorGroup]:
    """Failed jobs by cause, the group that failed last first. One round trip; NotSupported without notes."""
    wanted = _limit(limit)
    with scope.looking():
        groups = scope.observer().failure_groups(
            limit=wanted, counted_max=GROUP_COUNTED_MAX, chars_max=_chars(scope, TRACE_CHARS_MAX)
        )
    return [_group(scope, group) for group in groups]


def error(scope: Scope, fingerprint: str, *, limit: int = 50, cursor: str | None = None) -> ErrorPage:
    """One group and a page of its failed jobs, newest first. Two round trips; NotSupported without notes.

    Of a group that is not among the 100 that failed last only what the page shows is counted.
    """
    wanted = _limit(limit)
    with scope.looking():
        observer = scope.observer()
        chars = _chars(scope, TRACE_CHARS_MAX)
        page = observer.failed_alike(fingerprint, limit=wanted, cursor=cursor, chars_max=chars)
        groups = observer.failure_groups(limit=GROUPS_LOOKED_AT, counted_max=GROUP_COUNTED_MAX, chars_max=chars)
    group = next((group for group in groups if group.fingerprint == fingerprint), None)
    if group is None and page.jobs:
        is_capped = page.cursor is not None or cursor is not None
        first_at, last = page.jobs[-1].failed_at, page.jobs[0]
        group = FailureGroup(
            fingerprint=fingerprint, count=len(page.jobs), first_failed_at=first_at, last=last, is_capped=is_capped
        )
    return ErrorPage(
        group=None if group is None else _group(scope, group),
        failures=tuple(scope.redaction.listed(row, LIST_CHARS_MAX) for row in page.jobs),
        cursor=page.cursor,
    )


def queues(scope: Scope, *, after: str = "", limit: int = 50) -> list[QueueInfo]:
    """The queues by name, from the first one behind `after`. One round trip."""
    wanted = _limit(limit)
    with scope.looking():
        return scope.driver.queues(after=after, limit=wanted, counted_max=COUNTED_MAX)


def stats(scope: Scope, queue: str | None = None) -> Stats:
    """How many jobs are in which state, of one queue or of all. One round trip."""
    with scope.looking():
        return scope.driver.stats(queue, counted_max=COUNTED_MAX)


def queue(scope: Scope, name: str) -> QueueInfo | None:
    """The queue of that name; None when it has no jobs and is not paused. One round trip."""
    with scope.looking():
        infos = scope.driver.queues(after=just_before(name), limit=1, counted_max=COUNTED_MAX)
    return next((info for info in infos if info.name == name), None)


def workers(scope: Scope) -> list[WorkerView]:
    """The workers that the store knows, oldest first. Two round trips."""
    with scope.looking():
        now, workers = scope.driver.now(), scope.driver.workers()
    return [WorkerView(worker=worker, is_late=worker.lease_ends_at <= now) for worker in workers]


def worker(scope: Scope, worker_id: str) -> WorkerView | None:
    """One worker and the jobs that it holds, at most 100; None when there is none. Four round trips."""
    with scope.looking():
        now = scope.driver.now()
        record = next((one for one in scope.driver.workers() if one.id == worker_id), None)
        if record is None:
            return None
        held = _held(scope, record)
    return WorkerView(worker=record, is_late=record.lease_ends_at <= now, jobs=held)


def schedules(scope: Scope, *, limit: int = 50, cursor: str | None = None) -> SchedulePage:
    """A page of schedules, by id. One round trip."""
    wanted = _limit(limit)
    with scope.looking():
        page = scope.driver.list_schedules(limit=wanted, cursor=cursor)
    return replace(page, schedules=tuple(scope.redaction.of(one) for one in page.schedules))


def schedule(scope: Scope, schedule_id: str) -> Schedule | None:
    """The schedule of that id. One round trip. Raises ScheduleUnreadable."""
    with scope.looking():
        stored = only(scope.driver.get_schedules([schedule_id]))
    return None if stored is None else scope.redaction.of(stored)


def next_times(schedule: Schedule, n: int = 5) -> list[datetime]:
    """The times that a schedule waits for, without asking the store; of one that means nothing here none."""
    try:
        return list(islice(due_times(schedule), _limit(n)))
    except OptionInvalid:
        return []


def schedule_words(schedule: Schedule) -> str:
    """When it fires, for people: `At 09:00 on Monday`; of one that means nothing here why. Asks no store."""
    seen = SeenSchedule(schedule)
    return seen.problem or seen.words


def audit(scope: Scope, *, limit: int = 50, cursor: str | None = None) -> ActionPage:
    """A page of the audit log, newest first. One round trip; NotSupported without notes."""
    wanted = _limit(limit)
    with scope.looking():
        return scope.observer().actions(limit=wanted, cursor=cursor)


def _search(scope: Scope, asked: Query, chars_max: int | None = LIST_CHARS_MAX) -> Search:
    """With the store's time, where the query speaks of times."""
    is_timeless = all(term.key in ("queue", "job", "id", "fp", "error") for term in asked.terms)
    asked = asked if is_timeless else asked.at(scope.driver.now())
    return Search(scope.driver, asked, scope.redaction, chars_max=chars_max, clock=scope.queue.clock)


def _failed_since(scope: Scope, now: datetime) -> int:
    hours = scope.observer().rollups(HOUR, now - timedelta(days=1), now + timedelta(hours=1))
    return sum(hour.count for hour in hours if hour.result is Result.FAILED)


def _held(scope: Scope, worker: WorkerRecord) -> tuple[JobRecord, ...]:
    ids = [claim.id for claim in scope.driver.held(worker.id)[:HELD_SHOWN]]
    held = scope.driver.get(ids) if ids else []
    longest_first = sorted(held, key=lambda job: (job.reserved_at is None, job.reserved_at, job.id))
    return tuple(scope.redaction.listed(job, LIST_CHARS_MAX) for job in longest_first)


def _group(scope: Scope, group: FailureGroup) -> ErrorGroup:
    return ErrorGroup(
        fingerprint=group.fingerprint,
        title=template(last_line(group.last.exception)),
        job_name=group.last.job_name,
        count=Count(group.count, group.is_capped),
        first_at=group.first_failed_at,
        last_at=group.last.failed_at,
        sample=scope.redaction.of(group.last),
    )


def _chars(scope: Scope, usual: int) -> int:
    """How much of each job's data to ask for: where fields are to be hidden, enough to find them."""
    return scope.redaction.chars_max if scope.redaction else usual


def _limit(limit: int) -> int:
    if not 1 <= limit <= LIMIT_MAX:
        raise OptionInvalid(f"limit is {limit}.", mend=f"It goes from 1 to {LIMIT_MAX}.")
    return limit
