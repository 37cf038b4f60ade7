"""The doorbell between the threads of one process: whoever stores a job wakes who waits for its queue."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from protojobs.clock import SYSTEM_CLOCK
from protojobs_sqlalchemy.connecting.forks import start_afresh_in_children

__all__ = ["Bell"]


_KNOWN_MAX = 10_000


class Bell:
    """Counts rings per queue; a listener compares with the count that it saw, so that no ring between is lost."""

    def __init__(self) -> None:
        self._total = 0
        self._for_all = 0
        self._last: dict[str, int] = {}
        self.start_afresh()
        start_afresh_in_children(self)

    def start_afresh(self) -> None:
        """In a forked child nobody waits, and nobody is amidst ringing."""
        self._rung = threading.Condition()

    def listen(self) -> int:
        """A mark: `wait` answers what rang after it."""
        with self._rung:
            return self._total

    def ring(self, queues: Iterable[str]) -> None:
        """Wake those who wait for one of `queues`."""
        with self._rung:
            self._total += 1
            if len(self._last) > _KNOWN_MAX:
                self._last.clear()
                self._for_all = self._total
            for queue in queues:
                self._last[queue] = self._total
            self._rung.notify_all()

    def ring_all(self) -> None:
        """Wake all: something may have been missed."""
        with self._rung:
            self._total += 1
            self._for_all = self._total
            self._rung.notify_all()

    def wait(self, mark: int, queues: Sequence[str], timeout: float) -> bool:
        """Whether one of `queues` rang after `mark`; waits up to `timeout` seconds for it."""
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        with self._rung:
            while True:
                if self._for_all > mark or any(self._last.get(queue, 0) > mark for queue in queues):
                    return True
                left = ends_at - SYSTEM_CLOCK.monotonic()
                if left <= 0:
                    return False
                self._rung.wait(left)
