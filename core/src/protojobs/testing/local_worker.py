"""A worker for tests: no threads, one job at a time, in the caller's own thread, by the same rules as the real one.

It lends from the store, decodes, runs, settles, calls `failed()` and tells observers. What it leaves out are the parts
that need real time: heartbeats and time limits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from protojobs.entropy import fresh_id
from protojobs.errors import JobError, JobUnknown
from protojobs.jobs.context import NO_RESOURCES
from protojobs.jobs.definition import JobDefinition
from protojobs.jobs.resources import Resource
from protojobs.new_jobs import job_maker
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ClaimedJob, Fence, Settled, WorkerInfo
from protojobs.port.transactions import SupportsTransaction
from protojobs.queue.queue import JobQueue
from protojobs.worker.outcome import Outcome
from protojobs.worker.reports.announcements import announcement, beginning
from protojobs.worker.runs.failed_call import FailedCall
from protojobs.worker.runs.open_resources import OpenResources
from protojobs.worker.runs.run import NOT_COMMITTED, Run, prepare

__all__ = ["LocalWorker", "Ran", "in_a_loop"]

_T = TypeVar("_T")


class Ran(Struct, frozen=True, kw_only=True):
    """One job that was lent, run and settled. `trouble` is what a test should hear of, if anything."""

    job: ClaimedJob
    outcome: Outcome
    answer: Settled
    trouble: BaseException | None


class LocalWorker:
    """Registered while it is entered as a context manager. `watch` sees each run just before it begins.

    Its async jobs share one event loop, and its jobs their resources, of which some may be `replaced`; both are made
    when the first job needs them.
    """

    def __init__(
        self,
        queue: JobQueue,
        watch: Callable[[Run], None] | None = None,
        replaced: Mapping[Resource[object], object] = NO_RESOURCES,
    ) -> None:
        self.id = fresh_id()
        self._queue = queue
        self._driver = driver = queue.driver
        self._complete_in = driver.complete_in if isinstance(driver, SupportsTransaction) else None
        self._maker = job_maker(queue.registry, queue.settings, driver.capabilities, queue.hooks)
        self._watch = watch
        self._replaced = replaced
        self._opened: OpenResources | None = None
        self._runner: asyncio.Runner | None = None

    def __enter__(self) -> LocalWorker:
        """Register."""
        lease_s = self._queue.settings.lease
        self._driver.register(
            WorkerInfo(id=self.id, host="test", pid=os.getpid(), queues=("test",), concurrency=1, lease_s=lease_s)
        )
        return self

    def __exit__(self, *error: object) -> None:
        """Close what its jobs have used, and sign off."""
        self.close()
        self._driver.leave(self.id)

    def close(self) -> None:
        """Close the resources, and the loop. One that has been used by `arun` must have been closed by `aclose`."""
        opened, self._opened = self._opened, None
        if opened is not None:
            self._in_a_loop(opened.close)
        if self._runner is not None:
            self._runner.close()

    async def aclose(self) -> None:
        """Close the resources that `arun` has opened on the caller's loop."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    def claim(self, queues: Sequence[str] | None) -> ClaimedJob | None:
        """The next due job of these queues, or of all."""
        names = [info.name for info in self._driver.queues()] if queues is None else queues
        return next(iter(self._driver.claim(self.id, names, slots=1, limit=1)), None) if names else None

    def run(self, claimed: ClaimedJob) -> Ran:
        """Run one job here and settle it.

        Raises what the job's own `failed()` raises, and RuntimeError for an async job inside a running event loop.
        """
        return self.settle(self.perform(claimed))

    def perform(self, claimed: ClaimedJob) -> Outcome:
        """The first half of `run`: the job's own code has run, and the store knows nothing of it."""
        begun = self._begin(claimed)
        if not isinstance(begun, Run):
            return begun
        if (opened := self._to_open()) is not None:
            self._in_a_loop(opened.open)
        self._give_resources(begun)
        return self._in_a_loop(begun.aexecute) if begun.is_async else begun.execute()

    def settle(self, outcome: Outcome) -> Ran:
        """The second half: the store is told, and `failed()` is called where it should be."""
        ran, call = self._finish(outcome)
        if call is not None:
            self._in_a_loop(call.aexecute) if call.is_async else call.execute()
            call.raise_error()
        return ran

    async def arun(self, claimed: ClaimedJob) -> Ran:
        """`run` for coroutines: an async job runs on the caller's loop, and a plain one holds it up."""
        begun = self._begin(claimed)
        if isinstance(begun, Run):
            if (opened := self._to_open()) is not None:
                await opened.open()
            self._give_resources(begun)
            begun = await begun.aexecute() if begun.is_async else begun.execute()
        ran, call = self._finish(begun)
        if call is not None:
            await call.aexecute() if call.is_async else call.execute()
            call.raise_error()
        return ran

    def _begin(self, claimed: ClaimedJob) -> Run | Outcome:
        queue = self._queue
        begun = prepare(claimed, queue.registry, queue.hooks, queue.clock, _no_progress)
        if isinstance(begun, Run):
            begun.completer, begun.maker = self._complete_in, self._maker
            if self._watch is not None:
                self._watch(begun)
            if queue.hooks.listens("job.processing"):
                queue.hooks.notify(beginning(claimed))
        return begun

    def _to_open(self) -> OpenResources | None:
        """The resources, if they are not open yet, and there are any."""
        if self._opened is not None or not self._queue.registry.resources:
            return None
        self._opened = OpenResources(self._queue.registry.resources.values(), self._replaced)
        return self._opened

    def _give_resources(self, run: Run) -> None:
        if self._opened is not None:
            run.resources = self._opened.values

    def _in_a_loop(self, function: Callable[[], Coroutine[object, object, _T]]) -> _T:
        """Run a coroutine function to its end, on this worker's own loop."""
        if in_a_loop():
            raise RuntimeError(
                "An async job, or a resource, cannot be used from here, inside a running event loop."
                " Await adrain() instead."
            )
        # By a factory: then asyncio does not make it the loop of this thread.
        self._runner = self._runner or asyncio.Runner(loop_factory=asyncio.new_event_loop)
        return self._runner.run(function())

    def _finish(self, outcome: Outcome) -> tuple[Ran, _LoudFailedCall | None]:
        queue, claimed = self._queue, outcome.claimed
        (answer,) = self._driver.settle([outcome.settlement])
        event = announcement(outcome, answer, late_s=0.0)
        if queue.hooks.listens(event.event_name):
            queue.hooks.notify(event)
        ran = Ran(job=claimed, outcome=outcome, answer=answer, trouble=self._trouble(outcome, answer))
        definition = queue.registry.find(claimed.job_name)
        if answer.state is JobState.FAILED and definition is not None and definition.has_failed and outcome.exception:
            return ran, _LoudFailedCall(claimed, definition, outcome.exception)
        return ran, None

    def _trouble(self, outcome: Outcome, answer: Settled) -> BaseException | None:
        """What went wrong, if that was nobody's intention: not a returned Retry, and nothing of `discard_on`."""
        verb, error = outcome.settlement.verb, outcome.exception
        if outcome.settlement.reason == "unknown_name":
            try:
                self._queue.registry.get(outcome.claimed.job_name)
            except JobUnknown as unknown:
                return unknown
        is_asked_for = verb is Verb.RETRY and type(error) is JobError
        if isinstance(error, JobError) and error.message == NOT_COMMITTED:
            is_asked_for = answer.state is JobState.COMPLETED  # it has been: the store knows
        return None if verb is Verb.CANCEL or is_asked_for else error


class _LoudFailedCall(FailedCall):
    """A `failed()` whose own error is not for the log only: nobody expects that one."""

    __slots__ = ("error",)

    def __init__(self, claimed: ClaimedJob, definition: JobDefinition, exception: BaseException) -> None:
        super().__init__(claimed, definition, exception)
        self.error: BaseException | None = None

    def raise_error(self) -> None:
        """Raise it, if there was one."""
        if self.error is not None:
            raise self.error

    def _complain(self, error: BaseException) -> None:
        self.error = error


def in_a_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _no_progress(_claim: Fence, _share: float) -> None:
    """Progress travels with heartbeats, and here are none."""
