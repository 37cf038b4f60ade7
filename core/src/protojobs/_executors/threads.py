"""Plain functions, each in one of a bounded number of threads.

A run is ended from outside by raising `Interrupted` in its thread, which Python does between two bytecodes: a run in
one long C call does not notice until that returns. The exception is only ever aimed at a run, under that slot's lock,
and a thread that was aimed at takes no further job: it cannot reach the next one.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from protojobs._execution import Interrupted
from protojobs._executors import NOT_BEGUN, NotBegun, Report, Runnable, not_judged
from protojobs.clock import SYSTEM_CLOCK, Clock
from protojobs.outcomes import Outcome

__all__ = ["ThreadExecutor"]

_LOCK_S = 1.0  # the lock is held for microseconds; an interrupted thread might in theory leave it locked


class ThreadExecutor:
    """At most `size` threads, made as jobs come."""

    keeps_time = False

    def __init__(self, size: int, report: Report, clock: Clock = SYSTEM_CLOCK) -> None:
        self._size = size
        self._monotonic = clock.monotonic
        self._report = report
        self._inbox: SimpleQueue[Runnable | None] = SimpleQueue()
        self._handed: dict[Runnable, bool] = {}  # and not begun. Whoever pops a run from it has it
        self._lock = threading.Lock()  # for the list of slots
        self._slots: list[_Slot] = []
        self._has_deaf = False

    def start(self, run: Runnable) -> None:
        if self._has_deaf or len(self._slots) < self._size:
            self._add_slot()
        self._handed[run] = True
        self._inbox.put(run)

    def withdraw(self, keys: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        """Take back those of the runs that no thread has begun, in the order in which they were handed over."""
        wanted = set(keys)
        return [run.key for run in list(self._handed) if run.key in wanted and self._handed.pop(run, False)]

    def interrupt(self, run: Runnable) -> None:
        for slot in self._slots:
            slot.interrupt(run)

    def give_up(self) -> None:
        """Do not wait for the threads of those that were interrupted: the next run may have one of its own."""
        self._has_deaf = True

    def close(self) -> None:
        self._handed.clear()  # nobody would store their results
        with self._lock:
            self._size = 0
        for _ in self._slots:
            self._inbox.put(None)

    def _add_slot(self, gone: _Slot | None = None) -> None:
        """Make a thread if there is room. One that retires does so too: runs may lie ready that it will not take."""
        with self._lock:
            self._slots = [
                slot for slot in self._slots if slot is not gone and not (self._has_deaf and slot.is_retired)
            ]
            self._has_deaf = False
            if len(self._slots) < self._size:
                self._slots.append(_Slot(self._inbox, self._handed, self._report, self._add_slot, self._monotonic))


class _Slot:
    """One thread, and the run that it has in hand."""

    def __init__(
        self,
        inbox: SimpleQueue[Runnable | None],
        handed: dict[Runnable, bool],
        report: Report,
        add_slot: Callable[[_Slot], None],
        monotonic: Callable[[], float],
    ) -> None:
        self.is_retired = False
        self._inbox = inbox
        self._handed = handed
        self._report = report
        self._add_slot = add_slot
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._run: Runnable | None = None
        self._thread = threading.Thread(target=self._serve, name="protojobs-job", daemon=True)
        self._thread.start()

    def interrupt(self, run: Runnable) -> None:
        """Raise Interrupted in the thread, if it is running `run` right now."""
        if not self._lock.acquire(timeout=_LOCK_S):
            return
        try:
            if self._run is run and not self.is_retired:
                self.is_retired = True
                _raise_in(self._thread, Interrupted)
        finally:
            self._lock.release()

    def _serve(self) -> None:
        while not self.is_retired and (run := self._inbox.get()) is not None:
            if not self._handed.pop(run, False):
                continue  # withdrawn
            try:
                outcome = self._perform(run)
                if self.is_retired:
                    _raise_in(self._thread, None)  # what was aimed at the run must not strike after it
            except Interrupted:
                outcome = run.cut()
            except BaseException:  # noqa: BLE001  (else the run would never be answered for, and its slot be lost)
                outcome = not_judged(run)
            self._report(run.key, outcome)
        if self.is_retired:
            self._add_slot(self)

    def _perform(self, run: Runnable) -> Outcome | NotBegun | None:
        self._run = run
        try:
            if self._monotonic() > run.begins_by:  # first: a timeout would cost it an attempt
                return NOT_BEGUN
            return run.cut() if run.cut_by else run.execute()  # cut while it waited for this thread: it does not begin
        finally:
            with self._lock:  # either the run was interrupted before this, or nobody will
                self._run = None


def _raise_in(thread: threading.Thread, exception: type[BaseException] | None) -> None:
    """Raise `exception` in another thread at its next bytecode; None takes back one that has not struck yet."""
    target = ctypes.py_object(exception) if exception else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), target)
