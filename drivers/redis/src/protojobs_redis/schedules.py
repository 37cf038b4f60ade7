"""Schedules in the store: each in a small part that moves on, as in scripts/scheduling.lua, and a plan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from msgspec import Struct, convert
from msgspec.msgpack import Decoder
from msgspec.structs import asdict

from protojobs.port.records import BATCH_JOBS_MAX
from protojobs.port.rules import check_batch, check_firings, check_schedule_cursor
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
from protojobs_redis.packing import Time, blob_of, encode, moment, moment_text, pushed, texts
from protojobs_redis.runner import ScriptRunner

__all__ = ["due", "fire", "get", "page", "remove", "save"]

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
_TIMES = ("start_at", "end_at", "next_due_at", "last_due_at")
_step_of = Decoder(_Step)
_plan_of = Decoder(_Plan)


def save(scripts: ScriptRunner, schedule: Schedule, version: int) -> bool:
    """Store the schedule in place of the one of that version; False if that is not its version."""
    stored = scripts.number("save_schedule", schedule.id, version, encode(_step(schedule)), encode(_plan(schedule)))
    return stored == 1


def get(scripts: ScriptRunner, ids: Sequence[str]) -> SchedulePage:
    """The schedules that exist among the ids. Read a few megabytes at a time."""
    check_batch(ids)
    wanted, first = list(dict.fromkeys(ids)), 0
    entries: list[_Entry] = []
    while first < len(wanted):
        read, page = scripts.decoded(_read, "get_schedules", texts(wanted[first:]))
        entries += page
        first += read
    schedules, unreadable = _read_all(entries)
    return SchedulePage(schedules=schedules, unreadable=unreadable)


def page(scripts: ScriptRunner, limit: int, cursor: str | None) -> SchedulePage:
    """A page of schedules, by id. The cursor is the last id of the page.

    A page holds a few megabytes at most, so it may be short and go on.
    """
    check_schedule_cursor(cursor)
    following, entries = scripts.decoded(_page, "list_schedules", cursor or "", max(1, min(limit, PAGE_MAX)))
    schedules, unreadable = _read_all(entries)
    return SchedulePage(schedules=schedules, unreadable=unreadable, cursor=following or None)


def due(scripts: ScriptRunner, limit: int, cursor: DueCursor | None) -> DueSchedules:
    """Due schedules by (next_due_at, id), at most BATCH_JOBS_MAX; and when the first of the others will be due.

    A cursor's time is the score of the schedule: see scripts/prelude.lua for years after 2255.
    """
    after = (moment_text(cursor.next_due_at), cursor.id) if cursor else ("", "")
    limit = max(0, min(limit, BATCH_JOBS_MAX))
    now, entries, next_due_at, score, last = scripts.decoded(_due, "due_schedules", limit, *after)
    schedules, unreadable = _read_all(entries)
    return DueSchedules(
        now=moment(now),
        schedules=schedules,
        unreadable=unreadable,
        next_due_at=_moment_or_none(next_due_at),
        cursor=DueCursor(moment(score), _text_of(last)) if score else None,
    )


def fire(scripts: ScriptRunner, firings: Sequence[Firing]) -> list[Fired]:
    """Move schedules on, and store the jobs of their times."""
    check_firings(firings)
    if not firings:
        return []
    packed = encode([_packed_firing(firing) for firing in firings])
    blobs = [blob_of(firing.job) if firing.job is not None else b"" for firing in firings]
    letters = scripts.letters("fire", packed, *blobs)
    return [Fired(id=firing.id, status=_STATUS[letter]) for firing, letter in zip(firings, letters, strict=True)]


def remove(scripts: ScriptRunner, schedule_id: str) -> bool:
    """Forget the schedule; False if there was none."""
    return scripts.number("remove_schedule", schedule_id) == 1


def _packed_firing(firing: Firing) -> tuple[object, ...]:
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
    times = {"start_at": _text(schedule.start_at), "end_at": _text(schedule.end_at)}
    return convert(asdict(schedule) | times, _Plan)


def _read_all(entries: Sequence[_Entry]) -> tuple[tuple[Schedule, ...], tuple[UnreadableSchedule, ...]]:
    return apart(read_schedule(_text_of(entry[0]), partial(_schedule, *entry)) for entry in entries)


def _text_of(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")  # a foreign hand may have written any bytes


def _schedule(name: bytes, stored_step: bytes, stored_plan: bytes) -> Schedule:
    schedule_id, step, plan = name.decode(), _step_of.decode(stored_step), _plan_of.decode(stored_plan)
    values = asdict(plan) | asdict(step) | {"id": schedule_id, "overlap": _OVERLAPS[step.overlap]}
    values |= {each: _moment_or_none(values[each]) for each in _TIMES}
    return convert(values | {"last_job_id": step.last_job_id or None}, Schedule)


def _text(at: datetime | None) -> str:
    return "" if at is None else moment_text(at)


def _moment_or_none(at: Time) -> datetime | None:
    return None if at == "" else moment(at)
