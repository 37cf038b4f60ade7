"""JobQueue, where a job's life begins: data -> NewJob -> driver.enqueue. Its other verbs are in `_administration`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, cast
from uuid import UUID

from protojobs.clock import SYSTEM_CLOCK, Clock, within
from protojobs.config import Settings, load_settings
from protojobs.entropy import fresh_id
from protojobs.errors import ConfigurationError, NotSupported, OptionInvalid, StoreUnavailable, shown
from protojobs.events import JobQueued, JobQueuing
from protojobs.jobs import codec
from protojobs.jobs.backoff import to_policy
from protojobs.jobs.definition import REGISTRY, Registry
from protojobs.jobs.job_class import BoundJob, as_bound
from protojobs.names import check_seconds, parse_when
from protojobs.port.driver import Store, SupportsAsyncTransaction, SupportsTransaction
from protojobs.port.loading import create_driver
from protojobs.port.records import BATCH_BYTES_MAX, BATCH_JOBS_MAX, Enqueued, NewJob
from protojobs.queue.administration import QueueAdministration
from protojobs.queue.offload import offload, on_own_thread
from protojobs.queue.retrying import until_answered
from protojobs.stopping import StopToken

if TYPE_CHECKING:
    from typing import Self

    from protojobs.hooks.hooks import Hooks
    from protojobs.runtime import Runtime
    from protojobs.worker.lease.resting import RestingLeases
    from protojobs.worker.outcome import WorkReport

__all__ = ["JobQueue", "new_job", "push_made"]

CHUNK_JOBS = BATCH_JOBS_MAX  # push_many is never further ahead of the store than that: memory stays bounded
AT_ONCE = 0.0  # the delay of a push, which need not be looked at
TRY_S = 1.0  # the first try may take so long, however short `push_timeout` is


class JobQueue(QueueAdministration):
    """Pushes jobs into a store, works them, and looks after them. Thread-safe; opens nothing before its first use.

    `config` holds settings, which win over the environment and the settings file that is found from the current folder
    upwards; of both it obeys all, `plugins` too, but for `url` and `app`. A whole `Settings` leaves both out. Every
    method that waits for the store has a twin with an `a` in front for coroutines.
    """

    def __init__(
        self,
        driver: Store,
        config: Mapping[str, object] | Settings | None = None,
        *,
        registry: Registry = REGISTRY,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        settings = config if isinstance(config, Settings) else load_settings(config)
        super().__init__(driver, settings)
        self.registry = registry
        self.clock = clock
        self._resting: RestingLeases | None = None  # made by the first `work`
        self._hooks: Hooks | None = None
        self._loading = threading.RLock()  # a plugin may use this very queue while it is loaded
        self._is_loading = False
        self._is_answered = True  # the last push was

    @classmethod
    def from_config(cls, **given: object) -> JobQueue:
        """The queue that the configuration describes; its `url` picks the driver. `given` settings win.

        Raises ConfigurationError when no `url` is set anywhere.
        """
        settings = load_settings(given)
        if settings.url is None:
            raise ConfigurationError(
                "No store is configured.", mend='Set url = "sqlite:///jobs.db" in protojobs.toml, or PROTOJOBS_URL.'
            )
        return cls(create_driver(settings.url), settings)

    def close(self) -> None:
        """Sign off what `work` registered, and close the driver. A later call opens both again."""
        self.leave()
        self.driver.close()

    def __enter__(self) -> Self:
        """Itself: `with JobQueue(...) as queue:` closes it at the end."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def leave(self) -> None:
        """Sign off the worker that earlier calls of `work(queue, n)` have registered."""
        if self._resting is not None:
            self._resting.leave()

    def __repr__(self) -> str:
        """The store and the default queue, without secrets."""
        return f"<JobQueue on {self.driver!r}, default queue {self.settings.default_queue!r}>"

    @property
    def hooks(self) -> Hooks:
        """The plugins in use, loaded on first need."""
        if self._hooks is None:
            with self._loading:  # a worker and its ticker ask at the same moment
                return self._load_hooks()
        return self._hooks

    def _load_hooks(self) -> Hooks:
        from protojobs.hooks.hooks import Hooks
        from protojobs.hooks.loading import load_hooks  # pluggy is a sixth of our import time

        if self._is_loading:  # a plugin that is being made uses this queue: with no plugins, or it would be made again
            return Hooks(clock=self.clock)
        if self._hooks is None:
            self._is_loading = True
            try:
                self._hooks = load_hooks(self.settings.plugins, self.settings.plugins_disabled, clock=self.clock)
            finally:
                self._is_loading = False
        return self._hooks

    @property
    def runtime(self) -> Runtime:
        """Driver, settings, registry, hooks and clock, for parts that need no queue."""
        from protojobs.runtime import Runtime  # with pluggy, a sixth of our import time

        return Runtime(
            driver=self.driver, settings=self.settings, registry=self.registry, hooks=self.hooks, clock=self.clock
        )

    def push(self, job: object, data: object = None, *, id: str | None = None, session: object = None) -> str:
        """Store a job to run as soon as a worker is free; returns its id once the store has it.

        `job` is a Job instance or class, a `@job` function (or `function.bind(...)`), or a registered name. With
        `session` (a SQLAlchemy Session or Connection) the job commits or vanishes with the caller's own rows. `id`
        sends a push again whose answer was lost: the same id is stored once.

        Raises a PayloadError or ConfigurationError with nothing stored, or StoreUnavailable within `push_timeout`
        seconds, whatever the store or the network does; it carries the id.
        """
        return self._push([self._new(as_bound(job, data, self.registry), id=id)], session)[0].id

    def later(
        self,
        delay: float | timedelta | datetime | str,
        job: object,
        data: object = None,
        *,
        id: str | None = None,
        session: object = None,
    ) -> str:
        """As `push`, but not before `delay`: seconds, a timedelta, an aware datetime, or text such as
        `2030-01-31 12:00`, which without an offset is read in the configured `timezone`.
        """
        new = self._new(as_bound(job, data, self.registry), id=id, delay=delay)
        return self._push([new], session)[0].id

    def push_many(self, jobs: Iterable[object], *, session: object = None) -> list[str]:
        """Push many, each a bound job or a `(job, data)` pair, and return their ids.

        Sent in chunks of at most 1,000, each all or nothing and within `push_timeout`; with `session` the whole is. A
        chunk is checked before it is sent, and only then is more of `jobs` asked for. When the store fails half-way,
        `error.stored_ids` are stored and `error.job_ids` may be.
        """
        ids: list[str] = []
        for chunk in self._chunks(jobs):
            try:
                ids += [stored.id for stored in self._push(chunk, session)]
            except StoreUnavailable as error:
                error.stored_ids = tuple(ids)
                raise
        return ids

    async def apush(self, job: object, data: object = None, *, id: str | None = None, session: object = None) -> str:
        """`push` for coroutines; `session` is an AsyncSession or AsyncConnection."""
        new = self._new(as_bound(job, data, self.registry), id=id)
        return (await self._apush([new], session))[0].id

    async def alater(
        self,
        delay: float | timedelta | datetime | str,
        job: object,
        data: object = None,
        *,
        id: str | None = None,
        session: object = None,
    ) -> str:
        """`later` for coroutines."""
        new = self._new(as_bound(job, data, self.registry), id=id, delay=delay)
        return (await self._apush([new], session))[0].id

    async def apush_many(self, jobs: Iterable[object], *, session: object = None) -> list[str]:
        """`push_many` for coroutines."""
        ids: list[str] = []
        for chunk in self._chunks(jobs):
            try:
                ids += [stored.id for stored in await self._apush(chunk, session)]
            except StoreUnavailable as error:
                error.stored_ids = tuple(ids)
                raise
        return ids

    def work(
        self,
        queues: str | Sequence[str] | None = None,
        max_jobs: int | None = None,
        *,
        concurrency: int | None = None,
        stop: StopToken | None = None,
    ) -> WorkReport:
        """Work jobs here, in this process, and say what was done.

        `queues` is one name or a list, served in that order; None the default queue. With `max_jobs` it returns after
        that many runs (1 at least: a count that came out as 0 must not work for ever), or when nothing is due; without,
        when `stop` is told to. Raises StoreUnavailable if the store
        cannot be reached at the start; a later outage is sat out.
        """
        from protojobs.worker.launch import work  # processes that only push never load the worker
        from protojobs.worker.lease.resting import RestingLeases

        self.hooks.check()
        with self._loading:  # two threads may begin to work at the same moment
            self._resting = self._resting or RestingLeases()
        ends = max_jobs is not None
        return work(
            self.runtime,
            queues,
            max_jobs=max_jobs,
            ends_when_empty=ends,
            concurrency=concurrency,
            stop=stop,
            resting=self._resting,
        )

    async def awork(
        self,
        queues: str | Sequence[str] | None = None,
        max_jobs: int | None = None,
        *,
        concurrency: int | None = None,
        stop: StopToken | None = None,
    ) -> WorkReport:
        """`work` for coroutines, on a thread of its own. When the caller is cancelled, the worker is told to stop."""
        token = stop or StopToken()
        work = partial(self.work, queues, max_jobs, concurrency=concurrency, stop=token)
        return await on_own_thread(work, cancelled=token.stop)

    def _new(
        self,
        bound: BoundJob,
        *,
        id: str | None = None,
        delay: float | timedelta | datetime | str = AT_ONCE,
    ) -> NewJob:
        """Check and encode one job, in the caller's stack; transforms and `job.queuing` come after."""
        if id is not None and not _is_id(id):
            raise OptionInvalid(
                f"id {shown(id, 60)} is not one that push made.", mend="Send again the id of StoreUnavailable."
            )
        return self.hooks.before_push(new_job(bound, self.settings, id or fresh_id(), delay=delay))

    def _chunks(self, jobs: Iterable[object]) -> Iterator[list[NewJob]]:
        """As much as one enqueue takes, in jobs and in bytes. Each job is encoded as it comes, for it may change."""
        settings, registry, prepared = self.settings, self.registry, self.hooks.before_push
        chunk: list[NewJob] = []
        size = 0
        for item in jobs:
            job = prepared(new_job(_pair(item, registry), settings, fresh_id()))
            job_bytes = len(job.data) if job.data.isascii() else len(job.data.encode())
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

    def _push(self, jobs: Sequence[NewJob], session: object) -> list[Enqueued]:
        if session is None:
            return self._store(jobs, self.clock.monotonic())
        self._queuing(jobs)
        if not isinstance(self.driver, SupportsTransaction):
            raise _no_sessions(self.driver)
        return self.driver.enqueue_in(session, jobs, on_commit=self._queued_later(jobs))

    async def _apush(self, jobs: Sequence[NewJob], session: object) -> list[Enqueued]:
        if session is None:
            return await offload(self._store, jobs, self.clock.monotonic())
        self._queuing(jobs)
        if not isinstance(self.driver, SupportsAsyncTransaction):
            raise _no_sessions(self.driver)
        return await self.driver.aenqueue_in(session, jobs, on_commit=self._queued_later(jobs))

    def _store(self, jobs: Sequence[NewJob], called_at: float) -> list[Enqueued]:
        self._queuing(jobs)
        # The ids are ours, so sending again after an unknown outcome stores each job once.
        timeout, waited_s = self.settings.push_timeout, self.clock.monotonic() - called_at
        left_s = max(timeout, TRY_S) - waited_s
        try:
            with within(left_s if left_s > 0 else self._late_try_s()):
                enqueued = until_answered(lambda: self.driver.enqueue(jobs), timeout - waited_s, self.clock)
        except StoreUnavailable as error:
            self._is_answered = False
            raise _unsure(jobs, error) from error
        self._is_answered = True
        self._queued(jobs, enqueued)
        return enqueued

    def _late_try_s(self) -> float:
        """For a coroutine's push whose time is over before a thread was free. They may all wait for the store."""
        if not self._is_answered:
            raise StoreUnavailable("no thread was free to send them, since the store does not answer.")
        return TRY_S  # the store answers, there are just a great many of them

    def _queuing(self, jobs: Sequence[NewJob]) -> None:
        if self.hooks.listens("job.queuing"):
            for job in jobs:
                self.hooks.notify(
                    JobQueuing(job_id=job.id, job_name=job.job_name, job_class=job.job_class, queue=job.queue)
                )

    def _queued(self, jobs: Sequence[NewJob], enqueued: Sequence[Enqueued]) -> None:
        if self.hooks.listens("job.queued"):
            for job, answer in zip(jobs, enqueued, strict=True):
                self.hooks.notify(
                    JobQueued(
                        job_id=job.id,
                        job_name=job.job_name,
                        job_class=job.job_class,
                        queue=job.queue,
                        duplicate_of=answer.duplicate_of,
                    )
                )

    def _queued_later(self, jobs: Sequence[NewJob]) -> Callable[[], None]:
        return lambda: self._queued(jobs, [Enqueued(id=job.id) for job in jobs])


