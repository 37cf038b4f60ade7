"""TestQueue: a JobQueue for tests, on a store whose time the test moves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import ClassVar

from msgspec import Struct

from protojobs.config import Settings
from protojobs.errors import ConfigurationError
from protojobs.hooks.hooks import Hooks
from protojobs.jobs.definition import REGISTRY, Registry
from protojobs.jobs.job_class import as_bound
from protojobs.jobs.resources import Resource
from protojobs.port.driver import Store
from protojobs.port.installed_drivers import create_driver
from protojobs.port.lifecycle import JobState
from protojobs.port.records import BATCH_JOBS_MAX, Enqueued, NewJob
from protojobs.port.transactions import InOneTransaction
from protojobs.queue.pushing import Pusher
from protojobs.queue.queue import JobQueue
from protojobs.testing.emptying import empty
from protojobs.testing.local_worker import LocalWorker, Ran, in_a_loop
from protojobs.testing.manual_clock import ManualClock
from protojobs.testing.pushes import PushedJob, pushed_job
from protojobs.testing.store_clock import StoreClock

__all__ = ["DrainReport", "TestQueue"]

MEMORY = "memory://"
RUNS_MAX = 10_000  # of one drain; beyond it a job is taken to push or snooze itself without end


class DrainReport(Struct, frozen=True, kw_only=True):
    """What a drain did: runs in all, jobs completed, jobs given up, and what the jobs raised, in order."""

    runs: int = 0
    done: int = 0
    failed: int = 0
    errors: tuple[BaseException, ...] = ()


class TestQueue(JobQueue):
    """A JobQueue for tests, on a memory store of its own unless `store` names another. All that JobQueue can, and:

    * `drain()` runs what is due, here, in this thread; `inline()` does so at each push.
    * `travel(hours=1)` moves the time, and delayed jobs and retries become due. In memory time stands still otherwise;
      a database has a time of its own that goes on, and `travel` adds to it.
    * `pushed()` lists what was pushed; see also `assert_pushed`.

    `store` is a URL, of which the tables are made here, or a driver that you have made and set up. On a SQLAlchemy
    driver `session=` and `complete_in` work as in production.

    Data passes through the codec and the store as in production, and so do options and names. Settings come from
    `config`, the environment and the configuration file, as always. Installed plugins are left out; name those that
    you want. Time limits are not kept.
    """

    __test__: ClassVar[bool] = False  # pytest would take a class of this name for a test

    clock: ManualClock

    def __init__(
        self,
        config: Mapping[str, object] | Settings | None = None,
        *,
        store: str | Store = MEMORY,
        registry: Registry = REGISTRY,
        plugins: Sequence[tuple[str, object]] = (),
    ) -> None:
        driver, clock = _opened(store)
        super().__init__(driver, config, registry=registry, clock=clock)
        self._hooks = Hooks(plugins, clock=clock)
        self._pusher = _WatchedPusher(self, self._note)
        self._pushed: list[PushedJob] = []
        self._unconfirmed: set[str] = set()  # ids of jobs in transactions of which the end is not known
        self._raises_inline: bool | None = None  # None: not inline
        self._is_draining = False
        self._replaced: dict[Resource[object], object] = {}

    def replace_resource(self, declared: Resource[object], value: object) -> None:
        """From now on, give this value to jobs of this queue that ask for the resource, and do not open it.

        The others are opened by each drain for its first job, and closed at its end.
        """
        self._replaced[declared] = value

    def travel(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let time pass, for the store and the queue. What becomes due meanwhile runs at the next drain."""
        self.clock.advance(timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds())

    def reset(self) -> None:
        """Delete everything in the store, jobs, schedules and notes, and forget every push. The time stays what it is.

        On a store that is not the tests' own this deletes what others have stored.
        """
        empty(self.driver)
        self._pushed.clear()
        self._unconfirmed.clear()

    def check_empty(self) -> None:
        """Raise ConfigurationError where the store holds jobs: `drain` would run them, and a test's end delete them."""
        if number := self.driver.stats().total:
            raise ConfigurationError(
                f"{self.driver} holds {number} job(s) before the test begins.",
                mend="Give each test process a store of its own. One that an interrupted run has left is emptied by"
                " TestQueue(store=...).reset().",
            )

    def pushed(self, job: object = None) -> list[PushedJob]:
        """What was pushed to this queue, in order, whether it has run since or not; of one job, or all.

        `job` is whatever `push` takes; its options do not matter here. What was pushed with `session=` counts from its
        commit on; in a test's own transaction at once, and until it is rolled back.
        """
        self._confirm()
        pushed = [push for push in self._pushed if push.id not in self._unconfirmed]
        if job is None:
            return pushed
        bound = as_bound(job, None, self.registry)
        return [push for push in pushed if push.job_name == bound.definition.name]

    def drain(self, queues: str | Sequence[str] | None = None, *, raises: bool = True) -> DrainReport:
        """Run all due jobs in this thread, and those that they push, until none is due.

        `queues` is one name or several; None all that there are. The first exception of a job is raised here, after
        the store has taken the failed attempt down; with `raises=False` it is told in the report only, and a job that
        has attempts left is due again after its delay (`travel`). An error of `failed()` is raised in any case.
        """
        names = [queues] if isinstance(queues, str) else queues
        report = DrainReport()
        with self._draining(), LocalWorker(self, replaced=self._replaced) as worker:
            while (claimed := worker.claim(names)) is not None:
                report = _counted(report, worker.run(claimed), raises=raises)
        return report

    async def adrain(self, queues: str | Sequence[str] | None = None, *, raises: bool = True) -> DrainReport:
        """`drain` for coroutines: async jobs run on the caller's loop."""
        names = [queues] if isinstance(queues, str) else queues
        report = DrainReport()
        with self._draining(), LocalWorker(self, replaced=self._replaced) as worker:
            try:
                while (claimed := worker.claim(names)) is not None:
                    report = _counted(report, await worker.arun(claimed), raises=raises)
            finally:
                await worker.aclose()
        return report

    @contextmanager
    def inline(self, *, raises: bool = True) -> Generator[None]:
        """Inside, each push first stores the job, then drains: what is due has run when `push` returns.

        What a job pushes runs right after that job, not in the middle of it. Delayed jobs wait for their time. What is
        pushed with `session=` runs when the Session has committed; with an AsyncSession or a connection, of whose
        commit nobody tells in time, at the next push. In a test's own transaction it runs at once.
        """
        before, self._raises_inline = self._raises_inline, raises
        try:
            yield
        finally:
            self._raises_inline = before

    @property
    def drains_at_once(self) -> bool | None:
        """What `drain` is to be told, where a push is to run at once; else None."""
        return None if self._is_draining else self._raises_inline

    def _note(self, jobs: Sequence[NewJob], answers: Sequence[Enqueued], session: object) -> None:
        """What has been pushed, for `pushed()`."""
        now = self.driver.now()
        pairs = zip(jobs, answers, strict=True)
        noted = [pushed_job(job, now) for job, answer in pairs if answer.duplicate_of is None]
        self._pushed += noted
        ids = {push.id for push in noted}
        if isinstance(self.driver, InOneTransaction):
            self.driver.when_rolled_back(lambda: self._forget(ids))
        elif session is not None:
            self._unconfirmed |= ids

    def _forget(self, ids: Collection[str]) -> None:
        self._pushed = [push for push in self._pushed if push.id not in ids]

    def _confirm(self) -> None:
        """Ask the store which of the jobs in others' transactions have been committed."""
        ids = sorted(self._unconfirmed)
        for first in range(0, len(ids), BATCH_JOBS_MAX):
            self._unconfirmed -= {job.id for job in self.driver.get(ids[first : first + BATCH_JOBS_MAX])}

    @contextmanager
    def _draining(self) -> Generator[None]:
        before, self._is_draining = self._is_draining, True
        try:
            yield
        finally:
            self._is_draining = before


