"""Async jobs of one worker, as tasks on the event loop of this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import cast

from protojobs.clock import SYSTEM_CLOCK, Clock
from protojobs.logs import RUNNING
from protojobs.worker.outcome import Outcome
from protojobs.worker.runs.executor import NOT_BEGUN, NotBegun, Report, Runnable, not_judged
from protojobs.worker.runs.jobs_loop import JobsLoop, jobs_loop

__all__ = ["AsyncExecutor"]


class AsyncExecutor:
    """At most `size` tasks at once. What is handed over beyond those lies ready.

    `where`: the loop on which the resources of these jobs were opened, if they have any.
    """

    keeps_time = False

    def __init__(
        self, size: int, report: Report, clock: Clock = SYSTEM_CLOCK, where: Callable[[], JobsLoop] = jobs_loop
    ) -> None:
        self._report = report
        self._monotonic = clock.monotonic
        self._size = size
        self._busy = 0  # tasks that were made and have not ended
        self._cut: set[Runnable] = set()  # of those, the ones that were told to end
        self._has_deaf = False
        self._is_closed = False
        self._context = copy_context()
        self._where = where()
        self._loop = self._where.loop
        self._ready: deque[Runnable] = deque()
        self._handed: dict[Runnable, bool] = {}  # and not begun. Whoever pops a run from it has it
        self._is_called = False  # the loop is about to begin what is ready: to call it costs more than a short job
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}  # of the runs that have begun

    def start(self, run: Runnable) -> None:
        self._handed[run] = True
        self._ready.append(run)
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon_threadsafe(self._begin)

    def withdraw(self, keys: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        """Take back those of the runs that the loop has not begun, in the order in which they were handed over."""
        wanted = set(keys)
        return [run.key for run in list(self._handed) if run.key in wanted and self._handed.pop(run, False)]

    def interrupt(self, run: Runnable) -> None:
        self._loop.call_soon_threadsafe(self._cancel, run)

    def interrupt_again(self, run: Runnable) -> None:
        """Nothing to do: a task hears of its cancellation, and what it awaits to clean up is its own affair."""

    def give_up(self) -> None:
        """Do not wait for the tasks that were told to end: the next run may have the place of one."""
        self._has_deaf = True
        self._loop.call_soon_threadsafe(self._begin)

    def close(self) -> None:
        """The loop stays, for what later jobs find there; not where a run of ours goes on."""
        self._is_closed = True
        if self._tasks:  # no run may outlive its worker, and one that is still there may end only with the loop
            self._where.is_given_up = True
            self._loop.call_soon_threadsafe(self._cancel_all)
        self._where.release()

    def _begin(self) -> None:
        """Make tasks of what lies ready, as many as there is room for. Runs on the loop."""
        self._is_called = False
        gone = len(self._cut) if self._has_deaf else 0
        while self._ready and self._busy - gone < self._size and not self._is_closed:
            run = self._ready.popleft()
            if run in self._handed:  # else it was withdrawn
                self._busy += 1
                # Not in the context of the task before, whose end has led here: what that one set is not for this one.
                self._loop.create_task(self._perform(run), context=self._context.copy())

    async def _perform(self, run: Runnable) -> None:
        try:
            if self._handed.pop(run, False):  # else it was withdrawn
                self._report(run.key, await self._outcome(run))
        finally:
            self._busy -= 1
            self._cut.discard(run)
            if self._ready:
                self._begin()

    async def _outcome(self, run: Runnable) -> Outcome | NotBegun | None:
        if self._monotonic() > run.begins_by:  # first, as in threads: a timeout would cost it an attempt
            return NOT_BEGUN
        RUNNING.set(run.claimed)  # in the context of this task only
        # From here on it can be cancelled: not before its first step.
        self._tasks[run.key] = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            return run.cut() if run.cut_by or self._is_closed else await run.aexecute()
        except asyncio.CancelledError:  # of a `failed()` that was ended; a job's own says what it comes to
            return run.cut() if run.cut_by else not_judged(run)
        except BaseException:  # noqa: BLE001  (else the run would never be answered for)
            return not_judged(run)
        finally:
            self._tasks.pop(run.key, None)

    def _cancel(self, run: Runnable) -> None:
        if task := self._tasks.get(run.key):
            self._cut.add(run)
            task.cancel()
        elif self._handed.pop(run, False):  # it lies ready, and may do so for long
            self._report(run.key, _cut_unbegun(run))

    def _cancel_all(self) -> None:
        for task in self._tasks.values():
            task.cancel()


def _cut_unbegun(run: Runnable) -> Outcome | NotBegun | None:
    try:
        return run.cut()
    except BaseException:  # noqa: BLE001  (as above)
        return not_judged(run)
