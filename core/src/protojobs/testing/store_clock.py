"""A clock that goes by itself, and that moves a store's time along with its own where a test lets time pass."""

from __future__ import annotations

from datetime import datetime, timedelta

from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import NotSupported
from protojobs.port.driver import MovesTime
from protojobs.testing.manual_clock import ManualClock

__all__ = ["StoreClock"]


class StoreClock(ManualClock):
    """The time of a TestQueue on a store that has a time of its own, such as a database's.

    That time cannot stand still. What `advance` adds to it, it adds to the store's too.
    """

    def __init__(self, driver: object) -> None:
        super().__init__(SYSTEM_CLOCK.now())
        self._driver = driver
        self._moved_s = 0.0
        self._wall_moved_s = 0.0

    def monotonic(self) -> float:
        """The process's own, and what `advance` has added."""
        return SYSTEM_CLOCK.monotonic() + self._moved_s

    def now(self) -> datetime:
        """The process's wall clock, and what `advance` has added."""
        return SYSTEM_CLOCK.now() + timedelta(seconds=self._moved_s + self._wall_moved_s)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, here and for the store. Raises NotSupported where the driver cannot do that."""
        if seconds < 0:
            raise ValueError("Time passes forwards; use `set_wall` for a clock that is set back.")
        if not isinstance(self._driver, MovesTime):
            raise NotSupported(
                f"{type(self._driver).__name__} cannot move its store's time.",
                mend="Give it an attribute time_offset, in seconds (protojobs.port.driver.MovesTime).",
            )
        self._driver.time_offset += seconds
        self._moved_s += seconds

    def sleep(self, seconds: float) -> None:
        """Really sleep: what is waited for, such as a server that is away, has no other time."""
        SYSTEM_CLOCK.sleep(seconds)

    def set_wall(self, now: datetime) -> None:
        """Set the wall clock of this process alone, which decides nothing in the store."""
        self._wall_moved_s += (now - self.now()).total_seconds()
