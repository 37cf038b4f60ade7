"""How a push reaches the store: the jobs that `protojobs.new_jobs` makes are sent, again and again while it is away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from msgspec import convert
from msgspec.structs import replace

from protojobs.clock import Clock, within
from protojobs.config import Settings
from protojobs.entropy import fresh_id, jittered
from protojobs.errors import NotSupported, OptionInvalid, StoreUnavailable
from protojobs.events import JobQueued, JobQueuing, about
from protojobs.jobs.definition import Registry
from protojobs.jobs.job_class import BoundJob, as_bound
from protojobs.new_jobs import encoded, new_job
from protojobs.port.driver import Store
from protojobs.port.records import (
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
    JOB_FIELDS,
    Capabilities,
    Enqueued,
    JobRecord,
    NewJob,
    payload_bytes,
)
from protojobs.port.schedules import Schedule
from protojobs.port.transactions import HasCurrentTransaction, SupportsAsyncTransaction, SupportsTransaction
from protojobs.queue.coroutines import offload

if TYPE_CHECKING:
    from protojobs.hooks.hooks import Hooks

__all__ = ["CHUNK_JOBS", "Pusher", "in_chunks", "job_like", "until_answered"]

T = TypeVar("T")

CHUNK_JOBS = BATCH_JOBS_MAX  # push_many is never further ahead of the store than that: memory stays bounded
TRY_S = 1.0  # the first try may take so long, however short `push_timeout` is
FIRST_PAUSE_S, PAUSE_MAX_S = 0.05, 2.0  # between two tries


def job_like(source: JobRecord | Schedule, job_id: str, **changes: object) -> NewJob:
    """A job with the queue, name, data and options of another one, or of a schedule."""
    return convert({field: getattr(source, field) for field in JOB_FIELDS} | {"id": job_id} | changes, NewJob)


class Pusher:
    """Sends the jobs of one JobQueue to its store. Thread-safe."""

    def __init__(self, driver: Store, settings: Settings, clock: Clock) -> None:
        self._driver = driver
        self._settings = settings
        self._clock = clock
        self._joins = driver if isinstance(driver, HasCurrentTransaction) else None
        self._is_answered = True  # the store has answered the last push

    def send(
        self, jobs: Sequence[NewJob], hooks: Hooks, session: object = None, called_at: float | None = None
    ) -> list[Enqueued]:
        """Store all of the jobs or none, and tell the observers of `job.queuing` and `job.queued`.

        `called_at`: when the caller asked for it, on the monotonic clock. Raises StoreUnavailable, with the ids, when
        `push_timeout` is over since then.
        """
        if session is None and self._joins is not None:
            session = self._joins.current_transaction()
        if session is not None:
            return self._send_in(session, jobs, hooks)
        called_at = self._clock.monotonic() if called_at is None else called_at
        _tell_queuing(jobs, hooks)
        timeout, waited_s = self._settings.push_timeout, self._clock.monotonic() - called_at
        left_s = max(timeout, TRY_S) - waited_s
        try:
            with within(left_s if left_s > 0 else self._late_try_s()):
                enqueued = until_answered(partial(self._driver.enqueue, jobs), timeout - waited_s, self._clock)
        except StoreUnavailable as error:
            self._is_answered = False
            raise _unsure(jobs, error) from error
        self._is_answered = True
        _tell_queued(jobs, enqueued, hooks)
        return enqueued

    async def asend(self, jobs: Sequence[NewJob], hooks: Hooks, session: object = None) -> list[Enqueued]:
        """`send` for coroutines; `session` is an asynchronous one."""
        if session is None:
            return await offload(self.send, jobs, hooks, None, self._clock.monotonic())
        _tell_queuing(jobs, hooks)
        if not isinstance(self._driver, SupportsAsyncTransaction):
            raise _no_sessions(self._driver)
        return await self._driver.aenqueue_in(session, jobs, on_commit=partial(self.committed, jobs, hooks))

    def _send_in(self, session: object, jobs: Sequence[NewJob], hooks: Hooks) -> list[Enqueued]:
        """Store them in the caller's own transaction. Observers of `job.queued` are told once it has committed."""
        _tell_queuing(jobs, hooks)
        if not isinstance(self._driver, SupportsTransaction):
            raise _no_sessions(self._driver)
        return self._driver.enqueue_in(session, jobs, on_commit=partial(self.committed, jobs, hooks))

    def committed(self, jobs: Sequence[NewJob], hooks: Hooks) -> None:
        """What follows the root commit of a session in which jobs were stored."""
        _tell_queued(jobs, [Enqueued(id=job.id) for job in jobs], hooks)

    def _late_try_s(self) -> float:
        """For a coroutine's push whose time is over before a thread was free. They may all wait for the store."""
        if not self._is_answered:
            raise StoreUnavailable("no thread was free to send them, since the store does not answer.")
        return TRY_S  # the store answers, there are just a great many of them


