"""Async jobs, as tasks of one event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial

from protojobs._executors import Report, Runnable, not_judged
from protojobs.outcomes import Outcome

__all__ = ["AsyncExecutor"]

_log = logging.getLogger("protojobs.worker")


class AsyncExecutor:
    """One event loop; how many tasks it has at once is the worker's decision."""

    keeps_time = False

    def __init__(self, report: Report) -> None:
        self._report = report
        self._is_closed = False
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[tuple[str, int], asyncio.Task[Outcome | None]] = {}
        self._thread = threading.Thread(target=self._run_loop, name="protojobs-loop", daemon=True)
        self._thread.start()

    def start(self, run: Runnable) -> None:
        self._loop.call_soon_threadsafe(self._begin, run)

    def interrupt(self, run: Runnable) -> None:
        self._loop.call_soon_threadsafe(self._cancel, run)

    def close(self) -> None:
        self._is_closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _begin(self, run: Runnable) -> None:
        task = self._tasks[run.key] = self._loop.create_task(_perform(run))
        task.add_done_callback(partial(self._ended, run))

    def _ended(self, run: Runnable, task: asyncio.Task[Outcome | None]) -> None:
        del self._tasks[run.key]
        try:
            # A task that is cancelled before its first step never enters its coroutine: so the answer is given here.
            outcome = run.cut() if task.cancelled() else task.result()
        except BaseException:  # noqa: BLE001  (else the run would never be answered for)
            outcome = not_judged(run)
        self._report(run.key, outcome)

    def _cancel(self, run: Runnable) -> None:
        if task := self._tasks.get(run.key):
            task.cancel()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._is_closed:
            try:
                self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001  (a task that a job has left behind called sys.exit(), say)
                _log.error("something on the event loop of the jobs wanted to end it, and may not: %r", error)
        for task in self._tasks.values():
            task.cancel()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


async def _perform(run: Runnable) -> Outcome | None:
    return await run.aexecute()
