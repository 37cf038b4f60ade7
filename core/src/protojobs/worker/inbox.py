"""The queue that the claim loop waits at: all that happens in other threads arrives here."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import TypeAlias

from protojobs.worker.lease.lease import HeartbeatResult
from protojobs.worker.outcome import Outcome
from protojobs.worker.round_trip import RoundTrip
from protojobs.worker.runs.executor import NotBegun, Runnable, Unplaced

__all__ = ["Ended", "Inbox", "Message"]

Message: TypeAlias = HeartbeatResult | RoundTrip | Unplaced | Runnable | int | None
"""A heartbeat | a round trip is over | no child can do this run | this run is stuck | a stop of that level | None: the
store says that a job may be due."""

Ended: TypeAlias = tuple[tuple[str, int], Outcome | NotBegun | None]
"""A run, by its key, and how it ended."""


class _WakeUp:
    """Enough runs have ended, or there is something else to do."""


_WAKE_UP = _WakeUp()


class Inbox:
    """Messages wake the loop at once. Ends of runs do so when there are as many as it waits for: to wake it for each
    costs more than a short job.
    """

    def __init__(self) -> None:
        self._messages: SimpleQueue[Message | _WakeUp] = SimpleQueue()
        self._ended: deque[Ended] = deque()
        self._gather = 1
        self._is_woken = False  # a wake-up is on its way: one is enough

    def put(self, message: Message) -> None:
        """Something has happened."""
        self._messages.put(message)

    def put_ended(self, key: tuple[str, int], outcome: Outcome | NotBegun | None) -> None:
        """A run has ended."""
        self._ended.append((key, outcome))
        if not self._is_woken and len(self._ended) >= self._gather:
            self._is_woken = True
            self._messages.put(_WAKE_UP)

    def look(self) -> None:
        """Nothing has happened, but there is something to do."""
        self._messages.put(_WAKE_UP)

    def messages(self, wait_s: float, gather: int, in_turn: threading.Lock | None = None) -> Iterator[Message]:
        """All messages. When nothing has happened, wait up to `wait_s` for one, or for so many runs to end.

        `in_turn` is released while this waits.
        """
        self._is_woken, self._gather = False, gather  # before the look at what has ended: so none falls in between
        waits = wait_s > 0 and len(self._ended) < gather
        try:
            message = self._next(wait_s, in_turn) if waits else self._messages.get_nowait()
            while True:
                if not isinstance(message, _WakeUp):
                    yield message
                message = self._messages.get_nowait()
        except Empty:
            return

    def _next(self, wait_s: float, in_turn: threading.Lock | None) -> Message | _WakeUp:
        if in_turn is None:
            return self._messages.get(timeout=wait_s)
        in_turn.release()
        try:
            return self._messages.get(timeout=wait_s)
        finally:
            in_turn.acquire()

    def ended(self) -> list[Ended]:
        """The runs that have ended since, in order."""
        return [self._ended.popleft() for _ in range(len(self._ended))]
