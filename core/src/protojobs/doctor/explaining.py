"""Explains why a job is not running: every condition of a claim, in the order in which a claim decides.

Looks only, in at most eight round trips, whatever the store holds.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING

from msgspec import Struct

from protojobs.doctor.wording import at, counted, cut, listed, named, span, typed, worker_of
from protojobs.jobs.fingerprints import last_line
from protojobs.names import just_before, served_queue
from protojobs.port.diagnosis import IN_FRONT_MAX, Diagnoses
from protojobs.port.lifecycle import CRASHES_MAX, SUSPECT_RECLAIMS, JobState
from protojobs.port.records import JobRecord, QueueInfo, WorkerRecord
from protojobs.port.unreadable_rows import is_unreadable

if TYPE_CHECKING:
    from protojobs.port.driver import Store
    from protojobs.queue.queue import JobQueue

__all__ = ["Check", "Explanation", "explain"]


class Check(Struct, frozen=True, kw_only=True):
    """One thing that must hold for the job to be run, and whether it does."""

    code: str  # stable, for scripts: `queue_active`, `due` ...
    passed: bool
    words: str


class Explanation(Struct, frozen=True, kw_only=True):
    """Where a job stands and why. `code` is that of the check which decides; `runnable` when nothing is in its way."""

    job_id: str
    state: JobState | None  # None: there is no such job
    code: str
    verdict: str  # one sentence
    mend: str = ""
    checks: tuple[Check, ...] = ()


def explain(queue: JobQueue, job_id: str) -> Explanation:
    """Why the job is not running, or who runs it, or how it ended. Raises StoreUnavailable."""
    driver = queue.driver
    job = next(iter(driver.get([job_id])), None)
    if job is None:
        return _missing(queue, job_id)
    exists = Check(
        code="exists", passed=True, words=f"It is a job {named(job.job_name)} of the queue {named(job.queue)}."
    )
    now = driver.now()
    match job.status:
        case JobState.PENDING:
            return _Waiting(queue, job, now).explained(exists)
        case JobState.PROCESSING:
            return _running(queue, job, now, exists)
        case JobState.FAILED:
            return _failed(driver, job, exists)
        case JobState.COMPLETED:
            words, mend = f"It completed at {at(job.processed_at)}, in attempt {job.attempts}.", ""
        case JobState.CANCELLED:
            why = f": {cut(job.reason)}" if job.reason else ""
            words, mend = (
                f"It was cancelled at {at(job.processed_at)}{why}.",
                "Push it again if it is wanted after all.",
            )
        case JobState.UNREADABLE:
            words = f"It is in no state that protojobs knows, so nobody is lent it. {cut(job.reason or '')}"
            mend = (
                f"Something other than protojobs wrote that. {typed('jobs', 'cancel', job.id)} puts it out of the way."
            )
        case JobState.MOVING:
            words = "It is being moved to another store, and nobody may claim it meanwhile."
            mend = "If that transfer broke off, give the same `protojobs transfer` command again: it goes on."
    return _of(job, job.status.value, words, mend, exists, Check(code="pending", passed=False, words=words))


def _missing(queue: JobQueue, job_id: str) -> Explanation:
    kept = f"{queue.settings.completed_job_retention:g} h after it completed"
    words = f"There is no job {named(job_id)}: it was never stored here, was cleared, or was pruned {kept}."
    check = Check(code="exists", passed=False, words=words)
    return Explanation(
        job_id=job_id,
        state=None,
        code="exists",
        verdict=words,
        mend="Compare the store with the one that push wrote to: `protojobs jobs list` shows what this one has.",
        checks=(check,),
    )


class _Waiting:
    """A pending job, and what a claim would make of it."""

    def __init__(self, queue: JobQueue, job: JobRecord, now: datetime) -> None:
        self._driver = queue.driver
        self._job = job
        self._now = now
        self._poll_s = queue.settings.poll_interval
        self._start = worker_of(queue.settings.app, job.queue)
        self._info = _queue_info(queue.driver, job.queue)
        self._alive = [worker for worker in queue.driver.workers() if worker.lease_ends_at > now]
        self._listeners = [worker for worker in self._alive if worker.serves(job.queue)]
        self._is_cross_process = queue.driver.capabilities.cross_process
        self._mends: dict[str, str] = {}

    def explained(self, exists: Check) -> Explanation:
        """The chain of checks, and the sentence that it comes to."""
        checks = [
            exists,
            *self._readable(),
            self._pending(),
            self._active(),
            self._due(),
            *self._workers(),
            *self._line(),
            *self._run(),
        ]
        failed = {check.code: check for check in checks if not check.passed}
        if "due" in failed and failed.keys() & {"name_known", "data_decodes"}:
            del failed["due"]  # it waits because no worker could run it, not the other way round
        decisive = next(iter(failed.values()), None)
        if decisive is None:
            soon = f"within {self._poll_s:g} s, unless a worker has it already"
            words = f"Nothing is in its way: a worker should take it {soon}."
            return _of(self._job, "runnable", words, "Ask again; `protojobs workers` shows who is at work.", *checks)
        return _of(self._job, decisive.code, decisive.words, self._mends.get(decisive.code, ""), *checks)

    def _check(self, code: str, passed: bool, good: str, bad: str, mend: str = "") -> Check:
        self._mends[code] = mend
        return Check(code=code, passed=passed, words=good if passed else bad)

    def _readable(self) -> list[Check]:
        if not is_unreadable(self._job):
            return []
        mend = f"Something other than protojobs wrote that: correct it, or {typed('jobs', 'cancel', self._job.id)}"
        words = f"{cut(self._job.reason or '')} The claim that meets it sets it aside as failed."
        return [self._check("readable", False, "", words, mend)]

    def _pending(self) -> Check:
        made = f"It has been pending since {at(self._job.created_at)}"
        of = f"attempt {self._job.attempts + 1} of {self._job.max_retries + 1} comes next"
        return Check(code="pending", passed=True, words=f"{made}; {of}.")

    def _active(self) -> Check:
        name = named(self._job.queue)
        return self._check(
            "queue_active",
            self._info is None or not self._info.is_paused,
            f"The queue {name} is not paused.",
            f"The queue {name} is paused: no worker is lent its jobs.",
            typed("queues", "resume", self._job.queue),
        )

    def _due(self) -> Check:
        job, left = self._job, self._job.available_at - self._now
        why = "it was pushed for"
        if job.attempts:
            why = f"attempt {job.attempts} has failed, and the next one waits until"
        elif job.claim_seq:
            why = f"it was given back{f' ({cut(job.reason)})' if job.reason else ''}, and waits until"
        return self._check(
            "due",
            left <= timedelta(0),
            f"It has been due for {span(-left)}.",
            f"It is not due yet: {why} {at(job.available_at)}, in {span(left)}.",
            "Nothing to mend: it runs then.",
        )

    def _workers(self) -> list[Check]:
        name, alive, listeners = named(self._job.queue), self._alive, self._listeners
        where = "" if self._is_cross_process else " (this driver's jobs are only seen by its own process)"
        served = sorted({queue for worker in alive for queue in worker.queues})
        checks = [
            self._check(
                "worker_alive",
                bool(alive),
                f"Workers that are alive: {len(alive):,}.",
                f"No worker is alive that uses this store{where}.",
                self._start,
            )
        ]
        if alive:
            checks.append(
                self._check(
                    "worker_listens",
                    bool(listeners),
                    f"Of {counted(len(alive), 'living worker')} {len(listeners):,} serve the queue {name}.",
                    f"No worker serves the queue {name}: those that are alive serve {listed(served)}.",
                    self._start,
                )
            )
        if listeners:
            checks.append(self._slots())
        return checks

    def _slots(self) -> Check:
        slots = sum(worker.concurrency for worker in self._listeners)
        held = sum(worker.processing for worker in self._listeners)
        is_free = any(worker.processing < worker.concurrency for worker in self._listeners)
        last = ""
        if self._job.attempts >= self._job.max_retries:
            last = " This is its last attempt, so it is lent to a free slot only, never ahead of time."
        return self._check(
            "slot_free",
            is_free,
            f"Of the {counted(slots, 'slot')} that serve the queue {max(slots - held, 1):,} are free.{last}",
            f"No slot that serves the queue is free: {counted(held, 'job')} for {counted(slots, 'slot')}.{last}",
            "It runs when one ends. More workers, or a higher concurrency, shorten the wait.",
        )

    def _line(self) -> list[Check]:
        if self._job.available_at > self._now:
            return []  # it has no place in the line yet
        number, is_exact = self._in_front()
        before = sorted({name for worker in self._listeners for name in _served_before(worker, self._job.queue)})
        also = f" Some workers serve {listed(before)} before this queue." if before else ""
        jobs = counted(number, "due job") + ("" if is_exact else " or more")
        verb = "comes" if number == 1 and is_exact else "come"
        return [
            self._check(
                "first_in_line",
                number == 0,
                f"It is the first in its queue's line.{also}",
                f"{jobs} of its queue {verb} before it (higher priority, or as high and due earlier).{also}",
                "It runs when they have. More workers, or a higher priority for its like, shorten the wait.",
            )
        ]

    def _in_front(self) -> tuple[int, bool]:
        """How many due jobs are lent before it, and whether that is exact."""
        if isinstance(self._driver, Diagnoses):
            number = self._driver.in_front(self._job.id, counted_max=IN_FRONT_MAX)
            return number, number < IN_FRONT_MAX
        # Of a driver that does not tell: whether it is alone.
        oldest_s = self._info.oldest_ready_s if self._info is not None else None
        waited_s = (self._now - self._job.available_at).total_seconds()
        return (1, False) if oldest_s is not None and oldest_s > waited_s + 1 else (0, True)

    def _run(self) -> list[Check]:
        job = self._job
        is_unknown = job.reason == "unknown_name" and job.attempts == 0
        known = "No worker has given it back for want of its code."
        if job.reason == "unknown_name" and job.attempts:
            known = "A worker that did not know its name once gave it back; others have run it."
        times = f"{counted(job.reclaims, 'worker')} went away while they held it, {job.crashes} by its doing"
        safe = "No worker has died of it."
        if job.reclaims >= SUSPECT_RECLAIMS or job.crashes:
            safe = f"It is a suspect ({times}): it runs in a child process of its own where it can."
        undecodable: list[Check] = []
        if job.reason == "undecodable" and job.attempts == 0:
            check = self._check(
                "data_decodes",
                False,
                "",
                "Its data does not decode in the worker that took it, and it went back unspent. After a day it fails.",
                "Start workers of the release that pushed it; the log of that worker says what is wrong.",
            )
            undecodable.append(check)
        return [
            self._check(
                "name_known",
                not is_unknown,
                known,
                f"The worker that took it knows no job {named(job.job_name)}, and gave it back unspent.",
                f"Start the workers with the module that defines it (--app); it was pushed as {cut(job.job_class)}.",
            ),
            *undecodable,
            self._check(
                "not_poison",
                job.crashes < CRASHES_MAX,
                safe,
                f"It took its process down {job.crashes} times: the next worker settles it as failed, unrun.",
                "Look for what kills it (memory, a C extension), then `protojobs failed retry`.",
            ),
        ]


def _running(queue: JobQueue, job: JobRecord, now: datetime, exists: Check) -> Explanation:
    """Who holds it, since when, and whether that worker still stands."""
    workers = queue.driver.workers()
    holder = next((worker for worker in workers if worker.id == job.reserved_by), None)
    others = [worker for worker in workers if worker.lease_ends_at > now and worker.id != job.reserved_by]
    taken = job.reserved_at or now
    claimed = Check(code="pending", passed=False, words=f"It was claimed at {at(taken)}, {span(now - taken)} ago.")
    back = "a living worker takes it back within seconds" if others else "no living worker is there to take it back"
    mend = "" if others else f"Start one: {worker_of(queue.settings.app, job.queue)}"
    if holder is None:
        words = f"Its worker ({job.reserved_by}) is gone, and {back}."
        return _of(job, "worker_alive", words, mend, exists, claimed, _failing("worker_alive", words))
    who = f"worker {holder.id} ({cut(holder.host)}, process {holder.pid})"
    if holder.lease_ends_at <= now:
        words = f"Its {who} has not been heard of for {span(now - holder.heartbeat_at)}, and {back}."
        return _of(job, "worker_alive", words, mend, exists, claimed, _failing("worker_alive", words))
    alive = Check(code="worker_alive", passed=True, words=f"Its {who} beat {span(now - holder.heartbeat_at)} ago.")
    return _with_its_worker(job, now, holder, (exists, claimed, alive))


def _with_its_worker(job: JobRecord, now: datetime, holder: WorkerRecord, checks: tuple[Check, ...]) -> Explanation:
    ran = now - (job.reserved_at or now)
    who = f"Worker {holder.id} ({cut(holder.host)}, process {holder.pid})"
    if job.cancel_requested_at is not None:
        words = f"{who} has had it for {span(ran)}; it was asked to cancel it at {at(job.cancel_requested_at)}."
        mend = "It ends when its code looks at `ctx.cancelled()`, or with its timeout; async and process jobs at once."
        return _of(job, "cancel_requested", words, mend, *checks, _failing("cancel_requested", words))
    if job.timeout and ran.total_seconds() > job.timeout + holder.lease_s:
        words = f"{who} has had it for {span(ran)}, beyond its timeout of {job.timeout:g} s."
        mend = (
            'It waits in that worker, or is stuck in a call that cannot be ended; executor = "process" ends those too.'
        )
        return _of(job, "in_time", words, mend, *checks, _failing("in_time", words))
    share = f", {job.progress:.0%} done" if job.progress is not None else ""
    words = f"{who} has been running it for {span(ran)}{share}, attempt {job.attempts} of {job.max_retries + 1}."
    mend = ""
    if holder.processing > holder.concurrency:
        ready = f"{counted(holder.processing, 'job')} for {counted(holder.concurrency, 'slot')}"
        mend = f"It may lie ready there, behind others: that worker holds {ready}."
    return _of(job, "processing", words, mend, *checks)


def _failed(driver: Store, job: JobRecord, exists: Check) -> Explanation:
    row = next(iter(driver.get_failed([job.id])), None)
    error = last_line(row.exception) if row else ""
    words = f"It failed for good at {at(job.processed_at)}, after {counted(job.attempts, 'attempt')}"
    words = f"{words}: {cut(error)}" if error else f"{words}."
    mend = f"When the cause is mended: protojobs failed retry {row.id if row else job.id}"
    return _of(job, "failed", words, mend, exists, _failing("pending", words))


def _queue_info(driver: Store, name: str) -> QueueInfo | None:
    """The queue as it stands; None where the store lists none of that name."""
    infos = driver.queues(after=just_before(name), limit=1, counted_max=1)
    return next((info for info in infos if info.name == name), None)


def _served_before(worker: WorkerRecord, queue: str) -> list[str]:
    """What this worker serves first; nothing where it goes by weights."""
    entries = [served_queue(text) for text in worker.queues]
    if any(entry.weight is not None for entry in entries):
        return []
    return [entry.name for entry in takewhile(lambda entry: not entry.matches(queue), entries)]


def _of(job: JobRecord, code: str, verdict: str, mend: str, *checks: Check) -> Explanation:
    return Explanation(job_id=job.id, state=job.status, code=code, verdict=verdict, mend=mend, checks=checks)


def _failing(code: str, words: str) -> Check:
    return Check(code=code, passed=False, words=words)
