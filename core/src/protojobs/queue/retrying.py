"""Asking a store again that did not answer, within a bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from protojobs.clock import Clock
from protojobs.entropy import jittered
from protojobs.errors import StoreUnavailable

__all__ = ["until_answered"]

T = TypeVar("T")
FIRST_PAUSE_S, PAUSE_MAX_S = 0.05, 2.0


def until_answered(call: Callable[[], T], within_s: float, clock: Clock) -> T:
    """`call()`, again and again while it raises StoreUnavailable, with growing pauses; the last error after `within_s`.

    Only for calls that may be repeated after an unknown outcome.
    """
    ends = clock.monotonic() + within_s
    pause = FIRST_PAUSE_S
    while True:
        try:
            return call()
        except StoreUnavailable:
            wait = jittered(pause)
            if clock.monotonic() + wait >= ends:
                raise
            clock.sleep(wait)
            pause = min(2 * pause, PAUSE_MAX_S)