class _WatchedPusher(Pusher):
    """Sends as in production, notes what was sent, and runs it where the queue works inline."""

    def __init__(self, queue: TestQueue, note: Callable[[Sequence[NewJob], Sequence[Enqueued], object], None]) -> None:
        super().__init__(queue.driver, queue.settings, queue.clock)
        self._queue = queue
        self._note = note

    def send(
        self, jobs: Sequence[NewJob], hooks: Hooks, session: object = None, called_at: float | None = None
    ) -> list[Enqueued]:
        answers = super().send(jobs, hooks, session, called_at)
        self._note(jobs, answers, session)
        if self._sees(session) and (raises := self._queue.drains_at_once) is not None:
            self._queue.drain(raises=raises)
        return answers

    async def asend(self, jobs: Sequence[NewJob], hooks: Hooks, session: object = None) -> list[Enqueued]:
        # Without a session in this thread: a test has nothing else to do, and its connection may be of this thread.
        answers = super().send(jobs, hooks) if session is None else await super().asend(jobs, hooks, session)
        self._note(jobs, answers, session)
        if self._sees(session) and (raises := self._queue.drains_at_once) is not None:
            await self._queue.adrain(raises=raises)
        return answers

    def committed(self, jobs: Sequence[NewJob], hooks: Hooks) -> None:
        super().committed(jobs, hooks)
        raises = self._queue.drains_at_once
        if raises is not None and not in_a_loop():  # there an async job could not run: the next push runs it
            self._queue.drain(raises=raises)

    def _sees(self, session: object) -> bool:
        """Whether the store's own connections see what was just stored, and need not wait for it."""
        return session is None or isinstance(self._queue.driver, InOneTransaction)


def _opened(store: str | Store) -> tuple[Store, ManualClock]:
    """The driver of a TestQueue, with its tables, and the clock that moves its time."""
    if store == MEMORY:
        clock = ManualClock()
        return create_driver(MEMORY, clock=clock), clock
    driver = store
    if isinstance(driver, str):
        driver = create_driver(driver)
        driver.setup()
    return driver, StoreClock(driver)


def _counted(report: DrainReport, ran: Ran, *, raises: bool) -> DrainReport:
    """The report with one more run. Raises what the run calls for."""
    trouble = ran.trouble
    if trouble is not None and (raises or isinstance(trouble, KeyboardInterrupt)):
        trouble.add_note(f'raised by job "{ran.job.job_name}", attempt {ran.job.attempts}, data {ran.job.data[:500]}')
        raise trouble
    if report.runs >= RUNS_MAX:
        raise RuntimeError(
            f'{RUNS_MAX:,} jobs have run, and more are due. Does "{ran.job.job_name}" push or snooze itself?'
        )
    return DrainReport(
        runs=report.runs + 1,
        done=report.done + (ran.answer.state is JobState.COMPLETED),
        failed=report.failed + (ran.answer.state is JobState.FAILED),
        errors=(*report.errors, trouble) if trouble is not None else report.errors,
    )
