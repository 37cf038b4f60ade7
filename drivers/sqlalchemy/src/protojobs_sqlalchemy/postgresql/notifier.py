"""NOTIFY on PostgreSQL, but not for every job: each takes a lock of the whole database cluster while it commits.

With 32 writers a NOTIFY in every transaction makes pushing nine times slower. So a push takes its notification along
only for a queue that was quiet, and only where this process does so rarely, since the lock is then held until the job
is on disk. All else is sent after the commit by a thread, once in ten milliseconds for a queue that is busy. Should
the process be killed before that, a worker's poll finds the job within about a second; one that ends sends it first.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress

from protojobs.clock import SYSTEM_CLOCK
from protojobs_sqlalchemy.connecting.forks import start_afresh_in_children

__all__ = ["Notifier"]

_QUIET_S = 0.01
_ALONG_SHARE = 20  # a process holds the lock, or waits for it, for a twentieth of its time at most
_KEPT_S = 1.0  # how long the thread waits for more: to start one costs as much as to store a job
_AT_END_S = 1.0  # for what is still to be sent when the process ends
_KNOWN_MAX = 10_000

_notifiers: weakref.WeakSet[Notifier] = weakref.WeakSet()


class Notifier:
    """Collects queue names and hands them to `send` in a thread of its own, or says that the caller may send them."""

    def __init__(self, send: Callable[[list[str]], None]) -> None:
        self._send = send
        self._sent_at: dict[str, float] = {}
        self.start_afresh()
        start_afresh_in_children(self)
        _notifiers.add(self)

    def start_afresh(self) -> None:
        """A forked child begins like this: what is to be sent later its parent sends, and threads do not follow."""
        self._lock = threading.Lock()
        self._along_from = 0.0
        self._later: set[str] = set()
        self._loud_until = 0.0  # when the last of those that were sent just before may be sent again
        self._has_some = threading.Event()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def along(self, queue: str) -> Generator[bool]:
        """Whether the block, which ends with a commit, shall send the queue's notification in its transaction.

        Should the block fail, the queue counts as told nevertheless: what is told of next is sent by the thread.
        """
        started = SYSTEM_CLOCK.monotonic()
        with self._lock:
            is_quiet = started - self._sent_at.get(queue, -1.0) >= _QUIET_S and queue not in self._later
            if goes_along := is_quiet and started >= self._along_from:
                self._note_sent([queue], started)
                self._along_from = float("inf")  # one at a time
        try:
            yield goes_along
        finally:
            if goes_along:
                now = SYSTEM_CLOCK.monotonic()
                self._along_from = now + max(_QUIET_S, _ALONG_SHARE * (now - started))

    def notify(self, queues: Iterable[str]) -> None:
        """Send it in the thread: now what was quiet, and soon the rest."""
        with self._lock:
            if later := set(queues):
                loud_until = [self._sent_at.get(queue, -1.0) + _QUIET_S for queue in later]
                self._loud_until = max(self._loud_until, *loud_until)
                self._later |= later
                self._be_sent()

    def finish(self) -> None:
        """Have sent what is still to be sent, or give it up after a second; the thread ends."""
        if (thread := self._thread) is not None:
            self._hurry.set()
            self._has_some.set()
            thread.join(_AT_END_S)
            self._hurry.clear()

    def _note_sent(self, queues: Iterable[str], now: float) -> None:
        if len(self._sent_at) > _KNOWN_MAX:
            self._sent_at.clear()
        self._sent_at.update(dict.fromkeys(queues, now))

    def _be_sent(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._send_later, name="protojobs-notify", daemon=True)
            with suppress(RuntimeError):  # none can be started (any more); the jobs are stored
                self._thread.start()
        if not self._has_some.is_set():
            self._has_some.set()

    def _send_later(self) -> None:
        while True:
            self._has_some.wait(_KEPT_S)
            with self._lock:
                if not self._later:
                    self._thread = None
                    return
                wait_s = self._loud_until - SYSTEM_CLOCK.monotonic()
            if wait_s > 0:
                self._hurry.wait(wait_s)
            with self._lock:
                queues, self._later = list(self._later), set()
                if not self._hurry.is_set():
                    self._has_some.clear()
                self._note_sent(queues, SYSTEM_CLOCK.monotonic())
            self._send(queues)


def _finish_all() -> None:
    for notifier in list(_notifiers):
        notifier.finish()


atexit.register(_finish_all)
