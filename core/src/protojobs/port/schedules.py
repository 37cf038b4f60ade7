"""The part of the port about schedules: the values that cross, and the verbs that keep them.

A driver keeps a schedule and moves it on, in one step with the job that it fires. It never reads `spec`: what the times
are is core's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from msgspec import MsgspecError, Struct

from protojobs.errors import ScheduleUnreadable
from protojobs.port.records import NewJob

__all__ = [
    "SCHEDULE_BYTES_MAX",
    "SCHEDULE_ID_BYTES_MAX",
    "WHY_CHARS_MAX",
    "DueCursor",
    "DueSchedules",
    "FireStatus",
    "Fired",
    "Firing",
    "Misfire",
    "Overlap",
    "Schedule",
    "SchedulePage",
    "Schedules",
    "UnreadableSchedule",
    "apart",
    "only",
    "read_schedule",
]

SCHEDULE_ID_BYTES_MAX = 200
WHY_CHARS_MAX = 300  # of what does not fit in an unreadable schedule
SCHEDULE_BYTES_MAX = 32 * 1024  # of a schedule's data, so that a hundred that are due at once fit one batch


class Misfire(StrEnum):
    """What becomes of times within the catch-up window that came while nobody ticked. Older ones are missed."""

    LATEST = "latest"  # the last of them fires
    ALL = "all"  # each of them fires, the oldest first
    SKIP = "skip"  # none: what is more than two minutes late is missed


class Overlap(StrEnum):
    """What a due time does while the job that was fired before it is not finished."""

    ALLOW = "allow"  # it fires
    SKIP = "skip"  # it is passed over while that job waits or runs
    QUEUE_ONE = "queue_one"  # it is passed over while that job waits, so that at most one waits


class Schedule(Struct, frozen=True, kw_only=True):
    """A schedule as it stands in the store: when, what, and what became of it. Times are store time, UTC."""

    id: str
    spec: str  # "every 3600", or a cron expression
    timezone: str = "UTC"  # the IANA zone in which a cron expression is read
    misfire: Misfire = Misfire.LATEST
    overlap: Overlap = Overlap.ALLOW
    catch_up: float = 3600.0  # seconds: how late a time may still fire
    jitter: float = 0.0  # seconds: the job is due up to so much after the time, the same for whoever fires it
    start_at: datetime | None = None  # no time before it; an interval is counted from it
    end_at: datetime | None = None  # no time after it

    queue: str
    job_name: str
    job_class: str
    data: str
    priority: int = 0
    max_retries: int = 3
    retry_delay: float = 60.0
    retry_policy: str | None = None
    timeout: float = 60.0

    is_paused: bool = False
    next_due_at: datetime | None = None  # None: it has ended
    last_due_at: datetime | None = None  # the latest time that was fired or passed over; none at or before it fires
    last_job_id: str | None = None  # the job of the latest time that fired
    version: int = 0  # one more with every change; 0 before it is stored


class UnreadableSchedule(Struct, frozen=True, kw_only=True):
    """A stored schedule that makes no `Schedule` here: a newer release wrote it, or a foreign hand. It does not fire.

    It stands in the place of its schedule in every answer, so that one of them hides no other.
    """

    id: str
    why: str  # what does not fit, at most WHY_CHARS_MAX characters


class SchedulePage(Struct, frozen=True, kw_only=True):
    """A page of schedules, by id. `cursor` is None on the last page. The unreadable ones count towards its limit."""

    schedules: tuple[Schedule, ...] = ()
    unreadable: tuple[UnreadableSchedule, ...] = ()
    cursor: str | None = None


class DueCursor(Struct, frozen=True):
    """A place among those that are due: behind the schedule of this time and id, whether it is still there or not."""

    next_due_at: datetime
    id: str


class DueSchedules(Struct, frozen=True, kw_only=True):
    """The schedules that are due at `now`, and when the first of those that are not will be.

    The unreadable ones count towards the limit. `cursor` is the place of the last one where more are due, else None.
    """

    now: datetime
    schedules: tuple[Schedule, ...] = ()
    unreadable: tuple[UnreadableSchedule, ...] = ()
    next_due_at: datetime | None = None
    cursor: DueCursor | None = None


class Firing(Struct, frozen=True, kw_only=True):
    """One step of a schedule: from the time that it waited for, over `due`, to the next one.

    Where times were missed `due` lies behind `expected_next`. Without a job the time is passed over.
    """

    id: str  # of the schedule
    expected_next: datetime  # what its next_due_at must be for anything to happen
    due: datetime
    next_due: datetime | None  # later than `due`; None: it was the last one
    job: NewJob | None = None


class FireStatus(StrEnum):
    """What a firing did."""

    FIRED = "fired"  # the job is stored, the schedule moved on
    SKIPPED = "skipped"  # passed over, for its overlap or for want of a job; the schedule moved on
    DUPLICATE = "duplicate"  # the job of this time is stored already; the schedule moved on
    LOST = "lost"  # somebody else was faster, or it is paused, gone or not due: nothing was done


class Fired(Struct, frozen=True, kw_only=True):
    """The answer to one firing."""

    id: str  # of the schedule
    status: FireStatus


class Schedules(Protocol):
    """Keeping schedules, and moving them on. What a `spec` means, no driver knows: core computes the times.

    A stored one that cannot be made a `Schedule` is answered as an `UnreadableSchedule`, and raises nothing:
    `read_schedule` makes the one or the other. No firing moves it on; it can be removed.
    """

    def save_schedule(self, schedule: Schedule, *, version: int) -> bool:
        """Store `schedule` in place of the one whose `version` that is; 0: there is none of its id yet.

        The stored one's version is one higher. False: it is not of that version (any more), and nothing was done.
        """
        ...

    def get_schedules(self, ids: Sequence[str]) -> SchedulePage:
        """The schedules that exist among `ids` (at most 1,000), in any order, all in one page."""
        ...

    def list_schedules(self, *, limit: int = 100, cursor: str | None = None) -> SchedulePage:
        """A page of schedules by id, byte by byte."""
        ...

    def due_schedules(self, limit: int, *, cursor: DueCursor | None = None) -> DueSchedules:
        """Up to `limit` schedules that are due and not paused, by (next_due_at, id), and the store's now.

        With a `cursor` those behind it, so that what stays due in front holds up nothing. And when the first of those
        that are not due will be, however many due ones were left out. By an index on `(next_due_at, id)`: what it costs
        depends on how many are due, not on how many there are.
        """
        ...

    def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        """Move schedules on, each in one atomic step with the jobs of its times; answers in order.

        Each firing, one after the other: the schedule must exist, not be paused, and wait for `expected_next`; `due`
        must have come and be later than its `last_due_at`: else `lost`, and nothing is done. The overlap is decided by
        the state of its `last_job_id` in this very step: `skip` passes over while that job is pending (or moving) or
        processing, `queue_one` while it is pending. Then `next_due_at` becomes `next_due`, `last_due_at` becomes `due`,
        `last_job_id` the job's id if there is one that was not passed over, version + 1. A job whose id is known is not
        stored again. Wakes who waits for the queues. Several firings of one schedule may follow each other.

        At most BATCH_JOBS_MAX firings and BATCH_BYTES_MAX payload bytes. `port.rules.fire` says the same as code.
        """
        ...

    def remove_schedule(self, schedule_id: str) -> bool:
        """Forget the schedule; jobs that it fired stay. False: there was none."""
        ...


def read_schedule(schedule_id: str, read: Callable[[], Schedule]) -> Schedule | UnreadableSchedule:
    """For drivers: the schedule that `read` makes of what is stored, or, where it raises, what does not fit.

    `msgspec.convert(fields, Schedule)` refuses every field of another type, which a store with loose types may hold.
    """
    try:
        return read()
    except (MsgspecError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        return UnreadableSchedule(id=schedule_id, why=f"{type(error).__name__}: {error}"[:WHY_CHARS_MAX])


def apart(
    found: Iterable[Schedule | UnreadableSchedule],
) -> tuple[tuple[Schedule, ...], tuple[UnreadableSchedule, ...]]:
    """For drivers: those that could be read, and the others."""
    schedules: list[Schedule] = []
    unreadable: list[UnreadableSchedule] = []
    for one in found:
        if isinstance(one, Schedule):
            schedules.append(one)
        else:
            unreadable.append(one)
    return tuple(schedules), tuple(unreadable)


def only(page: SchedulePage) -> Schedule | None:
    """The one schedule that was asked for. Raises ScheduleUnreadable."""
    for one in page.unreadable:
        raise ScheduleUnreadable(
            f'schedule "{one.id}" is stored in a form that cannot be read here: {one.why}.',
            mend=f"If no newer release has stored it: protojobs schedules remove {one.id}",
        )
    return next(iter(page.schedules), None)
