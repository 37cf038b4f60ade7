"""A stored schedule for display: its state, its words and its next times, also where it is invalid on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo

from protojobs.errors import OptionInvalid
from protojobs.names import check_zone
from protojobs.port.schedules import Schedule
from protojobs.timetable.timetable import timetable_of

__all__ = ["SeenSchedule"]


class SeenSchedule:
    """A schedule with its words and times. `problem` says why it has none here; such a one never fires here either."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.words, self.problem = schedule.spec, ""
        self.zone: tzinfo = UTC
        self._table = None
        try:
            self._table = timetable_of(schedule)
            self.words = self._table.words()
            self.zone = check_zone("timezone", schedule.timezone)
        except OptionInvalid as error:
            self.problem = str(error)

    @property
    def state(self) -> str:
        """`broken`, `paused`, `ended` or `active`."""
        if self.problem:
            return "broken"
        if self.schedule.is_paused:
            return "paused"
        return "active" if self.schedule.next_due_at is not None else "ended"

    @property
    def next_due_at(self) -> datetime | None:
        """What it waits for; None for one that does not wait."""
        return self.schedule.next_due_at if self.state == "active" else None

    def times(self, now: datetime) -> Iterator[datetime]:
        """The one that it waits for, and those that come after now.

        Of a paused one those that would come were it resumed now.
        """
        if self._table is None or self.problem:
            return
        if self.schedule.is_paused:
            yield from self._table.upcoming(max(now, self.schedule.last_due_at or now))
        elif self.schedule.next_due_at is not None:
            yield self.schedule.next_due_at
            yield from self._table.upcoming(max(now, self.schedule.next_due_at))
