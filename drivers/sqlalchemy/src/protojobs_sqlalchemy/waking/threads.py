"""Threads of one process that wait for jobs are woken by whoever stores one, or hears of one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from protojobs.clock import SYSTEM_CLOCK
from protojobs_sqlalchemy.connecting.forks import start_afresh_in_children

__all__ = ["Wakeup"]

_QUEUES_MAX = 10_000  # that are remembered


class Wakeup:
    """Counts wake-ups; who waits compares each queue's last one with a mark, so that none in between is lost."""

    def __init__(self) -> None:
        self._total = 0
        self._for_all = 0
        self._last: dict[str, int] = {}
        self.start_afresh()
        start_afresh_in_children(self)

    def start_afresh(self) -> None:
        """In a forked child nobody waits, and nobody is amidst waking."""
        self._changed = threading.Condition()

    def mark(self) -> int:
        """What `wait` is given, to see the wake-ups after this moment."""
        with self._changed:
            return self._total

    def wake(self, queues: Iterable[str]) -> None:
        """Wake those who wait for one of `queues`."""
        with self._changed:
            self._total += 1
            if len(self._last) > _QUEUES_MAX:
                self._last.clear()
                self._for_all = self._total
            for queue in queues:
                self._last[queue] = self._total
            self._changed.notify_all()

    def wake_all(self) -> None:
        """Wake all: something may have been missed."""
        with self._changed:
            self._total += 1
            self._for_all = self._total
            self._changed.notify_all()

    def wait(self, mark: int, queues: Sequence[str], timeout: float) -> bool:
        """Whether there was a wake-up for one of `queues` after `mark`; waits up to `timeout` seconds for it."""
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        with self._changed:
            while True:
                if self._for_all > mark or any(self._last.get(queue, 0) > mark for queue in queues):
                    return True
                left = ends_at - SYSTEM_CLOCK.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
