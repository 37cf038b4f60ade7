"""NOTIFY on PostgreSQL, but not for every job: each takes a lock of the whole database cluster while it commits.

With 32 writers a NOTIFY in every transaction makes pushing nine times slower. So it is sent after the commit, by
itself: at once for a queue that was quiet, and else once in ten milliseconds. Should the process die before it is sent,
a worker's poll finds the job within about a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from protojobs.clock import SYSTEM_CLOCK
from protojobs_sqlalchemy.connecting.forks import start_afresh_in_children

__all__ = ["Notifier"]

_QUIET_S = 0.01
_KEPT_S = 1.0  # how long the thread waits for more: to start one costs as much as to store a job
_KNOWN_MAX = 10_000


class Notifier:
    """Collects queue names and hands them to `send`, in this thread or, a moment later, in one of its own."""

    def __init__(self, send: Callable[[list[str]], None]) -> None:
        self._send = send
        self._sent_at: dict[str, float] = {}
        self.start_afresh()
        start_afresh_in_children(self)

    def start_afresh(self) -> None:
        """A forked child begins like this: what is to be sent later its parent sends, and threads do not follow."""
        self._lock = threading.Lock()
        self._later: set[str] = set()
        self._has_loud = False  # whether one of those was sent just before
        self._has_some = threading.Event()
        self._thread: threading.Thread | None = None

    def notify(self, queues: Iterable[str], *, is_here: bool = True) -> None:
        """Send now what was quiet, and soon the rest; all of it in the other thread unless `is_here`."""
        now = SYSTEM_CLOCK.monotonic()
        with self._lock:
            if len(self._sent_at) > _KNOWN_MAX:
                self._sent_at.clear()
            quiet = [queue for queue in queues if now - self._sent_at.get(queue, -1.0) >= _QUIET_S]
            self._has_loud |= not set(queues).issubset(quiet)
            here = quiet if is_here else []
            self._sent_at.update(dict.fromkeys(here, now))
            if later := set(queues).difference(here):
                self._later |= later
                self._be_sent()
        if here:
            self._send(here)

    def _be_sent(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._send_later, name="protojobs-notify", daemon=True)
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
                has_loud = self._has_loud
            if has_loud:
                SYSTEM_CLOCK.sleep(_QUIET_S)
            with self._lock:
                self._has_some.clear()
                self._has_loud = False
                queues, self._later = list(self._later), set()
                self._sent_at.update(dict.fromkeys(queues, SYSTEM_CLOCK.monotonic()))
            self._send(queues)
