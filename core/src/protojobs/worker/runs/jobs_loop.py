"""The event loop of this process's async jobs, on a thread of its own. It outlives a `work()`, so that a client or pool
which one job has made serves the next.

There is one loop for a process, however many calls of `work()` and queues it has. It is replaced only when a job blocks
it, or does not end when it is told to: stopping the loop is the only way to be rid of such a job.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Coroutine
from contextlib import suppress
from weakref import WeakSet

from protojobs.forks import end_if_copied, this_process
from protojobs.stopping import StopToken, Wakeup

__all__ = ["JobsLoop", "jobs_loop", "stop_jobs_loop"]

ANSWER_S = 2.0  # a loop that is held up for longer is not waited for; as long as a run has to end (runs/timeouts.py)
END_S = 1.0  # for the tasks that are left when the process ends
_log = logging.getLogger("protojobs.worker")
_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()  # of this process


def _stop_in_copy() -> None:
    for loop in _loops:
        loop.stop()


if hasattr(os, "register_at_fork"):  # a copy that a job makes of this process must not go on with its neighbours
    os.register_at_fork(after_in_child=_stop_in_copy)


class JobsLoop:
    """One loop and its thread. Raises RuntimeError where the system has no thread for it."""

    def __init__(self) -> None:
        self.is_given_up = False
        self.loop = asyncio.new_event_loop()
        self.process = this_process()
        self.users = 0
        self.thread = threading.Thread(target=self._run, name="protojobs-loop", daemon=True)
        try:
            self.thread.start()
        except RuntimeError:
            self.loop.close()
            raise
        _loops.add(self.loop)

    @property
    def is_ours(self) -> bool:
        """Whether its thread is in this process, and not in the one of which this is a copy."""
        return self.process == this_process()

    @property
    def is_usable(self) -> bool:
        """Whether jobs can run there: not from a copy of the process, nor while something holds it up."""
        if self.is_given_up or not self.is_ours or self.thread is threading.current_thread():
            return False
        answered = threading.Event()
        self.loop.call_soon_threadsafe(answered.set)
        return answered.wait(ANSWER_S)

    def finishes(self, what: Coroutine[object, object, None], within_s: float, stop: StopToken | None = None) -> bool:
        """Run `what` there, and wait for its end. False: it was cancelled, since it took too long or `stop` was told.

        Raises what it raises. Called from another thread.
        """
        running = asyncio.run_coroutine_threadsafe(what, self.loop)
        is_over = Wakeup()  # `stop` may be told by a signal handler, in this very thread
        unsubscribe = stop.subscribe(lambda _level: is_over.set()) if stop is not None else None
        running.add_done_callback(lambda _: is_over.set())
        try:
            is_over.wait(within_s)
        finally:
            if unsubscribe is not None:
                unsubscribe()
            if not running.done():
                running.cancel()
        if running.cancelled():
            return False
        running.result()
        return True

    def take(self) -> None:
        """One user more: it goes on until that one has released it too."""
        with _lock:
            self.users += 1

    def release(self) -> None:
        """Say that a user is done with it. The last user of one that was given up stops it."""
        with _lock:
            self.users -= 1
            is_over = self.is_given_up and self.users <= 0
        if is_over:
            self.stop()

    def stop(self) -> None:
        """Stop it for good, soon. Its tasks are cancelled, and are not waited for."""
        self.is_given_up = True
        with suppress(RuntimeError):  # it has stopped, and is closed
            self.loop.call_soon_threadsafe(self.loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        process = this_process()
        while not self.is_given_up or self.users > 0:
            try:
                self.loop.run_forever()
            except BaseException as error:  # noqa: BLE001  (a task that a job has left behind called sys.exit(), say)
                _log.error("something on the event loop of the jobs wanted to end it, and may not: %r", error)
            end_if_copied(process)
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


_lock = threading.Lock()
_current: JobsLoop | None = None


def jobs_loop() -> JobsLoop:
    """The loop of this process; the caller releases it. Raises RuntimeError where there is no thread for it."""
    global _current
    with _lock:
        current = _current
        if current is not None:
            current.users += 1  # so that it is not stopped while it is asked
    if current is not None:
        if current.is_usable:
            return current
        current.is_given_up = True
        if current.is_ours:
            current.release()
    with _lock:
        if _current is None or _current is current:
            if _current is None:
                atexit.register(stop_jobs_loop)
            _current = JobsLoop()
        _current.users += 1
        return _current


def stop_jobs_loop() -> None:
    """Stop the loop of this process; the next async job makes a new one. Waits a moment for what is left there."""
    global _current
    with _lock:
        current, _current = _current, None
    if current is None or not current.is_ours:
        return
    current.users = 0
    current.stop()
    if current.thread is not threading.current_thread():
        current.thread.join(END_S)
