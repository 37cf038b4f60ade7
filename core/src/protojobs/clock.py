"""The time: the only module that asks for it. All others are given a `Clock`, which a test or simulation may move.

Also the time limit that a caller sets for the store's verbs: `within` for the caller, `time_left` for drivers.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["EPOCH", "SYSTEM_CLOCK", "Clock", "SystemClock", "cpu_s", "microseconds_of", "time_left", "within"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


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

    monotonic = staticmethod(time.monotonic)  # no method of our own around it: it is asked several times for each job

    def now(self) -> datetime:
        """The system's wall clock."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()


def microseconds_of(moment: datetime) -> int:
    """Whole microseconds from 1970 to an aware moment."""
    return (moment - EPOCH) // _MICROSECOND


def cpu_s() -> float:
    """Seconds of processor time that this process has used."""
    return time.process_time()


class _Limit(threading.local):
    ends_at: float | None = None


_limit = _Limit()


class within:  # a word, since it is read as one; as a generator it would cost each push a microsecond more
    """In the block, the verbs that this thread calls give up, with StoreUnavailable, after so many seconds in all.

    Known to the thread rather than handed to each verb: what waits is many calls further down, in a pool, a handshake,
    a read. A driver that does not know of it keeps its own bounds.
    """

    __slots__ = ("_outer", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._outer: float | None = None

    def __enter__(self) -> None:
        """The limit counts from here. One that is set already stays where it ends earlier."""
        self._outer = _limit.ends_at
        ends_at = SYSTEM_CLOCK.monotonic() + self._seconds
        _limit.ends_at = ends_at if self._outer is None else min(self._outer, ends_at)

    def __exit__(self, *error: object) -> None:
        """What was before holds again."""
        _limit.ends_at = self._outer


def time_left(usual_s: float) -> float:
    """How long a driver may wait for something that it usually gives up after `usual_s`: less where `within` says so.

    Never below zero.
    """
    if _limit.ends_at is None:
        return usual_s
    return min(usual_s, max(0.0, _limit.ends_at - SYSTEM_CLOCK.monotonic()))
