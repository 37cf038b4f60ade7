"""How to tell a `work()` to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

__all__ = ["StopToken", "Wakeup"]


class StopToken:
    """Give one to `queue.work(..., stop=token)`, and call `stop()` from any thread or signal handler.

    The first stop lets running jobs finish within `shutdown_grace`; a second one cuts them short. What was cut or not
    begun goes back unspent.
    """

    def __init__(self) -> None:
        self.level = 0
        self._callbacks: list[Callable[[int], None]] = []
        self._lock = threading.RLock()  # re-entrant: a signal may strike while this very thread is inside

    def stop(self, level: int | None = None) -> None:
        """Ask for a stop; a second time, for a quick one. `level` (1 or 2) asks for that one, however often it is said,
        so that one wish which arrives on two ways stays one.
        """
        with self._lock:
            wanted = min(self.level + 1 if level is None else level, 2)
            if level is not None and wanted <= self.level:
                return
            self.level = wanted
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


class Wakeup:
    """What one thread waits for and another, or a signal handler in the very same thread, sets.

    A `threading.Event` will not do there: its lock is not re-entrant, so a handler that strikes inside `wait`, or in
    another handler's `set`, and calls `set` waits for itself. `put` of a SimpleQueue is re-entrant.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._bell: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """End the wait, now and for good."""
        self._is_set = True
        self._bell.put(None)

    def is_set(self) -> bool:
        """Whether somebody has set it."""
        return self._is_set

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is set, at most so long; whether it is."""
        if not self._is_set:
            try:
                self._bell.get(timeout=max(0.0, timeout_s))
            except Empty:
                pass
        return self._is_set
