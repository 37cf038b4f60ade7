"""Examines a store, its workers and the settings: a list of findings, each with the way to mend it. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from protojobs.clock import within
from protojobs.doctor.settings import of_plugins, of_schedules, of_settings
from protojobs.doctor.work import of_jobs, of_pruning, of_queues, of_workers
from protojobs.errors import ConfigurationError, ContractBroken, SchemaOutdated
from protojobs.port.diagnosis import Diagnoses, Finding, Severity, judged

if TYPE_CHECKING:
    from protojobs.queue.queue import JobQueue

__all__ = ["examine"]

EXAMINED_WITHIN_S = 30.0  # all of it; each look is a few milliseconds on a healthy store
_TRIES = 5  # round trips of which the quickest counts: the others tell of this machine's other work
_SKEW_MAX_S = 1.0
_TRIP_MAX_S = 0.02  # every claim of a worker waits for one


def examine(queue: JobQueue) -> list[Finding]:
    """Everything that was looked at, the worst first; what is in order too. Bounded, whatever the store holds.

    Raises StoreUnavailable when the store does not answer.
    """
    with within(EXAMINED_WITHIN_S):
        return sorted(_examined(queue), key=lambda finding: -finding.severity)


def _examined(queue: JobQueue) -> Iterator[Finding]:
    yield from of_settings(queue.settings)
    yield from of_plugins(queue)
    try:
        queue.driver.workers()  # which, other than asking the time, wants the tables to be there
    except SchemaOutdated as error:
        yield _of_schema(error)
        return
    except (ConfigurationError, ContractBroken) as error:  # a server that the driver refuses to keep jobs on
        yield Finding(code="store_refused", severity=Severity.ERROR, what=error.message, mend=error.mend)
        return
    for look in (_clock, _store, _sharing, of_workers, of_queues, of_jobs, of_schedules, of_pruning):
        try:
            yield from look(queue)
        except SchemaOutdated as error:
            yield _of_schema(error)
            return  # whatever is asked next, this is the answer
        except (ConfigurationError, ContractBroken) as error:
            what = f"Not everything could be looked at. {error.message}"
            yield Finding(code="not_examined", severity=Severity.WARNING, what=what, mend=error.mend)


def _of_schema(error: SchemaOutdated) -> Finding:
    return Finding(code="schema", severity=Severity.ERROR, what=error.message, mend=error.mend)


def _clock(queue: JobQueue) -> Iterator[Finding]:
    """The store's clock against this machine's. Measured around the round trip: latency is no skew."""
    trip_s, ahead_s = min(_compared(queue) for _ in range(_TRIES))
    if queue.driver.capabilities.server_time:
        is_apart = abs(ahead_s) - trip_s / 2 > _SKEW_MAX_S
        side = "ahead of" if ahead_s > 0 else "behind"
        yield judged(
            "clock_skew",
            f"The store's clock is {abs(ahead_s):.3f} s {side} this machine's (give or take {trip_s / 2:.3f} s).",
            is_good=not is_apart,
            why="Due times and leases go by the store's clock alone; a time that your code computes here is off by it.",
            mend="Let both machines follow a time server (chrony, systemd-timesyncd).",
        )
    is_slow = trip_s > _TRIP_MAX_S
    yield judged(
        "round_trip",
        f"The quickest of {_TRIES} round trips to the store took {trip_s * 1000:.1f} ms.",
        is_good=not is_slow,
        why="A worker waits for one with every claim, a push for one with every job.",
        mend="Run the workers near the store, push with push_many, or raise concurrency.",
    )


def _compared(queue: JobQueue) -> tuple[float, float]:
    """(how long the question took, how far the store's clock is ahead of the middle of that)."""
    asked_at, began_s = queue.clock.now(), queue.clock.monotonic()
    store_now = queue.driver.now()
    trip_s = queue.clock.monotonic() - began_s
    return trip_s, (store_now - asked_at).total_seconds() - trip_s / 2


def _sharing(queue: JobQueue) -> Iterator[Finding]:
    """A store that one process has for itself works as it should, as long as nobody starts a second one."""
    if not queue.driver.capabilities.cross_process:
        yield Finding(
            code="own_process",
            severity=Severity.NOTE,
            what="Only the process that has this store open sees its jobs.",
            why="Workers, the dashboard and commands in other processes see none of them, or are refused.",
            mend="Work in the process that pushes (queue.work), or use a store that processes share.",
        )


def _store(queue: JobQueue) -> Iterator[Finding]:
    """What the driver says of its store."""
    if isinstance(queue.driver, Diagnoses):
        yield from queue.driver.diagnose()
        return
    yield Finding(
        code="driver_silent",
        severity=Severity.NOTE,
        what=f"{type(queue.driver).__name__} does not examine its store: only what every driver tells was looked at.",
    )
