"""Where the next prune goes on: a prune goes round all queues, and may need several calls for that."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Ages", "Position", "PruneCursor", "PruneCursors"]

Position = tuple[str | int, ...]  # queue, number of the state: see scripts/prune.lua
Ages = tuple[str, ...]  # of completed, failed and cancelled jobs, in microseconds; "": not these

START: Position = ("", 1)
CURSORS_MAX = 16  # prunes of different ages whose cursor is kept; a program has two or three


class PruneCursor(Struct, frozen=True):
    """What is left of a way round all queues, which ends where it began."""

    at: Position = START
    until: Position = START
    is_round: bool = False  # it went by the last queue, and goes on from the first

    def behind(self, go_on: Position) -> PruneCursor | None:
        """What is left after a step that ended there, or at the last queue (); None when it has come round."""
        if not go_on:
            return None if self.is_round or self.until == START else PruneCursor(START, self.until, is_round=True)
        if self.is_round and _name(go_on) > _name(self.until):
            return None
        return PruneCursor(go_on, self.until, self.is_round)


class PruneCursors:
    """The cursors of prunes that have not come round, by the ages that they were called with.

    Used by many threads. Those that prune at once may look at the same jobs, which costs time and deletes nothing
    twice; of them the first says where the next begins.
    """

    def __init__(self) -> None:
        self._cursors: dict[Ages, PruneCursor] = {}

    def get(self, ages: Ages) -> PruneCursor | None:
        """Where the prune before ended; None where it came round."""
        return self._cursors.get(ages)

    def keep(self, ages: Ages, cursor: PruneCursor | None, *, instead_of: PruneCursor | None) -> None:
        """Let the next prune begin there, unless another thread has gone on from the same position meanwhile."""
        if self._cursors.get(ages) is not instead_of:
            return
        if cursor is None:
            self._cursors.pop(ages, None)
        else:
            self._cursors[ages] = cursor
            if len(self._cursors) > CURSORS_MAX:
                self._cursors.pop(next(iter(self._cursors)), None)


def _name(position: Position) -> bytes:
    return str(position[0]).encode()  # the server's order
