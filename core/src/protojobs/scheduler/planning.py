"""Plans what a due schedule does now: which of its times fire, which are missed, and which time comes next.

Plain functions of a schedule and the store's time, so that every ticker comes to the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec

from protojobs.clock import microseconds_of
from protojobs.entropy import stable_fraction, stable_id
from protojobs.port.records import NewJob
from protojobs.port.schedules import Misfire, Schedule
from protojobs.queue.pushing import job_like
from protojobs.timetable.timetable import Timetable, timetable_of

__all__ = ["LATE_S", "Step", "due_times", "firing_id", "job_of", "next_after_change", "plan"]

LATE_S = 120.0  # a time that fires within so many seconds is on time: cron itself calls but once a minute
_MICROSECOND = timedelta(microseconds=1)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule goes from the time that it waited for over `due` to `next_due`. `fires`: at `due` there is a job."""

    expected_next: datetime
    due: datetime
    next_due: datetime | None
    fires: bool = True
    missed: int = 0  # times passed over; 1,000: or more


def plan(schedule: Schedule, now: datetime, limit: int) -> list[Step]:
    """The steps that lead a due schedule beyond `now`, or the first `limit` of them.

    Raises OptionInvalid when its spec or zone means nothing here.
    """
    first = schedule.next_due_at
    assert first is not None
    table = timetable_of(schedule)
    window_s = LATE_S if schedule.misfire is Misfire.SKIP else max(schedule.catch_up, LATE_S)
    oldest = now - timedelta(seconds=window_s)
    if schedule.misfire is Misfire.ALL:
        due = first if first >= oldest else table.after(oldest - _MICROSECOND)
        if due is not None and due <= now:
            return _each(table, first, due, now, limit)
    last = table.last_of(first, now)
    fires = last >= oldest
    missed = table.count(first, last) + (not fires)
    return [Step(expected_next=first, due=last, next_due=table.after(last), fires=fires, missed=missed)]


def _each(table: Timetable, first: datetime, due: datetime, now: datetime, limit: int) -> list[Step]:
    steps: list[Step] = []
    expected: datetime = first
    while len(steps) < limit:
        following = table.after(due)
        missed = table.count(first, due) if not steps else 0
        steps.append(Step(expected_next=expected, due=due, next_due=following, missed=missed))
        if following is None or following > now:
            break
        expected = due = following
    return steps


def next_after_change(schedule: Schedule, before: Schedule | None, now: datetime) -> datetime | None:
    """What a schedule waits for after it was registered. Unchanged times keep it; else nothing fires at once.

    An interval keeps its grid unless it is another interval; a new one begins now.
    """
    if before is not None and _times(before) == _times(schedule):
        return before.next_due_at
    base = now if before is None or before.last_due_at is None else max(now, before.last_due_at)
    grid = before.next_due_at or before.last_due_at if before is not None and before.spec == schedule.spec else None
    table = Timetable(
        schedule.spec, schedule.timezone, start=schedule.start_at, end=schedule.end_at, anchor=grid or base
    )
    return table.after(base)


def _times(schedule: Schedule) -> tuple[object, ...]:
    return schedule.spec, schedule.timezone, schedule.start_at, schedule.end_at


def firing_id(schedule_id: str, due: datetime) -> str:
    """The id of the job of that time: whoever fires it makes the same one."""
    return stable_id(schedule_id, microseconds_of(due))


def job_of(schedule: Schedule, job_id: str, due: datetime | None = None) -> NewJob:
    """The job of one time of the schedule, or, without `due`, one that a person asks for."""
    meta = {"schedule": schedule.id} | ({"due_at": due.isoformat()} if due is not None else {})
    at = None
    if due is not None:
        at = due + timedelta(seconds=schedule.jitter * stable_fraction(schedule.id, due.isoformat()))
    return job_like(schedule, job_id, available_at=at, meta=msgspec.json.encode(meta).decode())


def due_times(schedule: Schedule) -> Iterator[datetime]:
    """The times that a stored schedule waits for, from its next one on."""
    if schedule.next_due_at is not None:
        yield schedule.next_due_at
        yield from timetable_of(schedule).upcoming(schedule.next_due_at)
