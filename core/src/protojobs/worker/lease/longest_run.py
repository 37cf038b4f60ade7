"""How long the runs of a worker may go on at most: for the supervisor, which makes its heartbeats while it cannot."""

from __future__ import annotations

import threading
from collections.abc import Callable

from protojobs.clock import Clock

__all__ = ["RunBound", "ReportedRunBound"]


class RunBound:
    """What the claim loop and the heartbeat thread report to: here, to nobody."""

    is_reported = False

    def look_at(self, left_s: Callable[[float], float]) -> None:
        """`left_s(now)` tells the longest time that any run may still take."""

    def begins(self, lasts_s: float) -> None:
        """Runs are about to begin; the longest may take so many seconds."""

    def begun(self) -> None:
        """`left_s` knows of them all now."""

    def beat(self) -> None:
        """The worker is about to make a heartbeat."""


class ReportedRunBound(RunBound):
    """The longest time that any run may still take by its timeout, whether that ends in a thread, a loop or a child.

    `say(seconds)` is called with every beat, and before a run begins that may outlast what was said: once its call in C
    holds the interpreter's lock, nothing more can be said. It is 0 when nothing runs, infinite when a run has no end.
    """

    is_reported = True

    def __init__(self, clock: Clock, beat_s: float, say: Callable[[float], None]) -> None:
        self._clock = clock
        self._beat_s = beat_s
        self._say = say
        self._lock = threading.Lock()  # held while it says something, so that the last word is the newest
        self._left_s: Callable[[float], float] = lambda _now: 0.0
        self._begins_s = 0.0  # of those that are about to begin: to hand them over may take longer than a beat
        self._begun_s = 0.0  # the longest that began since the last beat: those like it need no word of their own
        self._said_until = 0.0

    def look_at(self, left_s: Callable[[float], float]) -> None:
        self._left_s = left_s

    def begins(self, lasts_s: float) -> None:
        with self._lock:
            now = self._clock.monotonic()
            self._begins_s = lasts_s
            self._begun_s = max(self._begun_s, lasts_s)
            if now + lasts_s > self._said_until:
                self._tell(now, lasts_s)

    def begun(self) -> None:
        self._begins_s = 0.0

    def beat(self) -> None:
        with self._lock:
            now = self._clock.monotonic()
            lasts_s = max(self._begins_s, self._begun_s)  # first: what is not in it any more is in `left_s`
            self._begun_s = 0.0
            self._tell(now, max(lasts_s, self._left_s(now)))

    def _tell(self, now: float, lasts_s: float) -> None:
        # A beat's time more, so that of many short runs alike none needs a word of its own: each may begin until then.
        if lasts_s > 0:
            lasts_s += self._beat_s
        self._said_until = now + lasts_s
        self._say(lasts_s)