def new_job(
    bound: BoundJob, settings: Settings, job_id: str, *, delay: float | timedelta | datetime | str = AT_ONCE
) -> NewJob:
    """Raises a PayloadError or OptionInvalid. Options that the job leaves open are those of the settings."""
    definition, options = bound.definition, bound.options
    moment, delay_s = (None, AT_ONCE) if delay is AT_ONCE else _when(delay, settings.timezone)
    return NewJob(
        id=job_id,
        queue=options.queue or settings.default_queue,
        job_name=definition.name,
        job_class=definition.job_class,
        data=codec.encode(
            bound.data,
            definition.data_type,
            what=f'job "{definition.name}"',
            bytes_max=settings.payload_bytes_max,
        ),
        priority=options.priority,
        max_retries=settings.max_retries if options.max_retries is None else options.max_retries,
        retry_delay=settings.retry_delay if options.retry_delay is None else options.retry_delay,
        retry_policy=to_policy(options.backoff),
        timeout=settings.timeout if options.timeout is None else options.timeout,
        delay=delay_s,
        available_at=moment,
    )


def _when(delay: float | timedelta | datetime | str, zone: str) -> tuple[datetime | None, float]:
    if isinstance(delay, datetime | str):
        return parse_when("delay", delay, zone), AT_ONCE
    return None, check_seconds("delay", delay)


