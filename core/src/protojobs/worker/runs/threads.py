"""Plain functions, each in one of a bounded number of threads.

A run is ended from outside by raising `Interrupted` in its thread, which Python does between two bytecodes: a run in
one long C call does not notice until that returns. The exception is only ever aimed at a run, under that slot's lock,
and a thread that was aimed at takes no further job: it cannot reach the next one. Python drops it where it strikes in a
`__del__` or a weakref's callback, and a bare `except:` swallows it: so it is aimed again while the run goes on, but not
at the `finally` blocks that it has brought the run to.

Threads that all have tiny jobs do nothing but take the interpreter's lock from each other: with eight of them a drain
takes twice as long as with two. So of short runs, which may lie ready, only so many threads take as are needed to keep
up. One more looks on every 2 ms and helps when they do not: docs/decisions/0022.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue

from protojobs.clock import SYSTEM_CLOCK, Clock, cpu_s
from protojobs.errors import JobTimeout
from protojobs.interrupts import Interrupted, interrupt, is_handling_one, take_back
from protojobs.logs import RUNNING
from protojobs.worker.outcome import Outcome
from protojobs.worker.runs.executor import NOT_BEGUN, NotBegun, Report, Runnable, not_judged
from protojobs.worker.runs.run import SOFT

__all__ = ["ThreadExecutor"]

FEW = 2  # threads that short runs have at least: while one is in a system call the other goes on
LOOK_S = 0.002  # between two looks at whether they keep up
BUSY_CORES = 0.75  # a process that uses so much of a core does not wait for something outside
BUSY_S = 150e-6  # between two runs that are taken; above, one thread more helps even there: the runs are not so short
WAIT_S = 100e-6  # of a thread, for each run; above, one more helps where the threads wait
_LOCK_S = 1.0  # the lock is held for microseconds; an interrupted thread might in theory leave it locked


class ThreadExecutor:
    """At most `size` threads, made as jobs come."""

    keeps_time = False

    def __init__(self, size: int, report: Report, clock: Clock = SYSTEM_CLOCK) -> None:
        self.report = report
        self.monotonic = clock.monotonic
        self.ready: deque[Runnable] = deque()
        self._size = size
        self._width = FEW  # threads that short runs have by themselves
        self._handed: dict[Runnable, bool] = {}  # and not begun. Whoever pops a run from it has it
        self._count = 0  # of all that were handed over
        self._lock = threading.Lock()  # for the lists of slots
        self._slots: list[_Slot] = []
        self._idle: list[_Slot] = []
        self._onlooker: _Slot | None = None
        self._has_deaf = False

    def start(self, run: Runnable) -> None:
        self._handed[run] = True
        is_first = not self.ready
        self.ready.append(run)
        self._count += 1
        # A slot that goes idle looks at `ready` after it is on the list: so it is seen here, or sees the run.
        try:
            if is_first or run.begins_by == math.inf or self._busy() < self._width:
                self._call(looks_on=False)
            elif self._onlooker is None:
                self._call(looks_on=True)
        except RuntimeError:  # no thread to be had: one that there is takes it later, if it has not done so by now
            if not self._slots and self.withdraw([run.key]):
                self.ready.remove(run)
                raise

    def begun(self, run: Runnable) -> bool:
        """Take a run out of those that can be withdrawn. False: it was."""
        return self._handed.pop(run, False)

    def withdraw(self, keys: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        """Take back those of the runs that no thread has begun, in the order in which they were handed over."""
        wanted = set(keys)
        return [run.key for run in list(self._handed) if run.key in wanted and self._handed.pop(run, False)]

    def interrupt(self, run: Runnable) -> None:
        for slot in self._slots:
            slot.interrupt(run)

    def raise_timeout(self, run: Runnable) -> None:
        """Raise JobTimeout in the run: its soft limit is over. Never blocks."""
        for slot in self._slots:
            slot.raise_timeout(run)

    def interrupt_again(self, run: Runnable) -> None:
        for slot in self._slots:
            slot.interrupt(run, again=True)

    def give_up(self) -> None:
        """Do not wait for the threads of those that were interrupted: the next run may have one of its own."""
        self._has_deaf = True

    def close(self) -> None:
        self._handed.clear()  # nobody would store their results
        with self._lock:
            self._size = 0
        for slot in self._slots:
            slot.bell.put(False)

    def rest(self, slot: _Slot) -> bool:
        """Called by a slot that finds nothing ready: wait until it is called. False: it is to end."""
        with self._lock:
            if not self._size:
                return False
            if self.ready:
                return True
            self._idle.append(slot)
        if slot.bell.get():
            self.look_on(slot)
        return True

    def replace(self, gone: _Slot) -> None:
        """One that was interrupted retires; runs may lie ready that it will not take."""
        with self._lock:
            self._add_slot(gone)

    def _busy(self) -> int:
        return len(self._slots) - len(self._idle) - (self._onlooker is not None)

    def _call(self, *, looks_on: bool) -> None:
        with self._lock:
            has_room = self._has_deaf or (not self._idle and len(self._slots) < self._size)
            slot = self._add_slot(looks_on=looks_on) if has_room else None
            if slot is None and self._idle:
                slot = self._idle.pop()  # the last that became idle: its memory is warm
                slot.bell.put(looks_on)
            if looks_on:
                self._onlooker = slot

    def look_on(self, slot: _Slot) -> None:
        """While runs lie ready: see whether those at work keep up with them. If not, help, and let another look on."""
        while self.ready:
            began, cpu, taken = self.monotonic(), cpu_s(), self._taken()
            with suppress(Empty):
                slot.bell.get(timeout=LOOK_S)
                break  # the end
            took_s, busy = max(LOOK_S, self.monotonic() - began), self._busy()
            if not busy or self._helps(busy, took_s / max(1, self._taken() - taken), (cpu_s() - cpu) / took_s):
                self._width = min(self._size, busy + 1)
                break
        self._onlooker = None
        if self.ready:
            self._call(looks_on=True)

    def _helps(self, busy: int, each_s: float, cores: float) -> bool:
        """Whether one thread more would. Not where those that there are only wait for the interpreter's lock."""
        if cores < BUSY_CORES:
            return busy * each_s > WAIT_S
        if each_s <= BUSY_S:
            self._width = max(FEW, self._width - 1)
        return each_s > BUSY_S

    def _taken(self) -> int:
        return self._count - len(self.ready)

    def _add_slot(self, gone: _Slot | None = None, *, looks_on: bool = False) -> _Slot | None:
        """Make a thread if there is room."""
        self._slots = [slot for slot in self._slots if slot is not gone and not (self._has_deaf and slot.is_retired)]
        self._has_deaf = False
        if len(self._slots) >= self._size:
            return None
        slot = _Slot(self, looks_on=looks_on)
        self._slots.append(slot)
        return slot


