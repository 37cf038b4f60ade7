"""One table of deadlines, swept by one thread: it ends runs that outlast their time, and says when that failed.

Exclusive jobs have a second one that moves on with every good heartbeat: they end before their worker's lease can.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from protojobs._execution import LEASE_IN_DOUBT
from protojobs._executors import Executor, Runnable
from protojobs._lease_watch import Standing
from protojobs.clock import Clock

__all__ = ["Deadlines"]

SWEEP_S = 0.05  # a timeout is enforced to within this; a sweep over a thousand runs takes microseconds
END_S = 2.0  # how long an interrupted run may take to end before it counts as stuck
EXCLUSIVE_END_MIN_S = 0.5  # a short lease leaves an exclusive run less: a sixth of the lease, but not less than this
_log = logging.getLogger("protojobs.worker")


class Deadlines:
    """Who runs, where, and until when.

    The sweeping thread lives apart from the jobs' threads and the event loop: none of them can hold it up. `stuck(run)`
    is called, once, for a run that was interrupted and did not end.
    """

    def __init__(self, clock: Clock, standing: Standing, stuck: Callable[[Runnable], None]) -> None:
        self._clock = clock
        self._standing = standing
        self._stuck = stuck
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, int], tuple[Runnable, Executor]] = {}
        self._ends: dict[tuple[str, int], float] = {}
        self._exclusive: dict[tuple[str, int], str] = {}  # to the identity on whose lease it depends
        self._has_work = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, run: Runnable, executor: Executor, timeout: float) -> None:
        """Watch a run that starts now; `timeout` 0 only makes it known to `cut`."""
        holder = run.exclusive_holder
        with self._lock:
            self._runs[run.key] = (run, executor)
            if timeout:
                self._ends[run.key] = self._clock.monotonic() + timeout
            if holder:
                self._exclusive[run.key] = holder
            if timeout or holder:
                self._wake()

    def remove(self, key: tuple[str, int]) -> None:
        """The run has ended."""
        with self._lock:
            self._forget(key)

    def cut(self, keys: list[tuple[str, int]] | None, why: str) -> None:
        """End these runs now (None: all), for the reason that their outcome shall tell."""
        with self._lock:
            chosen = list(self._runs) if keys is None else [key for key in keys if key in self._runs]
            for key in chosen:
                self._interrupt(key, why)

    def cancel(self, key: tuple[str, int]) -> None:
        """A person wants this run to end. Async jobs are stopped; a plain function learns it from `ctx.cancelled()`."""
        with self._lock:
            if (entry := self._runs.get(key)) is None:
                return
            run, _ = entry
            run.tell_cancelled()
            if run.is_async:
                self._interrupt(key, "cancel")

    def close(self) -> None:
        """Stop sweeping."""
        self._closed.set()
        self._has_work.set()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._sweep, name="protojobs-deadlines", daemon=True)
            self._thread.start()
        if not self._has_work.is_set():
            self._has_work.set()

    def _sweep(self) -> None:
        while not self._closed.is_set():
            self._has_work.wait()
            try:
                self._turn(self._clock.monotonic())
            except Exception:  # noqa: BLE001  (a mistake of ours: without this thread no run would ever be ended)
                _log.exception("the table of deadlines failed in a way that it should not")
            self._closed.wait(SWEEP_S)

    def _turn(self, now: float) -> None:
        with self._lock:
            for key in [key for key, ends in self._ends.items() if ends <= now]:
                self._interrupt(key, "timeout")
            if self._exclusive:
                self._end_unsafe(now)
            if not self._ends and not self._exclusive:
                self._has_work.clear()

    def _end_unsafe(self, now: float) -> None:
        for key in [key for key, holder in self._exclusive.items() if self._standing.safe_until(holder) <= now]:
            del self._exclusive[key]
            self._interrupt(key, LEASE_IN_DOUBT)

    def _interrupt(self, key: tuple[str, int], why: str) -> None:
        run, executor = self._runs[key]
        if run.cut_by:  # asked to end before, and still here
            if self._ends.get(key, 0.0) <= self._clock.monotonic():
                self._forget(key)
                _log.error("job %s did not end within %g s of its %s", key[0], self._end_s(run.cut_by), run.cut_by)
                self._stuck(run)
            return
        run.cut_by = why
        if why == LEASE_IN_DOUBT:
            _log.warning("job %s is exclusive: its run is ended, since others might soon be lent the job", key[0])
        self._ends[key] = self._clock.monotonic() + self._end_s(why)
        self._wake()
        executor.interrupt(run)

    def _end_s(self, why: str) -> float:
        if why == LEASE_IN_DOUBT:
            return min(END_S, max(self._standing.lease_s / 6, EXCLUSIVE_END_MIN_S))
        return END_S

    def _forget(self, key: tuple[str, int]) -> None:
        for table in (self._runs, self._ends, self._exclusive):
            table.pop(key, None)