def push_made(queue: JobQueue, job: NewJob) -> str:
    """As `queue.push`, for a job that is made already."""
    (stored,) = queue._push([queue.hooks.before_push(job)], None)  # pyright: ignore[reportPrivateUsage]  (its own module)
    return stored.id


def _unsure(jobs: Sequence[NewJob], error: StoreUnavailable) -> StoreUnavailable:
    ids = tuple(job.id for job in jobs)
    return StoreUnavailable(
        f"{len(ids)} job(s) may not be stored: {error.message}",
        mend="Push again with the same id= (error.job_ids); it is stored once.",
        job_ids=ids,
    )


def _pair(item: object, registry: Registry) -> BoundJob:
    if not isinstance(item, tuple):
        return as_bound(item, None, registry)
    pair = cast("tuple[object, ...]", item)
    if len(pair) != 2:
        raise OptionInvalid(f"push_many got a tuple of {len(pair)}.", mend="Write (job, data), or a bound job.")
    return as_bound(pair[0], pair[1], registry)


def _is_id(text: object) -> bool:
    try:
        return isinstance(text, str) and str(UUID(text)) == text  # some stores keep ids as native UUIDs
    except ValueError:
        return False


def _no_sessions(driver: Store) -> NotSupported:
    return NotSupported(
        f"{type(driver).__name__} cannot store a job in your transaction.",
        mend="Use a SQLAlchemy driver on the same database, or push after the commit.",
    )
