"""TestQueue: a JobQueue for tests, on a memory store whose time the test owns."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import ClassVar

from msgspec import Struct

from protojobs.config import Settings
from protojobs.hooks.hooks import Hooks
from protojobs.jobs.definition import REGISTRY, Registry
from protojobs.jobs.job_class import BoundJob, as_bound
from protojobs.jobs.resources import Resource
from protojobs.port.installed_drivers import create_driver
from protojobs.port.lifecycle import JobState
from protojobs.port.records import Enqueued, NewJob
from protojobs.queue.pushing import Pusher
from protojobs.queue.queue import JobQueue
from protojobs.testing.local_worker import LocalWorker, Ran
from protojobs.testing.manual_clock import ManualClock
from protojobs.testing.pushes import PushedJob, pushed_job

__all__ = ["DrainReport", "TestQueue"]

RUNS_MAX = 10_000  # of one drain; beyond it a job is taken to push or snooze itself without end


class DrainReport(Struct, frozen=True, kw_only=True):
    """What a drain did: runs in all, jobs completed, jobs given up, and what the jobs raised, in order."""

    runs: int = 0
    done: int = 0
    failed: int = 0
    errors: tuple[BaseException, ...] = ()


class TestQueue(JobQueue):
    """A JobQueue on a memory store of its own, for tests. All that JobQueue can, and:

    * `drain()` runs what is due, here, in this thread; `inline()` does so at each push.
    * time stands still; `travel(hours=1)` moves it, and delayed jobs and retries become due.
    * `pushed()` lists what was pushed; see also `assert_pushed`.

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
        registry: Registry = REGISTRY,
        plugins: Sequence[tuple[str, object]] = (),
    ) -> None:
        clock = ManualClock()
        super().__init__(create_driver("memory://", clock=clock), config, registry=registry, clock=clock)
        self._hooks = Hooks(plugins, clock=clock)
        self._pusher = _WatchedPusher(self, self._note)
        self._pushed: list[PushedJob] = []
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
        """Forget every job and every push. The time stays what it is."""
        self.driver.teardown()
        self._pushed.clear()

    def pushed(self, job: object = None) -> list[PushedJob]:
        """What was pushed to this queue, in order, whether it has run since or not; of one job, or all.

        `job` is whatever `push` takes; its options do not matter here.
        """
        if job is None:
            return list(self._pushed)
        bound = job if isinstance(job, BoundJob) else as_bound(job, None, self.registry)
        return [push for push in self._pushed if push.job_name == bound.definition.name]

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

        What a job pushes runs right after that job, not in the middle of it. Delayed jobs wait for their time.
        """
        before, self._raises_inline = self._raises_inline, raises
        try:
            yield
        finally:
            self._raises_inline = before

    def _note(self, jobs: Sequence[NewJob], answers: Sequence[Enqueued]) -> bool | None:
        """What has been pushed, for `pushed()`. Returns what `drain` is to be told, where it is to run at once."""
        now = self.driver.now()
        pairs = zip(jobs, answers, strict=True)
        self._pushed += [pushed_job(job, now) for job, answer in pairs if answer.duplicate_of is None]
        return None if self._is_draining else self._raises_inline

    @contextmanager
    def _draining(self) -> Generator[None]:
        before, self._is_draining = self._is_draining, True
        try:
            yield
        finally:
            self._is_draining = before


class _WatchedPusher(Pusher):
    """Sends as in production, notes what was sent, and runs it where the queue works inline."""

    def __init__(self, queue: TestQueue, note: Callable[[Sequence[NewJob], Sequence[Enqueued]], bool | None]) -> None:
        super().__init__(queue.driver, queue.settings, queue.clock)
        self._queue = queue
        self._note = note

    def send(
        self, jobs: Sequence[NewJob], hooks: Hooks, session: object = None, called_at: float | None = None
    ) -> list[Enqueued]:
        answers = super().send(jobs, hooks, session, called_at)
        if (raises := self._note(jobs, answers)) is not None:
            self._queue.drain(raises=raises)
        return answers

    async def asend(self, jobs: Sequence[NewJob], hooks: Hooks, session: object = None) -> list[Enqueued]:
        if session is not None:
            return await super().asend(jobs, hooks, session)
        answers = super().send(jobs, hooks)  # memory does not keep a loop waiting
        if (raises := self._note(jobs, answers)) is not None:
            await self._queue.adrain(raises=raises)
        return answers


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