def in_chunks(
    jobs: Iterable[object], registry: Registry, settings: Settings, store: Capabilities, hooks: Hooks
) -> Iterator[list[NewJob]]:
    """As much as one enqueue takes, in jobs and in bytes. Each job is encoded as it comes, for it may change."""
    chunk: list[NewJob] = []
    size = 0
    like: tuple[BoundJob, NewJob] | None = None  # the last one that was made from its options
    for item in jobs:
        bound = _bound(item, registry)
        if like is not None and bound.definition is like[0].definition and bound.options is like[0].options:
            job = replace(like[1], id=fresh_id(), data=encoded(bound, settings))
        else:
            job = new_job(bound, settings, store)
            like = bound, job
        if hooks.has_before_push:
            job = hooks.before_push(job)
        job_bytes = payload_bytes(job.data)
        if chunk and size + job_bytes > BATCH_BYTES_MAX:
            yield chunk
            chunk, size = [], 0
        chunk.append(job)
        size += job_bytes
        if len(chunk) == CHUNK_JOBS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def until_answered(call: Callable[[], T], within_s: float, clock: Clock) -> T:
    """`call()`, again and again while it raises StoreUnavailable, with growing pauses; the last error after `within_s`.

    Only for calls that may be repeated after an unknown outcome.
    """
    ends = clock.monotonic() + within_s
    pause = FIRST_PAUSE_S
    while True:
        try:
            return call()
        except StoreUnavailable:
            wait = jittered(pause)
            if clock.monotonic() + wait >= ends:
                raise
            clock.sleep(wait)
            pause = min(2 * pause, PAUSE_MAX_S)


def _bound(item: object, registry: Registry) -> BoundJob:
    """One item of `push_many`: a job, or a pair of a job and its data."""
    if not isinstance(item, tuple):
        return as_bound(item, None, registry)
    pair = cast("tuple[object, ...]", item)
    if len(pair) != 2:
        raise OptionInvalid(f"push_many got a tuple of {len(pair)}.", mend="Write (job, data), or a bound job.")
    return as_bound(pair[0], pair[1], registry)


def _tell_queuing(jobs: Sequence[NewJob], hooks: Hooks) -> None:
    if hooks.listens("job.queuing"):
        for job in jobs:
            hooks.notify(about(JobQueuing, job))


def _tell_queued(jobs: Sequence[NewJob], enqueued: Sequence[Enqueued], hooks: Hooks) -> None:
    if hooks.listens("job.queued"):
        for job, answer in zip(jobs, enqueued, strict=True):
            hooks.notify(about(JobQueued, job, duplicate_of=answer.duplicate_of))


def _unsure(jobs: Sequence[NewJob], error: StoreUnavailable) -> StoreUnavailable:
    ids = tuple(job.id for job in jobs)
    return StoreUnavailable(
        f"{len(ids)} job(s) may not be stored: {error.message}",
        mend="Push again with the same id= (error.job_ids); it is stored once.",
        job_ids=ids,
    )


def _no_sessions(driver: Store) -> NotSupported:
    return NotSupported(
        f"{type(driver).__name__} cannot store a job in your transaction.",
        mend="Use a SQLAlchemy driver on the same database, or push after the commit.",
    )
