"""The stored schedules: look at them, and change one. A change is read, decide, and save if nobody was in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import TypeVar

from msgspec.structs import replace

from protojobs.clock import Clock, within
from protojobs.errors import ContractBroken, ScheduleUnknown, did_you_mean, one_line
from protojobs.port.driver import Store
from protojobs.port.schedules import Schedule, SchedulePage, only
from protojobs.queue.pushing import until_answered
from protojobs.scheduler.planning import next_after_change

__all__ = ["StoredSchedules"]

TRIES = 100  # to save a schedule that others change at the same moment
PAGE = 100
_UNTOUCHED = {"is_paused": False, "next_due_at": None, "last_due_at": None, "last_job_id": None, "version": 0}

T = TypeVar("T")


class StoredSchedules:
    """The schedules of one store. A change has the patience of a push, `patience_s`."""

    def __init__(self, driver: Store, patience_s: float, clock: Clock) -> None:
        self._driver = driver
        self._patience_s = patience_s
        self._clock = clock

    def pages(self) -> Iterator[SchedulePage]:
        """All of them page by page, by id, with those that cannot be read."""
        cursor: str | None = None
        while True:
            page = self._driver.list_schedules(limit=PAGE, cursor=cursor)
            yield page
            if (cursor := page.cursor) is None:
                return

    def __iter__(self) -> Iterator[Schedule]:
        for page in self.pages():
            yield from page.schedules

    def find(self, schedule_id: str) -> Schedule | None:
        """The schedule of that id, or None. Raises ScheduleUnreadable."""
        return only(self._driver.get_schedules([schedule_id]))

    def get(self, schedule_id: str) -> Schedule:
        """The schedule of that id. Raises ScheduleUnknown with the closest id, or ScheduleUnreadable."""
        if (schedule := self.find(schedule_id)) is None:
            ids = [one.id for one in islice(self, 1_000)]
            raise ScheduleUnknown(
                f'There is no schedule "{one_line(schedule_id)}".',
                mend=did_you_mean(schedule_id, ids) or "protojobs schedules list",
            )
        return schedule

    def put(self, wanted: Schedule) -> Schedule:
        """Store it, or find it as it should be; returns it as it is stored."""
        return self._answered(lambda: self._saved(wanted))

    def change(self, schedule_id: str, change: Callable[[Schedule, datetime], Schedule | None]) -> bool:
        """Save what `change` makes of the schedule at the store's time; False when it makes nothing of it."""
        return self._answered(lambda: self._changed(schedule_id, change))

    def remove(self, schedule_id: str) -> bool:
        """Forget the schedule; jobs that it fired stay. False: there was none."""
        return self._answered(lambda: self._driver.remove_schedule(schedule_id))

    def _saved(self, wanted: Schedule) -> Schedule:
        for _ in range(TRIES):
            stored = self.find(wanted.id)
            if stored is not None and replace(stored, **_UNTOUCHED) == wanted:
                return stored
            now, version = self._driver.now(), 0
            new = replace(wanted, next_due_at=next_after_change(wanted, stored, now))
            if stored is not None:
                version = stored.version
                history = {"is_paused": stored.is_paused, "last_due_at": stored.last_due_at}
                new = replace(new, **history, last_job_id=stored.last_job_id)
            if self._driver.save_schedule(new, version=version):
                return replace(new, version=version + 1)
        raise _too_busy(wanted.id)

    def _changed(self, schedule_id: str, change: Callable[[Schedule, datetime], Schedule | None]) -> bool:
        for _ in range(TRIES):
            stored = self.get(schedule_id)
            new = change(stored, self._driver.now())
            if new is None:
                return False
            if self._driver.save_schedule(new, version=stored.version):
                return True
        raise _too_busy(schedule_id)

    def _answered(self, call: Callable[[], T]) -> T:
        with within(self._patience_s):
            return until_answered(call, self._patience_s, self._clock)


def _too_busy(schedule_id: str) -> ContractBroken:
    return ContractBroken(f'schedule "{schedule_id}" changed {TRIES} times while it was to be saved.')
