"""Schedules in a memory store: a dict of them, and their next times in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import islice, takewhile

from msgspec.structs import replace

from protojobs.port.records import Enqueued, NewJob
from protojobs.port.rules import check_batch, check_firings, check_schedule_cursor, fire
from protojobs.port.schedules import DueCursor, DueSchedules, Fired, FireStatus, Firing, Schedule, SchedulePage
from protojobs_memory.handle import Handle
from protojobs_memory.state import after

__all__ = ["Schedules"]


class Schedules(Handle, ABC):
    """The verbs of `protojobs.port.schedules.Schedules`; their promises are written there."""

    @abstractmethod
    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """See Driver.enqueue."""

    def save_schedule(self, schedule: Schedule, *, version: int) -> bool:
        """See Schedules.save_schedule."""
        with self.state.lock:
            known = self.state.schedules.get(schedule.id)
            if (known.version if known else 0) != version:
                return False
            self._keep(known, replace(schedule, version=version + 1))
            return True

    def get_schedules(self, ids: Sequence[str]) -> SchedulePage:
        """See Schedules.get_schedules."""
        check_batch(ids)
        with self.state.lock:
            found = (self.state.schedules.get(name) for name in dict.fromkeys(ids))
            return SchedulePage(schedules=tuple(filter(None, found)))

    def list_schedules(self, *, limit: int = 100, cursor: str | None = None) -> SchedulePage:
        """See Schedules.list_schedules. The cursor is the last id of the page."""
        check_schedule_cursor(cursor)
        with self.state.lock:
            names = sorted(name for name in self.state.schedules if cursor is None or name > cursor)
            page = tuple(self.state.schedules[name] for name in names[:limit])
            return SchedulePage(schedules=page, cursor=page[-1].id if len(names) > limit else None)

    def due_schedules(self, limit: int, *, cursor: DueCursor | None = None) -> DueSchedules:
        """See Schedules.due_schedules."""
        times = self.state.next_times
        with self.state.lock:
            now = self.now()
            behind = times.above((cursor.next_due_at, cursor.id)) if cursor else iter(times)
            due = list(islice(takewhile(lambda key: key < after(now), behind), limit + 1))
            ahead = next(times.above(after(now)), None)
            return DueSchedules(
                now=now,
                schedules=tuple(self.state.schedules[name] for _, name in due[:limit]),
                next_due_at=ahead[0] if ahead else None,
                cursor=DueCursor(*due[limit - 1]) if 0 < limit < len(due) else None,
            )

    def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        """See Schedules.fire."""
        check_firings(firings)
        with self.state.lock:
            answers = [self._fire_one(said) for said in firings]
            self.state.ring()
            return answers

    def _fire_one(self, said: Firing) -> Fired:
        state, now = self.state, self.now()
        known = state.schedules.get(said.id)
        last = state.rows.get(known.last_job_id) if known and known.last_job_id else None
        moved, status = fire(
            known,
            said,
            now,
            last_job=last.state if last else None,
            is_known=said.job is not None and said.job.id in state.rows,
        )
        if moved is not None and status is not FireStatus.LOST:
            if status is FireStatus.FIRED and said.job is not None:
                self.enqueue([said.job])  # the way of every job; the lock is ours already
            self._keep(known, moved)
        return Fired(id=said.id, status=status)

    def remove_schedule(self, schedule_id: str) -> bool:
        """See Schedules.remove_schedule."""
        with self.state.lock:
            known = self.state.schedules.get(schedule_id)
            self._keep(known, None)
            return known is not None

    def _keep(self, before: Schedule | None, after_it: Schedule | None) -> None:
        """Put one in the place of the other, and its next time where due ones are looked for."""
        for schedule, change in ((before, self.state.next_times.remove), (after_it, self.state.next_times.add)):
            if schedule is not None and schedule.next_due_at is not None and not schedule.is_paused:
                change((schedule.next_due_at, schedule.id))
        if after_it is not None:
            self.state.schedules[after_it.id] = after_it
        elif before is not None:
            del self.state.schedules[before.id]
