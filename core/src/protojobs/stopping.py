"""How to tell a `work()` to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["StopToken"]


class StopToken:
    """Give one to `queue.work(..., stop=token)`, and call `stop()` from any thread or signal handler.

    The first stop lets running jobs finish within `shutdown_grace`; a second one cuts them short. What was cut or not
    begun goes back unspent.
    """

    def __init__(self) -> None:
        self.level = 0
        self._callbacks: list[Callable[[int], None]] = []
        self._lock = threading.RLock()  # re-entrant: a signal may strike while this very thread is inside

    def stop(self) -> None:
        """Ask for a stop; a second time, for a quick one."""
        with self._lock:
            self.level = min(self.level + 1, 2)
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback(self.level)

    def subscribe(self, callback: Callable[[int], None]) -> Callable[[], None]:
        """Call `callback(level)` at each stop, and at once if one was asked for; returns how to unsubscribe."""
        with self._lock:
            self._callbacks.append(callback)
            level = self.level
        if level:
            callback(level)
        return lambda: self._callbacks.remove(callback)
