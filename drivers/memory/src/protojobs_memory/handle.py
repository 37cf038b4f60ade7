"""What each driver object has of its own: which store it looks at, and what time it takes it to be."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import urlsplit

from protojobs.clock import SYSTEM_CLOCK, Clock
from protojobs.errors import OptionInvalid, shown
from protojobs_memory.state import State

__all__ = ["Handle"]

_shared: dict[str, State] = {}


class Handle:
    """One handle of a store. `time_offset` (seconds) moves its idea of the time, not that of other handles."""

    def __init__(self, url: str = "memory://", *, time_offset: float = 0.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self.state = _state_of(url)
        self.time_offset = time_offset
        self._clock = clock

    def now(self) -> datetime:
        """Store time: this process's clock, never running backwards, plus `time_offset`."""
        with self.state.lock:
            moment = self.state.never_back(self._clock.now())
        return moment + timedelta(seconds=self.time_offset) if self.time_offset else moment


def _state_of(url: str) -> State:
    """A store of one's own for `memory://`, the one that all of this process share for `memory://name`."""
    parts = urlsplit(url)
    if parts.scheme != "memory" or parts.path.strip("/") or parts.query or parts.fragment:
        raise OptionInvalid(
            f"{shown(url)} is no memory URL.", mend='Write "memory://", or "memory://name" to share a store.'
        )
    if not parts.netloc:
        return State()
    # Without a lock, which a child might inherit locked: the first to store one wins.
    return _shared.get(parts.netloc) or _shared.setdefault(parts.netloc, State())
