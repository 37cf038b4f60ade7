"""The only module that asks the time. Everything else is handed a `Clock`, so that tests and simulations own it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock"]


class Clock(Protocol):
    """What core wants to know of time."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never steps back. For waits, leases and durations."""
        ...

    def now(self) -> datetime:
        """The wall clock as an aware UTC datetime. For people, never for deciding who owns a job."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let that much time pass."""
        ...


class SystemClock:
    """The process's own clocks."""

    def monotonic(self) -> float:
        """Seconds of `time.monotonic`."""
        return time.monotonic()

    def now(self) -> datetime:
        """The system's wall clock."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
