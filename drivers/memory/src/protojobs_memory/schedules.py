"""Schedules in a memory store: a dict of them, and their next times in order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import islice, takewhile

from msgspec.structs import replace

from protojobs.port import rules
from protojobs.port.schedules import DueCursor, DueSchedules, Fired, FireStatus, Firing, Schedule, SchedulePage
from protojobs_memory.claiming import enqueue
from protojobs_memory.state import State, after

__all__ = ["due", "fire", "get", "page", "remove", "save"]


def save(state: State, schedule: Schedule, version: int) -> bool:
    """Store the schedule in place of the one of that version; False if that is not its version."""
    before = state.schedules.get(schedule.id)
    if (before.version if before else 0) != version:
        return False
    _put(state, before, replace(schedule, version=version + 1))
    return True


def get(state: State, ids: Sequence[str]) -> SchedulePage:
    """The schedules that exist among the ids."""
    schedules = (state.schedules.get(schedule_id) for schedule_id in dict.fromkeys(ids))
    return SchedulePage(schedules=tuple(filter(None, schedules)))


def page(state: State, limit: int, cursor: str | None) -> SchedulePage:
    """A page of schedules, by id."""
    ids = sorted(schedule_id for schedule_id in state.schedules if cursor is None or schedule_id > cursor)
    schedules = tuple(state.schedules[schedule_id] for schedule_id in ids[:limit])
    return SchedulePage(schedules=schedules, cursor=schedules[-1].id if len(ids) > limit else None)


def due(state: State, now: datetime, limit: int, cursor: DueCursor | None) -> DueSchedules:
    """Due schedules by (next_due_at, id), and when the first of the others will be due."""
    times = state.next_times
    behind = times.above((cursor.next_due_at, cursor.id)) if cursor else iter(times)
    keys = list(islice(takewhile(lambda key: key < after(now), behind), limit + 1))
    ahead = next(times.above(after(now)), None)
    return DueSchedules(
        now=now,
        schedules=tuple(state.schedules[schedule_id] for _, schedule_id in keys[:limit]),
        next_due_at=ahead[0] if ahead else None,
        cursor=DueCursor(*keys[limit - 1]) if 0 < limit < len(keys) else None,
    )


def fire(state: State, now: datetime, firings: Sequence[Firing]) -> list[Fired]:
    """Move schedules on, and store the jobs of their times."""
    results = [_fire_one(state, now, firing) for firing in firings]
    state.wake()
    return results


def _fire_one(state: State, now: datetime, firing: Firing) -> Fired:
    before = state.schedules.get(firing.id)
    last = state.rows.get(before.last_job_id) if before and before.last_job_id else None
    moved, status = rules.fire(
        before,
        firing,
        now,
        last_job=last.state if last else None,
        is_known=firing.job is not None and firing.job.id in state.rows,
    )
    if moved is not None and status is not FireStatus.LOST:
        if status is FireStatus.FIRED and firing.job is not None:
            enqueue(state, now, [firing.job])
        _put(state, before, moved)
    return Fired(id=firing.id, status=status)


def remove(state: State, schedule_id: str) -> bool:
    """Forget the schedule; False if there was none."""
    before = state.schedules.get(schedule_id)
    _put(state, before, None)
    return before is not None


def _put(state: State, before: Schedule | None, schedule: Schedule | None) -> None:
    """Put one in the place of the other, and its next time where due ones are looked for. None is no schedule."""
    for each, change in ((before, state.next_times.remove), (schedule, state.next_times.add)):
        if each is not None and each.next_due_at is not None and not each.is_paused:
            change((each.next_due_at, each.id))
    if schedule is not None:
        state.schedules[schedule.id] = schedule
    elif before is not None:
        del state.schedules[before.id]
