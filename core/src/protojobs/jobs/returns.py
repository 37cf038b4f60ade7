"""What a job may return to say how its run ends: Snooze, Retry or Discard; and returned values that cannot be right."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Generator
from datetime import timedelta
from typing import cast

from msgspec import Struct

from protojobs.errors import ResultInvalid
from protojobs.names import check_seconds

__all__ = ["Discard", "Retry", "Snooze", "undone"]


class Snooze(Struct, frozen=True):
    """Return this to run again in `in_` seconds without spending an attempt."""

    in_: float | timedelta

    def __post_init__(self) -> None:
        check_seconds("Snooze", self.in_)


class Retry(Struct, frozen=True):
    """Return this to run again in `in_` seconds (by default after the job's backoff). Spends an attempt.

    On the last attempt it is a failure.
    """

    in_: float | timedelta | None = None

    def __post_init__(self) -> None:
        if self.in_ is not None:
            check_seconds("Retry", self.in_)


class Discard(Struct, frozen=True):
    """Return this to end the job as cancelled: its work is no longer wanted, and that is no failure."""

    reason: str = ""


def undone(result: object) -> ResultInvalid | None:
    """What is wrong with a returned value that means that the job's code has not run, or has not said what it wants.

    A plain function that returns a coroutine was async before somebody decorated it.
    """
    kind = type(result).__name__
    if isinstance(result, Awaitable):
        result = cast("object", result)
        if inspect.iscoroutine(result) and inspect.getcoroutinestate(result) == inspect.CORO_CREATED:
            result.close()  # else Python warns that it was never awaited
        return ResultInvalid(
            f"it returned a {kind} that nobody awaits, so the work in it is not done.",
            mend="Await it in an `async def`. A decorator around one must be async too, and await what it calls.",
        )
    if isinstance(result, Generator | AsyncGenerator):
        return ResultInvalid(
            f"it returned a {kind} that nobody goes through, so the work in it is not done.",
            mend="Go through it in the job, or push a job for each part.",
        )
    if isinstance(result, type) and issubclass(result, Snooze | Retry | Discard):
        example = "Snooze(30)" if issubclass(result, Snooze) else f"{result.__name__}()"
        return ResultInvalid(
            f"it returned the class {result.__name__}, not one of it.", mend=f"Write `return {example}`."
        )
    return None
