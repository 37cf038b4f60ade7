"""What a run leads to: the values a job may return to steer itself, and the Outcome that the worker stores."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Generator
from datetime import datetime, timedelta
from typing import TypedDict, Unpack, cast

from msgspec import Struct

from protojobs.errors import ResultInvalid
from protojobs.names import check_seconds
from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimedJob, Settlement

__all__ = ["Details", "Discard", "Outcome", "Retry", "Snooze", "WorkReport", "settlement", "undone"]


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


class Outcome(Struct, frozen=True, kw_only=True):
    """What one run decided. Executors return it and never touch the store; the worker sends its settlement."""

    claimed: ClaimedJob
    settlement: Settlement
    result: object = None
    exception: BaseException | None = None
    duration_s: float = 0.0
    was_run: bool = True  # whether it counts as a run: not where the job's own code could not be called


class WorkReport(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What a `work()` did: jobs completed, jobs given up, runs in all, and why it returned.

    `late`: results that were not recorded because their lease was lost meanwhile; those jobs run again elsewhere.

    `reason`: `empty` (nothing was due), `max_jobs`, `max_time`, `stopped` (its stop token or a signal), `memory`,
    `stuck` (a run could not be ended: its thread still works, see the log).
    """

    done: int
    failed: int
    runs: int
    reason: str
    late: int = 0


class Details(TypedDict, total=False):
    """The fields of a Settlement beside its fence and verb."""

    delay: float
    available_at: datetime | None
    error: str
    fingerprint: str
    reason: str
    counts_return: bool
    counts_crash: bool


def settlement(claimed: ClaimedJob, verb: Verb, **details: Unpack[Details]) -> Settlement:
    """A settlement of this very claim."""
    return Settlement(id=claimed.id, claim_seq=claimed.claim_seq, reserved_by=claimed.reserved_by, verb=verb, **details)


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
