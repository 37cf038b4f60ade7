"""What a claim remembers between two turns: the lanes of its queues, and how far each was cleared from the front.

A lane is a (queue, priority) that has pending jobs. A *floor* is the place in its line (`available_at`, then the id) of
the first job that the last full claim lent, or passed over: looking only from there on skips the index entries of
rows that were claimed but not vacuumed yet. While a long transaction keeps vacuum away those pile up, and a claim
without a floor walks all of them (0.8 ms against 5.9 ms and rising). A job that commits late with an older time, and a
lane that is new, are seen when the lanes are read again: after a claim that was not full, after a second at the latest,
and after an enqueue through the same driver object.

Where so much has piled up that the walk itself takes long, every second is too often: the floors then stay for twenty
times as long as the walk takes (docs/decisions/0020). The lanes are read each second all the same. Jobs that come back
to their old places are told of by name: whoever takes them back notifies all, and the lane is walked at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from protojobs.clock import SYSTEM_CLOCK
from protojobs.port.records import ClaimedJob
from protojobs_sqlalchemy.connecting.forks import start_afresh_in_children

__all__ = ["Lane", "LaneMemory", "Lanes", "Place", "firsts_of"]

_FRESH_S = 1.0  # the port's bound, in store time
_WALK_SHARE = 20  # walking all of the dead may take a twentieth of the time ...
_WALK_EVERY_MAX_S = 60.0  # ... but is never put off for longer; docs/decisions/0020
_KNOWN_MAX = 64  # sets of queues that are remembered
_NO_ID = "00000000-0000-0000-0000-000000000000"

Lane = tuple[str, int]
Place = tuple[datetime, str]  # in the line: available_at, then the id


class Lanes:
    """The lanes of some queues. A claim asks them in the order that `places` gives for its list of queues."""

    def __init__(self, order: Sequence[Lane], read_at: float) -> None:
        self.order = list(order)
        self.floors: list[datetime | None] = [None] * len(order)
        self.firsts = [_NO_ID] * len(order)  # the ids that belong to the floors
        self.read_at = read_at
        self.walked_at = read_at  # when the floors were given up last
        self.is_stale = False
        self._walk_every_s = _FRESH_S
        self._usual_s: float | None = None  # how long a claim from the floors takes
        self._excess_s = 0.0  # how much longer the last walk took

    def places(self, queues: Sequence[str]) -> list[int]:
        """Where the lanes stand in `order`, for a claim on these queues: by queue as they are listed, then priority."""
        rank = {queue: number for number, queue in enumerate(queues)}
        return sorted(range(len(self.order)), key=lambda place: (rank[self.order[place][0]], -self.order[place][1]))

    @property
    def has_floors(self) -> bool:
        """Whether a claim looks from the floors on, not at everything."""
        return any(floor is not None for floor in self.floors)

    @property
    def is_put_off(self) -> bool:
        """Whether the floors stay for longer than usual, since so much that is dead lies before them."""
        return self._walk_every_s > _FRESH_S

    def note_claim(self, firsts: Mapping[Lane, Place], *, is_full: bool) -> None:
        """Move the floors up after a full claim; after any other one everything is read again.

        `firsts` are the places of the first job of each lane that the claim lent, or left where it is: the next one
        shall look at that too.
        """
        if not is_full:
            self.is_stale = True
            return
        for number, lane in enumerate(self.order):
            if lane in firsts:
                self.floors[number], self.firsts[number] = firsts[lane]

    def note_time(self, took_s: float, *, has_walked: bool) -> None:
        """How long a full claim took. Two slow walks on end, beside what is usual, put the next ones off."""
        if not has_walked:
            self._usual_s = took_s if self._usual_s is None else self._usual_s + (took_s - self._usual_s) / 8
            return
        excess_s = took_s - (self._usual_s if self._usual_s is not None else took_s)
        every_s = _WALK_SHARE * min(excess_s, self._excess_s)
        self._walk_every_s = max(_FRESH_S, min(_WALK_EVERY_MAX_S, every_s))
        self._excess_s = excess_s

    def set_order(self, order: Sequence[Lane], before: Lanes | None) -> None:
        """The lanes were read. The floors of those `before` stay until the next walk is due."""
        self.order = list(order)
        self.floors = [None for _ in order]
        self.firsts = [_NO_ID] * len(order)
        if before is None:
            return
        self._walk_every_s, self._usual_s, self._excess_s = before._walk_every_s, before._usual_s, before._excess_s
        is_put_off = self.is_put_off and self.read_at - before.walked_at < self._walk_every_s
        if before.is_stale or not is_put_off:
            return
        self.walked_at = before.walked_at
        known = {lane: place for place, lane in enumerate(before.order)}
        for place, lane in enumerate(order):
            if lane in known:
                self.floors[place], self.firsts[place] = before.floors[known[lane]], before.firsts[known[lane]]


def firsts_of(jobs: Sequence[ClaimedJob]) -> dict[Lane, Place]:
    """The place of each lane's first job, of jobs in the order of a claim: one look at each lane, not at each job."""
    firsts: dict[Lane, Place] = {}
    queue, priority = "", 0
    for job in jobs:
        if job.priority != priority or job.queue != queue:  # no queue has the name ""
            queue, priority = job.queue, job.priority
            firsts[queue, priority] = job.available_at, job.id
    return firsts


class LaneMemory:
    """The lanes of every set of queues that was asked for lately. Threads may share it.

    In whichever order they are asked: workers with weights ask in another one each time.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], Lanes] = {}
        self.start_afresh()
        start_afresh_in_children(self)

    def start_afresh(self) -> None:
        """In a forked child: nobody is amidst writing it down."""
        self._lock = threading.Lock()

    def fresh(self, queues: tuple[str, ...], offset: float) -> Lanes | None:
        """What is remembered of these queues, if it may still be used."""
        lanes = self._known.get(_set_of(queues))
        if lanes is None or lanes.is_stale or not 0 <= _store_clock(offset) - lanes.read_at < _FRESH_S:
            return None
        return lanes

    def is_put_off(self, queues: Sequence[str]) -> bool:
        """Whether the floors of these queues stay for longer than usual."""
        lanes = self._known.get(_set_of(queues))
        return lanes is not None and lanes.is_put_off

    def is_busy(self, queues: tuple[str, ...]) -> bool:
        """Whether the last claim on these queues was full: then it pays to know the lanes."""
        lanes = self._known.get(_set_of(queues))
        return lanes is not None and not lanes.is_stale

    def read(self, queues: tuple[str, ...], offset: float, look: Callable[[], Sequence[Lane]]) -> Lanes:
        """Look again, and remember."""
        started = _store_clock(offset)
        lanes = Lanes((), started)
        known = _set_of(queues)
        with self._lock:
            before = self._known.get(known)
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[known] = lanes  # before the look, so that a job enqueued meanwhile marks it stale
        lanes.set_order(look(), before)
        return lanes

    def note_full(self, queues: tuple[str, ...]) -> None:
        """A claim that knew no lanes was full."""
        with self._lock:
            self._known[_set_of(queues)] = Lanes((), float("-inf"))

    def note_enqueue(self, queues: Iterable[str]) -> None:
        """Jobs came in through this driver: the next claim on these queues must see them."""
        names = set(queues)
        with self._lock:
            for known, lanes in self._known.items():
                if not names.isdisjoint(known):
                    lanes.is_stale = True


def _set_of(queues: Sequence[str]) -> tuple[str, ...]:
    return tuple(queues) if len(queues) == 1 else tuple(sorted(set(queues)))


def _store_clock(offset: float) -> float:
    return SYSTEM_CLOCK.monotonic() + offset
