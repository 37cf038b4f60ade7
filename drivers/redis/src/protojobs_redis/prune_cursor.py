"""Where a prune goes on: it goes round all queues, and may need several calls for that."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Kind", "Lap", "Laps", "Place"]

Place = tuple[str | int, ...]  # queue, number of the state: see scripts/prune.lua
Kind = tuple[str, ...]  # of prune: its ages

START: Place = ("", 1)
KINDS_MAX = 16  # kinds of prune of which the place is kept; a program has two or three


class Lap(Struct, frozen=True):
    """A way round all queues, from a place back to its queue."""

    at: Place = START
    until: Place = START
    is_round: bool = False  # it went by the end, and goes on from the first queue

    def behind(self, go_on: Place) -> Lap | None:
        """What is left when a step ended there, or at the end of all queues (); None when it has come round."""
        if not go_on:
            return None if self.is_round or self.until == START else Lap(START, self.until, is_round=True)
        if self.is_round and _name(go_on) > _name(self.until):
            return None
        return Lap(go_on, self.until, self.is_round)


class Laps:
    """What is left of the laps that ended in the middle, by the kind of prune.

    Used by many threads. Those that prune at once may look at the same jobs, which costs time and deletes nothing
    twice; of them the first says where the next begins.
    """

    def __init__(self) -> None:
        self._left: dict[Kind, Lap] = {}

    def left(self, kind: Kind) -> Lap | None:
        """Where the one before ended; None where it came round."""
        return self._left.get(kind)

    def keep(self, kind: Kind, lap: Lap | None, *, instead_of: Lap | None) -> None:
        """Begin the next one there, unless another thread has gone on from the same place meanwhile."""
        if self._left.get(kind) is not instead_of:
            return
        if lap is None:
            self._left.pop(kind, None)
        else:
            self._left[kind] = lap
            if len(self._left) > KINDS_MAX:
                self._left.pop(next(iter(self._left)), None)


def _name(place: Place) -> bytes:
    return str(place[0]).encode()  # the server's order
