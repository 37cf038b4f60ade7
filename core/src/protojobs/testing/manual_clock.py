"""A clock that stands still until it is told to move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["ManualClock"]

START = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)  # any moment would do; a fixed one makes failures repeat


class ManualClock:
    """A `Clock` of which the test is the owner."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now
        self._monotonic = 0.0

    def monotonic(self) -> float:
        """Seconds that `advance` has moved the clock so far."""
        return self._monotonic

    def now(self) -> datetime:
        """The wall clock, aware and in UTC."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, on both clocks."""
        if seconds < 0:
            raise ValueError("Time passes forwards; use `set_wall` for a clock that is set back.")
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)

    def sleep(self, seconds: float) -> None:
        """Nobody waits: the clock moves on by `seconds`."""
        self.advance(seconds)

    def set_wall(self, now: datetime) -> None:
        """Set the wall clock alone, as an administrator or NTP would."""
        self._now = now
