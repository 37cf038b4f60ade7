"""What bounds a worker, and what its planner tells the claim loop to do next."""

from __future__ import annotations

from msgspec import Struct

from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimedJob
from protojobs.worker.outcome import Outcome, settlement

__all__ = ["PREFETCH_WAIT_S", "SUSPECT_PAUSE_S", "TICK_S", "Plan", "WorkLimits", "released"]

TICK_S = 1.0  # the longest the loop sleeps: memory and time limits are looked at as often
PREFETCH_WAIT_S = 2.0  # a job that waited so long in memory goes back, for others to run
SUSPECT_PAUSE_S = 5.0  # a suspect that no child can run comes back after this where another one is


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
    trips_max: int = 1  # round trips on their way at once


class Plan(Struct, frozen=True, kw_only=True):
    """What to do now, in this order; then wait up to `wait_s` for something to happen."""

    ended: str | None = None  # the reason: stop here
    settle: tuple[Outcome, ...] = ()
    slots: int = 0
    limit: int = 0  # claim so many, `slots` of them for slots that are free
    start: tuple[ClaimedJob, ...] = ()
    short: frozenset[str] = frozenset()  # names of those that may lie ready until a thread is free
    goes_on: bool = False  # jobs wait for slots: do not wait for the store
    call_s: float = float("inf")  # that the call to the store may take, beside the store's own limits
    cut_all: bool = False  # end every running job: the grace is over
    withdraw: bool = False  # take back what was handed over and has not begun
    is_idle: bool = False  # a slot is free: wait for the store to say that a job may be due
    wait_s: float = TICK_S
    gather: int = 1  # so many runs may end before there is anything to do


def released(job: ClaimedJob, reason: str) -> Outcome:
    """Of a job that was lent and not started: it keeps its place in the line, but for a suspect, which comes later."""
    is_suspect = reason == "suspect"
    back = settlement(
        job,
        Verb.RELEASE,
        reason=reason,
        available_at=None if is_suspect else job.available_at,
        delay=SUSPECT_PAUSE_S if is_suspect else 0.0,
    )
    return Outcome(claimed=job, settlement=back)
