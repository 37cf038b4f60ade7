"""Async jobs, as tasks of one event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Iterable
from typing import cast
from weakref import WeakSet

from protojobs.forks import end_if_copied, this_process
from protojobs.logs import RUNNING
from protojobs.worker.runs.executor import Report, Runnable, not_judged

__all__ = ["AsyncExecutor"]

_log = logging.getLogger("protojobs.worker")
_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()  # of this process


def _stop_in_copy() -> None:
    for loop in _loops:
        loop.stop()


if hasattr(os, "register_at_fork"):  # a copy that a job makes of this process must not go on with its neighbours
    os.register_at_fork(after_in_child=_stop_in_copy)


class AsyncExecutor:
    """One event loop; how many tasks it has at once is the worker's decision."""

    keeps_time = False

    def __init__(self, report: Report) -> None:
        self._report = report
        self._is_closed = False
        self._loop = asyncio.new_event_loop()
        _loops.add(self._loop)
        self._ready: deque[Runnable] = deque()
        self._handed: dict[Runnable, bool] = {}  # and not begun. Whoever pops a run from it has it
        self._is_called = False  # the loop is about to begin what is ready: to call it costs more than a short job
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}  # of the runs that have begun
        self._thread = threading.Thread(target=self._run_loop, name="protojobs-loop", daemon=True)
        self._thread.start()

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

    def close(self) -> None:
        self._is_closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _begin(self) -> None:
        self._is_called = False
        while self._ready:
            self._loop.create_task(self._perform(self._ready.popleft()))

    async def _perform(self, run: Runnable) -> None:
        if not self._handed.pop(run, False):
            return  # withdrawn
        RUNNING.set(run.claimed)  # in the context of this task only
        # From here on it can be cancelled: not before its first step.
        self._tasks[run.key] = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            outcome = run.cut() if run.cut_by or self._is_closed else await run.aexecute()
        except asyncio.CancelledError:  # of a `failed()` that was ended; a job's own says what it comes to
            outcome = run.cut() if run.cut_by else not_judged(run)
        except BaseException:  # noqa: BLE001  (else the run would never be answered for)
            outcome = not_judged(run)
        self._tasks.pop(run.key, None)
        self._report(run.key, outcome)

    def _cancel(self, run: Runnable) -> None:
        if task := self._tasks.get(run.key):  # one that has not begun sees that it was cut when it does
            task.cancel()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        process = this_process()
        while not self._is_closed:
            try:
                self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001  (a task that a job has left behind called sys.exit(), say)
                _log.error("something on the event loop of the jobs wanted to end it, and may not: %r", error)
            end_if_copied(process)
        for task in self._tasks.values():
            task.cancel()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
