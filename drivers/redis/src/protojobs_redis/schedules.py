"""Schedules in the store: a small part that moves on, field by field as in scripts/scheduling.lua, and a plan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from msgspec import Struct
from msgspec.msgpack import Decoder

from protojobs.port.records import BATCH_JOBS_MAX
from protojobs.port.rules import check_firings, check_schedule_cursor
from protojobs.port.schedules import (
    DueCursor,
    DueSchedules,
    Fired,
    FireStatus,
    Firing,
    Misfire,
    Overlap,
    Schedule,
    SchedulePage,
    UnreadableSchedule,
    apart,
    read_schedule,
)
from protojobs_redis.handle import Handle, check_batch
from protojobs_redis.packing import Time, blob_of, encode, moment, moment_text, pushed, texts

__all__ = ["Schedules"]

PAGE_MAX = 1_000

_OVERLAPS = {"a": Overlap.ALLOW, "s": Overlap.SKIP, "q": Overlap.QUEUE_ONE}
_LETTERS = {overlap: letter for letter, overlap in _OVERLAPS.items()}
_STATUS = {
    "f": FireStatus.FIRED,
    "s": FireStatus.SKIPPED,
    "d": FireStatus.DUPLICATE,
    "l": FireStatus.LOST,
}


class _Step(Struct, array_like=True, gc=False):
    """The small part of a schedule, which scripts read and change. '' is no time: 0 is 1970."""

    next_due_at: Time
    last_due_at: Time
    last_job_id: str
    version: int
    overlap: str
    is_paused: bool


class _Plan(Struct, omit_defaults=True, gc=False):
    """The large part, which only `save_schedule` changes.

    What has its usual value is not stored. These are the values of the layout: they stay as they are when core's
    defaults become others.
    """

    spec: str
    queue: str
    job_name: str
    job_class: str
    data: str
    timezone: str = "UTC"
    misfire: Misfire = Misfire.LATEST
    catch_up: float = 3600.0
    jitter: float = 0.0
    start_at: Time = ""
    end_at: Time = ""
    priority: int = 0
    max_retries: int = 3
    retry_delay: float = 60.0
    retry_policy: str | None = None
    timeout: float = 60.0


_Entry = tuple[bytes, bytes, bytes]  # the id and the two parts: each is read by itself, so one may be broken

_read = Decoder(tuple[int, list[_Entry]])
_page = Decoder(tuple[str, list[_Entry]])
_due = Decoder(tuple[Time, list[_Entry], Time, str, bytes])
_step_of = Decoder(_Step)
_plan_of = Decoder(_Plan)


class Schedules(Handle):
    """The verbs of `protojobs.port.schedules.Schedules`; their promises are written there."""

    def save_schedule(self, schedule: Schedule, *, version: int) -> bool:
        """See Schedules.save_schedule."""
        return (
            self._number("save_schedule", schedule.id, version, encode(_step(schedule)), encode(_plan(schedule))) == 1
        )

    def get_schedules(self, ids: Sequence[str]) -> SchedulePage:
        """See Schedules.get_schedules. Read a few megabytes at a time."""
        check_batch(ids)
        wanted, place = list(dict.fromkeys(ids)), 0
        found: list[_Entry] = []
        while place < len(wanted):
            read, entries = self._packed(_read, "get_schedules", texts(wanted[place:]))
            found += entries
            place += read
        schedules, unreadable = _read_all(found)
        return SchedulePage(schedules=schedules, unreadable=unreadable)

    def list_schedules(self, *, limit: int = 100, cursor: str | None = None) -> SchedulePage:
        """See Schedules.list_schedules. The cursor is the last id of the page.

        A page holds a few megabytes at most, so it may be short and go on.
        """
        check_schedule_cursor(cursor)
        following, entries = self._packed(_page, "list_schedules", cursor or "", max(1, min(limit, PAGE_MAX)))
        schedules, unreadable = _read_all(entries)
        return SchedulePage(schedules=schedules, unreadable=unreadable, cursor=following or None)

    def due_schedules(self, limit: int, *, cursor: DueCursor | None = None) -> DueSchedules:
        """See Schedules.due_schedules. A limit above BATCH_JOBS_MAX is as good as that.

        A cursor's time is the score of the schedule: see scripts/prelude.lua for years after 2255.
        """
        place = (moment_text(cursor.next_due_at), cursor.id) if cursor else ("", "")
        limit = max(0, min(limit, BATCH_JOBS_MAX))
        now, entries, next_due_at, score, last = self._packed(_due, "due_schedules", limit, *place)
        schedules, unreadable = _read_all(entries)
        return DueSchedules(
            now=moment(now),
            schedules=schedules,
            unreadable=unreadable,
            next_due_at=_moment_or_none(next_due_at),
            cursor=DueCursor(moment(score), _text_of(last)) if score else None,
        )

    def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        """See Schedules.fire."""
        check_firings(firings)
        if not firings:
            return []
        said = encode([_said(firing) for firing in firings])
        blobs = [blob_of(firing.job) if firing.job is not None else b"" for firing in firings]
        letters = self._letters("fire", said, *blobs)
        return [Fired(id=firing.id, status=_STATUS[letter]) for firing, letter in zip(firings, letters, strict=True)]

    def remove_schedule(self, schedule_id: str) -> bool:
        """See Schedules.remove_schedule."""
        return self._number("remove_schedule", schedule_id) == 1


def _said(firing: Firing) -> tuple[object, ...]:
    """A firing as scripts/fire.lua reads it."""
    job = pushed(firing.job) if firing.job is not None else ""
    return firing.id, _text(firing.expected_next), _text(firing.due), _text(firing.next_due), job


def _step(schedule: Schedule) -> _Step:
    return _Step(
        next_due_at=_text(schedule.next_due_at),
        last_due_at=_text(schedule.last_due_at),
        last_job_id=schedule.last_job_id or "",
        version=schedule.version,
        overlap=_LETTERS[schedule.overlap],
        is_paused=schedule.is_paused,
    )


def _plan(schedule: Schedule) -> _Plan:
    return _Plan(
        spec=schedule.spec,
        queue=schedule.queue,
        job_name=schedule.job_name,
        job_class=schedule.job_class,
        data=schedule.data,
        timezone=schedule.timezone,
        misfire=schedule.misfire,
        catch_up=schedule.catch_up,
        jitter=schedule.jitter,
        start_at=_text(schedule.start_at),
        end_at=_text(schedule.end_at),
        priority=schedule.priority,
        max_retries=schedule.max_retries,
        retry_delay=schedule.retry_delay,
        retry_policy=schedule.retry_policy,
        timeout=schedule.timeout,
    )


def _read_all(entries: Sequence[_Entry]) -> tuple[tuple[Schedule, ...], tuple[UnreadableSchedule, ...]]:
    return apart(read_schedule(_text_of(entry[0]), partial(_schedule, *entry)) for entry in entries)


def _text_of(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")  # a foreign hand may have written any bytes


def _schedule(name: bytes, stored_step: bytes, stored_plan: bytes) -> Schedule:
    schedule_id, step, plan = name.decode(), _step_of.decode(stored_step), _plan_of.decode(stored_plan)
    return Schedule(
        id=schedule_id,
        spec=plan.spec,
        timezone=plan.timezone,
        misfire=plan.misfire,
        overlap=_OVERLAPS[step.overlap],
        catch_up=plan.catch_up,
        jitter=plan.jitter,
        start_at=_moment_or_none(plan.start_at),
        end_at=_moment_or_none(plan.end_at),
        queue=plan.queue,
        job_name=plan.job_name,
        job_class=plan.job_class,
        data=plan.data,
        priority=plan.priority,
        max_retries=plan.max_retries,
        retry_delay=plan.retry_delay,
        retry_policy=plan.retry_policy,
        timeout=plan.timeout,
        is_paused=step.is_paused,
        next_due_at=_moment_or_none(step.next_due_at),
        last_due_at=_moment_or_none(step.last_due_at),
        last_job_id=step.last_job_id or None,
        version=step.version,
    )


def _text(at: datetime | None) -> str:
    return "" if at is None else moment_text(at)


def _moment_or_none(at: Time) -> datetime | None:
    return None if at == "" else moment(at)
