"""What a claim remembers between two turns: the lanes of its queues, and how far each was cleared from the front.

A lane is a (queue, priority) that has pending jobs. A *floor* is the earliest `available_at` of the last full claim:
looking only from there on passes over the index entries of rows that were claimed but not vacuumed yet. While a long
transaction keeps vacuum away those pile up, and a claim without a floor walks all of them (0.8 ms against 5.9 ms and
rising). A job that commits late with an older time, and a lane that is new, are seen when the lanes are read again:
after a claim that was not full, after a second at the latest, and after an enqueue through the same driver object.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from protojobs.clock import SYSTEM_CLOCK
from protojobs.records import ClaimedJob

__all__ = ["Lane", "LaneMemory", "Lanes"]

_FRESH_S = 1.0  # the port's bound, in store time
_KNOWN_MAX = 64  # lists of queues that are remembered

Lane = tuple[str, int]


class Lanes:
    """The lanes of one list of queues, in the order in which they are claimed."""

    def __init__(self, order: Sequence[Lane], read_at: float) -> None:
        self.order = list(order)
        self.floors: list[datetime | None] = [None] * len(order)
        self.read_at = read_at
        self.is_stale = False

    def note_claim(self, jobs: Sequence[ClaimedJob], *, is_full: bool) -> None:
        """Move the floors up after a full claim; after any other one everything is read again."""
        if not is_full:
            self.is_stale = True
            return
        first: dict[Lane, datetime] = {}
        for job in jobs:
            lane = (job.queue, job.priority)
            first[lane] = min(first.get(lane, job.available_at), job.available_at)
        for place, lane in enumerate(self.order):
            if lane in first:
                self.floors[place] = first[lane]


class LaneMemory:
    """The lanes of every list of queues that was asked for lately. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, ...], Lanes] = {}

    def fresh(self, queues: tuple[str, ...], offset: float) -> Lanes | None:
        """What is remembered of these queues, if it may still be used."""
        lanes = self._known.get(queues)
        if lanes is None or lanes.is_stale or not 0 <= _store_clock(offset) - lanes.read_at < _FRESH_S:
            return None
        return lanes

    def read(self, queues: tuple[str, ...], offset: float, look: Callable[[], Sequence[Lane]]) -> Lanes:
        """Look again, and remember."""
        started = _store_clock(offset)
        lanes = Lanes((), started)
        with self._lock:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[queues] = lanes  # before the look, so that a job enqueued meanwhile marks it stale
        lanes.order = list(look())
        lanes.floors = [None] * len(lanes.order)
        return lanes

    def note_enqueue(self, queues: Iterable[str]) -> None:
        """Jobs came in through this driver: the next claim on these queues must see them."""
        names = set(queues)
        with self._lock:
            for known, lanes in self._known.items():
                if not names.isdisjoint(known):
                    lanes.is_stale = True


def _store_clock(offset: float) -> float:
    return SYSTEM_CLOCK.monotonic() + offset
