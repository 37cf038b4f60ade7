"""One thread ends the runs that outlast their timeout, and says when a run does not end.

Exclusive jobs have a second limit that moves on with every good heartbeat: they end before their worker's lease can.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import TypeAlias

from protojobs.clock import Clock
from protojobs.worker.lease.validity import LeaseValidity
from protojobs.worker.runs.executor import Executor, Runnable
from protojobs.worker.runs.run import LEASE_IN_DOUBT, Run
from protojobs.worker.runs.threads import ThreadExecutor

__all__ = ["Timeouts"]

SWEEP_S = 0.05  # a timeout is enforced to within this; a sweep over a thousand runs takes microseconds
END_S = 2.0  # how long an interrupted run may take to end before it counts as stuck
EXCLUSIVE_END_MIN_S = 0.5  # a short lease leaves an exclusive run less: a sixth of the lease, but not less than this
_log = logging.getLogger("protojobs.worker")

_Key: TypeAlias = tuple[str, int]
_Watched: TypeAlias = tuple[Runnable, Executor, float]
"""A run, where it runs, and when its time is over."""


class Timeouts:
    """Who runs, where, and until when.

    The sweeping thread lives apart from the jobs' threads and the event loop: none of them can hold it up. `stuck(run)`
    is called, once, for a run that was interrupted and did not end.

    Every run comes and goes here, so that costs one entry of a dict and no lock; only those that end runs take turns.
    What a sweep has seen may have ended since, and its key be another run's: so it looks again right before it acts.
    """

    def __init__(self, clock: Clock, validity: LeaseValidity, stuck: Callable[[Runnable], None]) -> None:
        self._clock = clock
        self._validity = validity
        self._stuck = stuck
        self._lock = threading.Lock()  # among those that end runs
        self._runs: dict[tuple[str, int], _Watched] = {}
        self._cut: dict[Runnable, float] = {}  # told to end, and when they count as stuck
        self._warned: set[_Key] = set()  # runs in threads in which JobTimeout was raised
        self._is_sweeping = False
        self._has_work = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, run: Runnable, executor: Executor, timeout: float) -> None:
        """Watch a run that starts now; `timeout` 0 only makes it known to `cut`. RuntimeError where no thread can."""
        self._runs[run.key] = (run, executor, self._clock.monotonic() + timeout if timeout else math.inf)
        if not self._is_sweeping and (timeout or run.exclusive_holder or _soft_s(run)):
            self._wake()

    def remove(self, key: tuple[str, int]) -> None:
        """The run has ended."""
        self._runs.pop(key, None)

    def has(self, run: Runnable) -> bool:
        """Whether this run is going on."""
        watched = self._runs.get(run.key)
        return watched is not None and watched[0] is run

    def has_another(self, run: Runnable) -> bool:
        """Whether the key of this run is that of another one now, so that this one is over."""
        watched = self._runs.get(run.key)
        return watched is not None and watched[0] is not run

    def keys(self) -> set[tuple[str, int]]:
        """Which runs are going on."""
        return set(list(self._runs))

    def tell_stopping(self) -> None:
        """Let all runs know that their worker wants to stop."""
        for run, _, _ in list(self._runs.values()):
            run.tell_stopping()

    def left_s(self, now: float) -> float:
        """The longest time that any run may still take: 0 when none runs, infinite when one has no end."""
        watched = list(self._runs.values())
        return max([0.0, *(max(ends_at, run.began_at + run.timeout) - now for run, _, ends_at in watched)])

    def cut(self, keys: list[tuple[str, int]] | None, why: str) -> None:
        """End these runs now (None: all), for the reason that their outcome shall tell."""
        with self._lock:
            for key in list(self._runs) if keys is None else keys:
                if (watched := self._runs.get(key)) is not None:
                    self._interrupt(watched, why)

    def cancel(self, key: tuple[str, int]) -> None:
        """A person wants this run to end. Async jobs are stopped; a plain function learns it from `ctx.cancelled()`."""
        with self._lock:
            if (watched := self._runs.get(key)) is None:
                return
            watched[0].tell_cancelled()
            if watched[0].is_async:
                self._interrupt(watched, "cancel")

    def close(self) -> None:
        """Stop sweeping."""
        self._closed.set()
        self._has_work.set()

    def _wake(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._sweep, name="protojobs-timeouts", daemon=True)
            thread.start()
            self._thread = thread
        self._is_sweeping = True
        self._has_work.set()

    def _sweep(self) -> None:
        while not self._closed.is_set():
            self._has_work.wait()
            try:
                self._turn(self._clock.monotonic())
            except Exception:  # noqa: BLE001  (a mistake of ours: without this thread no run would ever be ended)
                _log.exception("the table of timeouts failed in a way that it should not")
            self._closed.wait(SWEEP_S)

    def _turn(self, now: float) -> None:
        with self._lock:
            if self._cut:
                self._cut = {run: ends_at for run, ends_at in self._cut.items() if self.has(run)}
                for run in self._cut:
                    if (watched := self._runs.get(run.key)) is not None:
                        watched[1].interrupt_again(run)
            for watched in list(self._runs.values()):
                if why := self._why_end(watched, now):
                    self._interrupt(watched, why)
                elif _soft_s(run := watched[0]) and run.key not in self._warned:
                    self._warn(run, watched[1], now)
            self._warned &= self._runs.keys()
            self._find_stuck(now)
        if not self._is_needed():
            self._rest()

    def _is_needed(self) -> bool:
        return bool(self._cut) or any(
            ends_at < math.inf or run.exclusive_holder or _soft_s(run) for run, _, ends_at in list(self._runs.values())
        )

    def _rest(self) -> None:
        """Sweep no more until a run comes. The order matters: a run that comes now wakes us, or is seen here; one that
        comes and goes again while we are at it leaves us as it found us.
        """
        self._has_work.clear()
        self._is_sweeping = False
        if self._is_needed():
            self._wake()

    def _why_end(self, watched: _Watched, now: float) -> str:
        run, executor, ends_at = watched
        if ends_at <= now and not executor.keeps_time and run.began_at + run.timeout <= now:  # it may have begun late
            return "timeout"
        holder = run.exclusive_holder
        return LEASE_IN_DOUBT if holder and self._validity.safe_until(holder) <= now else ""

    def _interrupt(self, watched: _Watched, why: str) -> None:
        run, executor, _ = watched
        if run in self._cut or not self.has(run):
            return
        run.cut_by = why
        if why == LEASE_IN_DOUBT:
            _log.warning("job %s is exclusive: its run is ended, since others might soon be lent the job", run.key[0])
        self._cut[run] = self._clock.monotonic() + self._end_s(why)
        self._wake()
        executor.interrupt(run)

    def _warn(self, run: Runnable, executor: Executor, now: float) -> None:
        """Raise JobTimeout in a run whose soft limit is over, once. Async runs and children see to that themselves."""
        if isinstance(executor, ThreadExecutor) and run not in self._cut and -math.inf < run.began_at:
            if run.began_at + _soft_s(run) <= now:
                self._warned.add(run.key)
                executor.raise_timeout(run)

    def _find_stuck(self, now: float) -> None:
        """Tell of those that were told to end before, and are still here."""
        for run in [run for run, ends_at in self._cut.items() if ends_at <= now]:
            if self.has(run):
                self._stuck(run)  # before it is forgotten: so whoever hears of its end knows what was said of it
                self.remove(run.key)
                _log.error("job %s did not end within %g s of its %s", run.key[0], self._end_s(run.cut_by), run.cut_by)

    def _end_s(self, why: str) -> float:
        if why == LEASE_IN_DOUBT:
            return min(END_S, max(self._validity.lease_s / 6, EXCLUSIVE_END_MIN_S))
        return END_S


def _soft_s(run: Runnable) -> float:
    return run.definition.soft_timeout if isinstance(run, Run) and not run.is_async else 0.0
