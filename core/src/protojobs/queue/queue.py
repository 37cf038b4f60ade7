"""JobQueue, the class that programs use: push jobs, look after them, and start a worker."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar, overload

from protojobs.clock import SYSTEM_CLOCK, Clock
from protojobs.config import Settings, load_settings
from protojobs.errors import ConfigurationError, OptionInvalid, StoreUnavailable, did_you_mean, one_line, shown
from protojobs.events import QueuePaused, QueueResumed
from protojobs.jobs.definition import REGISTRY, Registry
from protojobs.jobs.job_class import FunctionJob, as_bound
from protojobs.jobs.job_ids import JobId
from protojobs.names import Delay, check_name, check_seconds, check_text
from protojobs.new_jobs import new_job
from protojobs.port.driver import Store
from protojobs.port.installed_drivers import create_driver
from protojobs.port.records import (
    CancelAnswer,
    Cleared,
    FailedJob,
    JobFilter,
    JobPage,
    JobRecord,
    NewJob,
    Pruned,
    QueueInfo,
    RetryAnswer,
    Stats,
    WorkerRecord,
)
from protojobs.queue import administration
from protojobs.queue.coroutines import in_thread, offload, on_own_thread
from protojobs.queue.pushing import Pusher, in_chunks
from protojobs.stopping import StopToken

if TYPE_CHECKING:
    from typing import Self

    from protojobs.hooks.hooks import Hooks
    from protojobs.jobs.accepted import AnyJob, DataOf, Fields, JobOf, PushedData, Ready, ReadyOther, Returning
    from protojobs.port.sessions import AsyncSession, SyncSession
    from protojobs.queue.waiting import Waiting
    from protojobs.runtime import Runtime
    from protojobs.worker.kept_resources import KeptResources
    from protojobs.worker.lease.between_calls import RestingLeases
    from protojobs.worker.outcome import WorkReport

__all__ = ["JobQueue", "push_made"]

T = TypeVar("T")
_PUSH, _LATER = "queue.push(my_job.bind(...))", "queue.later(60, my_job.bind(...))"
_ELSEWHERE = {  # in RQ, Celery, Dramatiq, arq, Laravel, Procrastinate, or our Scheduler -> what to write
    "enqueue": _PUSH,
    "enqueue_call": _PUSH,
    "enqueue_job": _PUSH,
    "send_task": _PUSH,
    "apply_async": _PUSH,
    "delay": _PUSH,
    "send": _PUSH,
    "dispatch": _PUSH,
    "defer": _PUSH,
    "enqueue_in": _LATER,
    "enqueue_at": _LATER,
    "enqueue_many": "queue.push_many([my_job.bind(...), ...])",
    "add_periodic_task": "Scheduler(queue).every(my_job, 60)",
    "every": "Scheduler(queue).every(my_job, 60)",
    "hourly": "Scheduler(queue).hourly(my_job)",
    "daily": 'Scheduler(queue).daily(my_job, at="02:30")',
    "weekly": 'Scheduler(queue).weekly(my_job, day="monday")',
    "cron": 'Scheduler(queue).cron(my_job, "0 7 * * *")',
}


class JobQueue:
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
        self.settings = config if isinstance(config, Settings) else load_settings(config)
        if not hasattr(driver, "enqueue"):
            raise ConfigurationError(
                f"JobQueue takes a driver, not a {type(driver).__name__}.",
                mend="Write JobQueue(create_driver(url)), or JobQueue.from_config(url=url).",
            )
        self.driver = driver
        self.registry = registry
        self.clock = clock
        self._pusher = Pusher(driver, self.settings, clock)
        self._waits: Waiting | None = None  # made by the first wait
        self._resting: RestingLeases | None = None  # made by the first `work`
        self._kept: KeptResources | None = None  # likewise
        self._hooks: Hooks | None = None
        self._loading = threading.RLock()  # a plugin may use this very queue while it is loaded
        self._is_loading = False

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
        """Sign off what `work` registered, close its resources, and close the driver. A later call opens both again."""
        self.leave()
        self.driver.close()

    def __enter__(self) -> Self:
        """Itself: `with JobQueue(...) as queue:` closes it at the end."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def leave(self) -> None:
        """Sign off the worker that earlier calls of `work(queue, n)` have registered, and close its resources."""
        if self._kept is not None:
            self._kept.close()
        if self._resting is not None:
            self._resting.leave()

    if not TYPE_CHECKING:  # to a type checker what is not there stays an error

        def __getattr__(self, name: str) -> object:
            """Only what is not there is asked for here: say what it is called here, if another library has it."""
            if (call := _ELSEWHERE.get(name)) is not None:
                raise AttributeError(f"A JobQueue has no {name}(). Write {call}.")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        """The store and the default queue, without secrets."""
        return f"<JobQueue on {self.driver!r}, default queue {self.settings.default_queue!r}>"

    @overload
    def push(self, job: Returning[T], *, id: str | None = None, session: SyncSession | None = None) -> JobId[T]: ...
    @overload
    def push(self, job: ReadyOther, *, id: str | None = None, session: SyncSession | None = None) -> JobId[object]: ...
    @overload
    def push(
        self,
        job: JobOf[PushedData] | str,
        data: DataOf[PushedData],
        *,
        id: str | None = None,
        session: SyncSession | None = None,
    ) -> JobId[object]: ...
    @overload
    def push(
        self,
        job: JobOf[Fields] | FunctionJob[..., object],
        data: Mapping[str, object],
        *,
        id: str | None = None,
        session: SyncSession | None = None,
    ) -> JobId[object]: ...
    def push(
        self,
        job: object,
        data: object = None,
        *more: object,
        id: str | None = None,
        session: object = None,
        **unknown: object,
    ) -> str:
        """Store a job to run as soon as a worker is free; returns its id once the store has it.

        `job` is a Job instance or class, a `@job` function (or `function.bind(...)`), or a registered name. With
        `session` (a SQLAlchemy Session or Connection) the job commits or vanishes with the caller's own rows. `id`
        sends a push again whose answer was lost: the same id is stored once.

        Raises a PayloadError or ConfigurationError with nothing stored, or StoreUnavailable within `push_timeout`
        seconds, whatever the store or the network does; it carries the id.
        """
        if more or unknown:
            raise _misread("push", job, more, unknown)
        hooks = self.hooks
        new = new_job(as_bound(job, data, self.registry), self.settings, self.driver.capabilities, id=id)
        new = hooks.before_push(new) if hooks.has_before_push else new
        return self._pusher.send([new], hooks, session)[0].id

    @overload
    async def apush(
        self, job: Returning[T], *, id: str | None = None, session: AsyncSession | None = None
    ) -> JobId[T]: ...
    @overload
    async def apush(
        self, job: ReadyOther, *, id: str | None = None, session: AsyncSession | None = None
    ) -> JobId[object]: ...
    @overload
    async def apush(
        self,
        job: JobOf[PushedData] | str,
        data: DataOf[PushedData],
        *,
        id: str | None = None,
        session: AsyncSession | None = None,
    ) -> JobId[object]: ...
    @overload
    async def apush(
        self,
        job: JobOf[Fields] | FunctionJob[..., object],
        data: Mapping[str, object],
        *,
        id: str | None = None,
        session: AsyncSession | None = None,
    ) -> JobId[object]: ...
    async def apush(
        self,
        job: object,
        data: object = None,
        *more: object,
        id: str | None = None,
        session: object = None,
        **unknown: object,
    ) -> str:
        """`push` for coroutines; `session` is an AsyncSession or AsyncConnection."""
        if more or unknown:
            raise _misread("apush", job, more, unknown)
        hooks = self.hooks
        new = new_job(as_bound(job, data, self.registry), self.settings, self.driver.capabilities, id=id)
        new = hooks.before_push(new) if hooks.has_before_push else new
        return (await self._pusher.asend([new], hooks, session))[0].id

    @overload
    def later(
        self, delay: Delay, job: Returning[T], *, id: str | None = None, session: SyncSession | None = None
    ) -> JobId[T]: ...
    @overload
    def later(
        self, delay: Delay, job: ReadyOther, *, id: str | None = None, session: SyncSession | None = None
    ) -> JobId[object]: ...
    @overload
    def later(
        self,
        delay: Delay,
        job: JobOf[PushedData] | str,
        data: DataOf[PushedData],
        *,
        id: str | None = None,
        session: SyncSession | None = None,
    ) -> JobId[object]: ...
    @overload
    def later(
        self,
        delay: Delay,
        job: JobOf[Fields] | FunctionJob[..., object],
        data: Mapping[str, object],
        *,
        id: str | None = None,
        session: SyncSession | None = None,
    ) -> JobId[object]: ...
    def later(
        self,
        delay: Delay,
        job: object,
        data: object = None,
        *more: object,
        id: str | None = None,
        session: object = None,
        **unknown: object,
    ) -> str:
        """As `push`, but not before `delay`: seconds, a timedelta, an aware datetime, or text such as
        `2030-01-31 12:00`, which without an offset is read in the configured `timezone`.
        """
        if more or unknown:
            raise _misread("later", job, more, unknown)
        hooks = self.hooks
        new = hooks.before_push(
            new_job(as_bound(job, data, self.registry), self.settings, self.driver.capabilities, id=id, delay=delay)
        )
        return self._pusher.send([new], hooks, session)[0].id

    @overload
    async def alater(
        self, delay: Delay, job: Returning[T], *, id: str | None = None, session: AsyncSession | None = None
    ) -> JobId[T]: ...
    @overload
    async def alater(
        self, delay: Delay, job: ReadyOther, *, id: str | None = None, session: AsyncSession | None = None
    ) -> JobId[object]: ...
    @overload
    async def alater(
        self,
        delay: Delay,
        job: JobOf[PushedData] | str,
        data: DataOf[PushedData],
        *,
        id: str | None = None,
        session: AsyncSession | None = None,
    ) -> JobId[object]: ...
    @overload
    async def alater(
        self,
        delay: Delay,
        job: JobOf[Fields] | FunctionJob[..., object],
        data: Mapping[str, object],
        *,
        id: str | None = None,
        session: AsyncSession | None = None,
    ) -> JobId[object]: ...
    async def alater(
        self,
        delay: Delay,
        job: object,
        data: object = None,
        *more: object,
        id: str | None = None,
        session: object = None,
        **unknown: object,
    ) -> str:
        """`later` for coroutines."""
        if more or unknown:
            raise _misread("alater", job, more, unknown)
        hooks = self.hooks
        new = hooks.before_push(
            new_job(as_bound(job, data, self.registry), self.settings, self.driver.capabilities, id=id, delay=delay)
        )
        return (await self._pusher.asend([new], hooks, session))[0].id

    def push_many(
        self, jobs: Iterable[Ready | tuple[AnyJob, object]], *, session: SyncSession | None = None
    ) -> list[str]:
        """Push many, each a bound job or a `(job, data)` pair, and return their ids.

        Sent in chunks of at most 1,000, each all or nothing and within `push_timeout`; with `session` the whole is. A
        chunk is checked before it is sent, and only then is more of `jobs` asked for. When the store fails half-way,
        `error.stored_ids` are stored and `error.job_ids` may be.
        """
        hooks, ids = self.hooks, list[str]()
        for chunk in in_chunks(jobs, self.registry, self.settings, self.driver.capabilities, hooks):
            try:
                ids += [stored.id for stored in self._pusher.send(chunk, hooks, session)]
            except StoreUnavailable as error:
                error.stored_ids = tuple(ids)
                raise
        return ids

    async def apush_many(
        self, jobs: Iterable[Ready | tuple[AnyJob, object]], *, session: AsyncSession | None = None
    ) -> list[str]:
        """`push_many` for coroutines."""
        hooks, ids = self.hooks, list[str]()
        for chunk in in_chunks(jobs, self.registry, self.settings, self.driver.capabilities, hooks):
            try:
                ids += [stored.id for stored in await self._pusher.asend(chunk, hooks, session)]
            except StoreUnavailable as error:
                error.stored_ids = tuple(ids)
                raise
        return ids

    def work(
        self,
        queues: str | Sequence[str] | Mapping[str, int] | None = None,
        max_jobs: int | None = None,
        *,
        concurrency: int | None = None,
        stop: StopToken | None = None,
    ) -> WorkReport:
        """Work jobs here, in this process, and say what was done.

        `queues` is one name; a list, served in that order; or a dict of names and weights. A `*` in a name stands for
        any text. None: the setting `queues`, or else every queue that the registered jobs name, in fair turn. With
        `max_jobs` it returns after that many runs (1 at least: a count that came out as 0 must not work for ever), or
        when nothing is due; without, when `stop` is told to. Raises StoreUnavailable if the store cannot be reached at
        the start; a later outage is sat out.
        """
        from protojobs.worker.kept_resources import KeptResources
        from protojobs.worker.launch import work  # processes that only push never load the worker
        from protojobs.worker.lease.between_calls import RestingLeases

        self.hooks.check()
        with self._loading:  # two threads may begin to work at the same moment
            self._resting, self._kept = self._resting or RestingLeases(), self._kept or KeptResources()
        ends = max_jobs is not None
        return work(
            self.runtime,
            queues,
            max_jobs=max_jobs,
            ends_when_empty=ends,
            concurrency=concurrency,
            stop=stop,
            resting=self._resting,
            kept=self._kept,
        )

    async def awork(
        self,
        queues: str | Sequence[str] | Mapping[str, int] | None = None,
        max_jobs: int | None = None,
        *,
        concurrency: int | None = None,
        stop: StopToken | None = None,
    ) -> WorkReport:
        """`work` for coroutines, on a thread of its own. When the caller is cancelled, the worker is told to stop."""
        token = stop or StopToken()
        work = partial(self.work, queues, max_jobs, concurrency=concurrency, stop=token)
        return await on_own_thread(work, cancelled=token.stop)

    def stats(self, queue: str | None = None) -> Stats:
        """How many jobs are in which state, of one queue or of all."""
        return self.driver.stats(None if queue is None else check_name("queue", queue))

    def get(self, job_id: str) -> JobRecord | None:
        """The job as it stands in the store, or None."""
        return next(iter(self.driver.get([job_id])), None)

    @overload
    def result(self, job_id: JobId[T]) -> T: ...
    @overload
    def result(self, job_id: str) -> object: ...
    def result(self, job_id: str) -> object:
        """What the job has returned, if it has completed and says `store_result=True`.

        Raises a NoResult else, which says why: JobUnfinished, JobHasFailed, JobWasCancelled, ResultNotKept, JobMissing.
        """
        return self._waiting.result(job_id)

    @overload
    def wait_for(self, job_id: JobId[T], timeout: float) -> T: ...
    @overload
    def wait_for(self, job_id: str, timeout: float) -> object: ...
    def wait_for(self, job_id: str, timeout: float) -> object:
        """Wait until the job has ended, and answer as `result` does; None where no result is kept.

        The answer comes a millisecond after the end, or at most a tenth of the time waited. Raises WaitTimeout (a
        TimeoutError) after `timeout` seconds, at most a day, also while the store is away; the job goes on all the
        same. Raises WaitInsideJob in a running job.
        """
        return self._waiting.wait_for(job_id, timeout)

    @overload
    async def await_for(self, job_id: JobId[T], timeout: float) -> T: ...
    @overload
    async def await_for(self, job_id: str, timeout: float) -> object: ...
    async def await_for(self, job_id: str, timeout: float) -> object:
        """`wait_for` for coroutines: any number of them may wait, and hold no thread meanwhile."""
        return await self._waiting.await_for(job_id, timeout)

    def watch(self, job_id: str, timeout: float | None = None) -> Iterator[JobRecord]:
        """The job as it stands, and again after each change (its state, its progress), until it has ended.

        Or until `timeout` seconds are over. A change is seen within a second; an outage is sat out. Raises JobMissing
        for a job that the store does not have.
        """
        from protojobs.queue.waiting import changes  # as `_waiting`

        return changes(self.driver, job_id, timeout)

    def awatch(self, job_id: str, timeout: float | None = None) -> AsyncIterator[JobRecord]:
        """`watch` for coroutines: `async for`."""
        from protojobs.queue.waiting import achanges  # as `_waiting`

        return achanges(self.driver, job_id, timeout)

    def find(self, which: JobFilter | None = None, *, limit: int = 50, cursor: str | None = None) -> JobPage:
        """A page of jobs, newest first."""
        if not isinstance(which, JobFilter | None):
            raise OptionInvalid(
                f"find() takes a JobFilter, not {shown(which)}.",
                mend='Write find(JobFilter(states=(JobState.FAILED,))). Text such as "state:failed" is for'
                " Inspector(queue).jobs().",
            )
        return self.driver.find(which or JobFilter(), limit=limit, cursor=cursor)

    def failed_jobs(self, queue: str | None = None) -> Iterator[FailedJob]:
        """The failed jobs, newest first, fetched page by page while you iterate."""
        return administration.failed_jobs(self.driver, queue)

    async def afailed_jobs(self, queue: str | None = None) -> AsyncIterator[FailedJob]:
        """`failed_jobs` for coroutines: `async for`."""
        cursor: str | None = None
        while True:
            page = await offload(self.driver.failed, queue=queue, limit=administration.FAILED_PAGE, cursor=cursor)
            for job in page.jobs:
                yield job
            if (cursor := page.cursor) is None:
                return

    def queues(self) -> list[QueueInfo]:
        """The queues that have jobs or are paused."""
        return self.driver.queues()

    def workers(self) -> list[WorkerRecord]:
        """The workers that the store knows."""
        return self.driver.workers()

    def cancel(self, job_id: str, *, reason: str = "") -> CancelAnswer:
        """Cancel a job: a pending one at once, a running one as soon as its worker sees the mark."""
        return self.driver.cancel([job_id], reason=check_text("reason", reason))[0]

    def cancel_many(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        """`cancel` for many jobs, a thousand in each round trip; answers in order."""
        check_text("reason", reason)
        return [answer for chunk in administration.chunks(ids) for answer in self.driver.cancel(chunk, reason=reason)]

    def retry_failed(self, ids: str | Sequence[str]) -> list[RetryAnswer]:
        """Queue failed jobs again with their own settings, by the ids of the jobs or of their `failed_jobs` rows.

        Answers in order.
        """
        return administration.retry_failed(self.driver, [ids] if isinstance(ids, str) else list(ids))

    def forget_failed(self, ids: str | Sequence[str]) -> int:
        """Delete failed jobs for good, by the ids of the jobs or of their `failed_jobs` rows; how many there were."""
        return administration.forget_failed(self.driver, [ids] if isinstance(ids, str) else list(ids))

    def pause(self, queue: str) -> bool:
        """Stop handing out the queue's jobs, on all workers, from the next claim on. False: it was paused already."""
        if changed := self.driver.pause(check_name("queue", queue)):
            self.hooks.notify(QueuePaused(queue=queue))
        return changed

    def resume(self, queue: str) -> bool:
        """Hand out the queue's jobs again. False: it was not paused."""
        if changed := self.driver.resume(check_name("queue", queue)):
            self.hooks.notify(QueueResumed(queue=queue))
        return changed

    def clear(self, queue: str) -> Cleared:
        """Remove the queue's pending, finished and failed jobs, never a processing one.

        Takes away about as many as there are at the start: it ends, even if jobs keep coming.
        """
        return administration.clear(self.driver, check_name("queue", queue))

    def prune(
        self,
        *,
        completed_older_than: float | timedelta | None = None,
        failed_older_than: float | timedelta | None = None,
    ) -> Pruned:
        """Delete finished jobs that are older than their retention, and say how many.

        Without arguments the configured retentions apply, and jobs that ended less than an hour ago are kept, so that
        a push sent again still meets its first copy. Ages given here (seconds or timedelta) do as told, for what they
        name only.
        """
        return administration.prune(
            self.driver,
            self.settings,
            None if completed_older_than is None else check_seconds("completed_older_than", completed_older_than),
            None if failed_older_than is None else check_seconds("failed_older_than", failed_older_than),
        )

    astats = in_thread(stats)
    aget = in_thread(get)

    @overload
    async def aresult(self, job_id: JobId[T]) -> T: ...
    @overload
    async def aresult(self, job_id: str) -> object: ...
    async def aresult(self, job_id: str) -> object:
        """`result` for coroutines."""
        return await offload(self._waiting.result, job_id)

    afind = in_thread(find)
    aqueues = in_thread(queues)
    aworkers = in_thread(workers)
    acancel = in_thread(cancel)
    acancel_many = in_thread(cancel_many)
    aretry_failed = in_thread(retry_failed)
    aforget_failed = in_thread(forget_failed)
    apause = in_thread(pause)
    aresume = in_thread(resume)
    aclear = in_thread(clear)
    aprune = in_thread(prune)

    @property
    def _waiting(self) -> Waiting:
        if self._waits is None:
            from protojobs.queue.waiting import Waiting  # processes that only push load nothing of it

            with self._loading:
                self._waits = self._waits or Waiting(self.driver, self.registry)
        return self._waits

    @property
    def hooks(self) -> Hooks:
        """The plugins in use, loaded on first need."""
        if self._hooks is None:
            with self._loading:  # a worker and its ticker ask at the same moment
                return self._load_hooks()
        return self._hooks

    def _load_hooks(self) -> Hooks:
        from protojobs.hooks.hooks import Hooks
        from protojobs.hooks.installed_plugins import load_hooks  # pluggy is a sixth of our import time

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


def push_made(queue: JobQueue, job: NewJob) -> str:
    """As `queue.push`, for a job that is made already."""
    hooks = queue.hooks
    return queue._pusher.send([hooks.before_push(job)], hooks)[0].id  # pyright: ignore[reportPrivateUsage]  (its own module)


def _misread(method: str, job: object, more: Sequence[object], unknown: Mapping[str, object]) -> TypeError:
    """For a call with the arguments of the job, as RQ's `enqueue` and Celery's `delay` take them; or with a slip."""
    name = next(iter(unknown), None)
    if name is None:
        what = f"takes one value as data, and got {shown(more[0])} too"
    else:
        what = f'has no argument "{one_line(name)}"'
        if meant := did_you_mean(name, ("id", "session", "data")):
            return TypeError(f"{method}() {what}. {meant}")
    if isinstance(job, FunctionJob):
        called = job.definition.job_class.rpartition(".")[2]
        return TypeError(f"{method}() {what}. Bind the function's arguments: {method}({called}.bind(...)).")
    return TypeError(f"{method}() {what}. Put all that the job needs into data: a dict, or an object of its data type.")
