"""What bounds a worker, and what its mind tells its hands to do next."""

from __future__ import annotations

from msgspec import Struct

from protojobs.outcomes import Outcome
from protojobs.records import ClaimedJob

__all__ = ["TICK_S", "Plan", "WorkLimits"]

TICK_S = 1.0  # the longest the loop sleeps: memory and time limits are looked at as often


class WorkLimits(Struct, frozen=True, kw_only=True):
    """How much, how long, and when to end."""

    concurrency: int
    poll_s: float
    grace_s: float
    exit_bound_s: float
    max_jobs: int | None = None  # runs
    max_time_s: float | None = None
    ends_when_empty: bool = False
    is_sync: bool = False  # settle = "sync": a slot is free again only when its result is stored
    isolates: bool = False  # suspects run in children of their own, and so need not run alone


class Plan(Struct, frozen=True, kw_only=True):
    """What to do now, in this order; then wait up to `wait_s` for something to happen."""

    ended: str | None = None  # the reason: stop here
    settle: tuple[Outcome, ...] = ()
    slots: int = 0
    limit: int = 0  # claim so many, `slots` of them for slots that are free
    start: tuple[ClaimedJob, ...] = ()
    leads: int = 0  # so many of those, the last ones, find no slot free yet
    call_s: float = float("inf")  # that the call to the store may take, beside the store's own limits
    cut_all: bool = False  # end every running job: the grace is over
    withdraw: bool = False  # take back what was handed over and has not begun
    is_idle: bool = False  # a slot is free: listen for the doorbell
    wait_s: float = TICK_S
    gather: int = 1  # so many runs may end before there is anything to do
