"""Findings about the work itself: workers that are gone, jobs that nobody takes, runs that do not end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from msgspec.structs import replace

from protojobs.config import kept_s
from protojobs.doctor.wording import counted, cut, listed, named, span, typed, worker_of
from protojobs.port.diagnosis import Diagnoses, Finding, Severity, judged
from protojobs.port.lifecycle import JobState
from protojobs.port.observing import Observes
from protojobs.port.records import JobFilter, JobRecord, QueueInfo, WorkerRecord
from protojobs.port.unreadable_rows import UNREADABLE, is_unreadable
from protojobs.worker.reports.unserved import every_queue, unserved

if TYPE_CHECKING:
    from protojobs.port.driver import Store
    from protojobs.queue.queue import JobQueue

__all__ = ["of_jobs", "of_pruning", "of_queues", "of_workers"]

READY_MAX_S = 300.0  # for how long a due job may wait before that is worth a warning
PRUNE_LATE_S = 7_200.0  # how far pruning may be behind: workers prune every minute
_JOBS_PAGE, _JOBS_PAGES_MAX = 500, 5  # jobs of a state that are looked at, the latest
_WHY_CHARS = 1_000


def of_workers(queue: JobQueue) -> Iterator[Finding]:
    """Workers that have not been heard of for their lease."""
    now, workers = queue.driver.now(), queue.driver.workers()
    lapsed = [worker for worker in workers if worker.lease_ends_at <= now]
    alive = len(workers) - len(lapsed)
    if not lapsed:
        yield Finding(code="workers_lapsed", severity=Severity.OK, what="Every worker's lease stands.")
    else:
        yield _of_lapsed(lapsed, alive, now)
    slots = sum(worker.concurrency for worker in workers if worker.lease_ends_at > now)
    yield judged(
        "no_worker",
        f"{counted(alive, 'worker')} with {counted(slots, 'slot')} are alive." if alive else "No worker is alive.",
        is_good=alive > 0,
        bad=Severity.NOTE,
        mend=worker_of(queue.settings.app),
    )


def _of_lapsed(lapsed: Sequence[WorkerRecord], alive: int, now: datetime) -> Finding:
    held = sum(worker.processing for worker in lapsed)
    is_left = any(now - worker.lease_ends_at > timedelta(seconds=worker.lease_s) for worker in lapsed)
    first = lapsed[0]
    who = f"{first.id} on {cut(first.host)}, last heard of {span(now - first.heartbeat_at)} ago"
    back = "The others take back its jobs within seconds." if alive else "No living worker is there to take them back."
    if alive and is_left:
        back = "Living workers ought to have taken them back by now: do theirs reach the store?"
    return Finding(
        code="workers_lapsed",
        severity=Severity.ERROR if held and (is_left or not alive) else Severity.WARNING,
        what=f"{counted(len(lapsed), 'worker')} that hold {counted(held, 'job')} beat no more ({who}).",
        why=f"Killed, frozen, or cut off from the store. {back}",
        mend="Look at their logs (protojobs workers names host and process)" + ("." if alive else ", and start one."),
    )


def of_queues(queue: JobQueue) -> Iterator[Finding]:
    """Queues with due jobs that nobody takes, or that wait too long."""
    now, workers = queue.driver.now(), queue.driver.workers()
    ready = [info for info in every_queue(queue.driver) if info.oldest_ready_s is not None]
    paused = [info for info in ready if info.is_paused]
    left = unserved(ready, workers, now)
    slow = [info for info in ready if not info.is_paused and info not in left and _waited(info) > READY_MAX_S]
    yield _of_queues(
        left,
        good="Every queue with due jobs has a worker that serves it.",
        bad=Finding(
            code="queue_unserved",
            severity=Severity.ERROR,
            what="No living worker serves",
            why="Its jobs wait until one does.",
            mend=worker_of(queue.settings.app, *[info.name for info in left[:3]]),
        ),
    )
    yield _of_queues(
        paused,
        good="No paused queue has due jobs.",
        bad=Finding(
            code="queue_paused",
            severity=Severity.WARNING,
            what="Paused is",
            why="None of its jobs runs until somebody resumes it.",
            mend=typed("queues", "resume", *[info.name for info in paused[:1]]),
        ),
    )
    yield _of_queues(
        slow,
        good=f"No due job of a queue that is served has waited for more than {span(READY_MAX_S)}.",
        bad=Finding(
            code="queue_slow",
            severity=Severity.WARNING,
            what="The workers are behind with",
            why="More comes in than they do, or other queues that they serve first hold them up.",
            mend="More workers or a higher concurrency; `protojobs explain ID` says what one job waits for.",
        ),
    )


def _of_queues(queues: Sequence[QueueInfo], *, good: str, bad: Finding) -> Finding:
    """`bad` with the names and numbers of these queues; without one, that all is well."""
    if not queues:
        return Finding(code=bad.code, severity=Severity.OK, what=good)
    oldest_first = sorted(queues, key=_waited, reverse=True)
    number = sum(info.stats.pending - info.stats.scheduled for info in queues)
    more = " or more" if any(info.stats.is_estimate for info in queues) else ""
    names = listed([info.name for info in oldest_first])
    jobs = f"{counted(number, 'due job')}{more}, the oldest for {span(_waited(oldest_first[0]))}"
    return replace(bad, what=f"{bad.what} {names}: {jobs}.")


def _waited(info: QueueInfo) -> float:
    return info.oldest_ready_s or 0.0


def of_jobs(queue: JobQueue) -> Iterator[Finding]:
    """Jobs that nobody knows, that nobody holds, whose run does not end, and that are on their way elsewhere."""
    waiting = list(_jobs(queue.driver, JobState.PENDING))
    yield _unknown_names(waiting)
    yield _undecodable(waiting)
    running = list(_jobs(queue.driver, JobState.PROCESSING))
    workers = {worker.id: worker for worker in queue.driver.workers()}
    yield _orphans(queue.driver, [job for job in running if job.reserved_by not in workers])
    yield _overrun(queue.driver.now(), running, workers)
    yield _unreadable(queue.driver, [job.id for job in waiting if is_unreadable(job)])
    moving = next(_jobs(queue.driver, JobState.MOVING, limit=1), None)
    yield judged(
        "jobs_moving",
        "No job is on its way to another store."
        if moving is None
        else f"Jobs are on their way to another store, such as {moving.id}; nobody may claim them.",
        is_good=moving is None,
        why="" if moving is None else "A transfer is under way, or has broken off.",
        mend="If it broke off, give the same `protojobs transfer` command again.",
    )


def _unknown_names(waiting: Sequence[JobRecord]) -> Finding:
    given_back = [job for job in waiting if job.reason == "unknown_name" and not job.attempts]
    if not given_back:
        what = f"No pending job has a name that its worker did not know (of the {len(waiting):,} pushed last)."
        return Finding(code="unknown_name", severity=Severity.OK, what=what)
    names = [name for name, _ in Counter(job.job_name for job in given_back).most_common()]
    first = given_back[0]
    return Finding(
        code="unknown_name",
        severity=Severity.ERROR,
        what=f"{counted(len(given_back), 'job')} came back since no worker that took them knows their name:"
        f" {listed(names)}.",
        why="They are offered again and again, at most every five minutes, and never run.",
        mend=f"Start the workers with the module that has it (--app); {first.id} was pushed as {cut(first.job_class)}.",
    )


def _unreadable(driver: Store, waiting: Sequence[str]) -> Finding:
    """Rows that no driver wrote: in no known state, set aside as failed by a claim, or `waiting` for one."""
    stateless = [job.id for job in islice(_jobs(driver, JobState.UNREADABLE), _JOBS_PAGE)]
    page = (
        driver.failed_alike(UNREADABLE, limit=_JOBS_PAGE, chars_max=_WHY_CHARS)
        if isinstance(driver, Observes)
        else None
    )
    set_aside = page.jobs if page else ()
    if not stateless and not set_aside and not waiting:
        return Finding(code="jobs_unreadable", severity=Severity.OK, what="Every stored job can be read.")
    sentences, mends = list[str](), list[str]()
    if set_aside:
        ids = listed([row.job_id for row in set_aside])
        sentences.append(f"{counted(len(set_aside), 'job')} set aside as failed: {ids}. {cut(set_aside[0].exception)}")
        one = set_aside[0].id
        mends.append(
            f"correct the column and type {typed('failed', 'retry', one)}, or {typed('failed', 'forget', one)}"
        )
    if stateless:
        sentences.append(f"{counted(len(stateless), 'job')} in no known state: {listed(stateless)}.")
        mends.append(f"{typed('jobs', 'cancel', stateless[0])} ends one that is in no known state")
    if waiting:
        sentences.append(f"{counted(len(waiting), 'job')} pending: {listed(waiting)}.")
        mends.append(f"{typed('jobs', 'show', waiting[0])} says what is wrong with one that is pending")
    return Finding(
        code="jobs_unreadable",
        severity=Severity.ERROR,
        what=" ".join(sentences),
        why="Something other than protojobs has written to its store. These jobs do not run; the others do.",
        mend=f"{'; '.join(mends)}.",
    )


def _undecodable(waiting: Sequence[JobRecord]) -> Finding:
    given_back = [job for job in waiting if job.reason == "undecodable" and not job.attempts]
    if not given_back:
        what = f"No pending job has data that its worker could not decode (of the {len(waiting):,} pushed last)."
        return Finding(code="undecodable", severity=Severity.OK, what=what)
    names = [name for name, _ in Counter(job.job_name for job in given_back).most_common()]
    return Finding(
        code="undecodable",
        severity=Severity.ERROR,
        what=f"{counted(len(given_back), 'job')} came back since their data does not decode in the workers that took"
        f" them: {listed(names)}.",
        why="They were pushed by another release of the job, or changed in the store. They are offered again, at most"
        " every five minutes, and after a day they fail.",
        mend=f"Start workers of the release that pushed them. The log of a worker says what is wrong with"
        f" {given_back[0].id}.",
    )


def _orphans(driver: Store, suspected: Sequence[JobRecord]) -> Finding:
    """Processing jobs without a worker. Looked at twice: one may have been settled between the two questions."""
    ids = [job.id for job in suspected[:_JOBS_PAGE]]
    holders = {(job.id, job.reserved_by) for job in suspected}
    still = [job for job in (driver.get(ids) if ids else []) if (job.id, job.reserved_by) in holders]
    orphans = [job for job in still if job.status is JobState.PROCESSING]
    if not orphans:
        return Finding(code="jobs_orphaned", severity=Severity.OK, what="Every processing job has its worker.")
    return Finding(
        code="jobs_orphaned",
        severity=Severity.WARNING,
        what=f"{counted(len(orphans), 'job')} of workers that are gone, such as {orphans[0].id}.",
        why="Any worker takes them back within seconds, once it has seen the store stand for a third of its lease.",
        mend="Start a worker, if none is alive.",
    )


def _overrun(now: datetime, running: Sequence[JobRecord], workers: dict[str, WorkerRecord]) -> Finding:
    late = [job for job in running if _is_late(job, now, workers.get(job.reserved_by))]
    if not late:
        return Finding(code="jobs_overrun", severity=Severity.OK, what="No run is beyond its timeout.")
    oldest = min(late, key=lambda job: job.reserved_at or now)
    return Finding(
        code="jobs_overrun",
        severity=Severity.WARNING,
        what=f"{counted(len(late), 'job')} beyond timeout and lease, such as {oldest.id} of {named(oldest.job_name)}"
        f" for {span(now - (oldest.reserved_at or now))}.",
        why="It is stuck in a call that a thread cannot be pulled out of, or lies in its worker behind such a one.",
        mend=f'protojobs explain {oldest.id}; executor = "process" ends such runs too.',
    )


def _is_late(job: JobRecord, now: datetime, worker: WorkerRecord | None) -> bool:
    if worker is None or not job.timeout or job.reserved_at is None:
        return False
    return now - job.reserved_at > timedelta(seconds=job.timeout + worker.lease_s)


def _jobs(driver: Store, state: JobState, *, limit: int = _JOBS_PAGE) -> Iterator[JobRecord]:
    """The latest jobs of a state, without their data."""
    cursor: str | None = None
    for _ in range(_JOBS_PAGES_MAX):
        page = driver.find(JobFilter(states=(state,)), limit=limit, cursor=cursor, chars_max=1)
        yield from page.jobs
        if (cursor := page.cursor) is None:
            return


def of_pruning(queue: JobQueue) -> Iterator[Finding]:
    """Finished jobs that ought to be gone."""
    if not isinstance(queue.driver, Diagnoses):
        return
    settings, now = queue.settings, queue.driver.now()
    for state, ended_at in queue.driver.oldest_ended().items():
        kept_h = settings.failed_job_retention if state is JobState.FAILED else settings.completed_job_retention
        late_s = (now - ended_at).total_seconds() - kept_s(kept_h)
        if late_s > PRUNE_LATE_S:
            yield Finding(
                code="prune_behind",
                severity=Severity.WARNING,
                what=f"The oldest {state.value} job ended {span(now - ended_at)} ago; kept are {kept_h:g} h.",
                why="No worker runs, which prunes every minute, or more ends than they delete beside their work.",
                mend="protojobs prune",
            )