class _Slot:
    """One thread, and the run that it has in hand."""

    def __init__(self, pool: ThreadExecutor, *, looks_on: bool) -> None:
        self.is_retired = False
        self._is_cut = False  # by Interrupted, which may follow a JobTimeout
        self.bell: SimpleQueue[bool] = SimpleQueue()  # rung for an idle one; True: to look on
        self._pool = pool
        self._lock = threading.Lock()
        self._run: Runnable | None = None
        self._thread = threading.Thread(target=self._serve, args=(looks_on,), name="protojobs-job", daemon=True)
        self._thread.start()

    def interrupt(self, run: Runnable, *, again: bool = False) -> None:
        """Raise Interrupted in the thread, if it is running `run` right now, and is not ending it already."""
        if not self._lock.acquire(timeout=_LOCK_S):
            return
        try:
            if self._run is run and (not self._is_cut or (again and not is_handling_one(self._thread))):
                self.is_retired = self._is_cut = True
                interrupt(self._thread)
        finally:
            self._lock.release()

    def raise_timeout(self, run: Runnable) -> None:
        """Raise JobTimeout in the thread, if it is running `run` right now. It takes no other one after it."""
        if not self._lock.acquire(timeout=_LOCK_S):
            return
        try:
            if self._run is run and not self.is_retired:
                self.is_retired = True
                interrupt(self._thread, JobTimeout)
        finally:
            self._lock.release()

    def _serve(self, looks_on: bool) -> None:
        if looks_on:
            self._pool.look_on(self)
        while not self.is_retired and (run := self._next()) is not None:
            if self._pool.begun(run):  # else it was withdrawn
                self._answer(run)
            del run  # an idle thread keeps nothing of its last job
        if self.is_retired:
            self._pool.replace(self)

    def _answer(self, run: Runnable) -> None:
        """Perform the run, and report it. Only here are its result and its exception held."""
        try:
            outcome = self._perform(run)
            if self.is_retired:
                take_back()  # what was aimed at the run must not strike after it
        except Interrupted as end:
            self._is_over()
            take_back()
            outcome = run.cut(end.__traceback__)
        except JobTimeout:  # it struck beside the job's own code
            self._is_over()
            take_back()
            run.cut_by = run.cut_by or SOFT
            outcome = run.cut()
        except BaseException:  # noqa: BLE001  (else the run would never be answered for, and its slot be lost)
            outcome = not_judged(run)
        self._pool.report(run.key, outcome)

    def _next(self) -> Runnable | None:
        while True:
            try:
                return self._pool.ready.popleft()
            except IndexError:
                if not self._pool.rest(self):
                    return None

    def _perform(self, run: Runnable) -> Outcome | NotBegun | None:
        self._run = run
        try:
            if self._pool.monotonic() > run.begins_by:  # first: a timeout would cost it an attempt
                return NOT_BEGUN
            if run.cut_by:
                return run.cut()  # while it waited for this thread: it does not begin
            return copy_context().run(_execute, run)  # what it sets must not be there for the next one
        finally:
            self._is_over()

    def _is_over(self) -> None:
        with self._lock:  # either the run was interrupted before this, or nobody will
            self._run = None


def _execute(run: Runnable) -> Outcome | None:
    RUNNING.set(run.claimed)
    return run.execute()
