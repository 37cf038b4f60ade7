"""Schedules on an LMDB file: each under its id, and those that wait for a time under that time as well."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import islice

from msgspec import convert, msgpack
from msgspec.structs import replace

from protojobs.port import rules
from protojobs.port.schedules import (
    DueCursor,
    DueSchedules,
    Fired,
    FireStatus,
    Firing,
    Schedule,
    SchedulePage,
    UnreadableSchedule,
    apart,
    read_schedule,
)
from protojobs_lmdb.file import Handle
from protojobs_lmdb.rows import EPOCH, MICROSECOND, Row, Step, id_in, key_of


class Schedules(Handle):
    def save_schedule(self, schedule: Schedule, *, version: int) -> bool:
        with self.step(write=True) as step:
            known = find(step, schedule.id)
            if isinstance(known, UnreadableSchedule) or (known.version if known else 0) != version:
                return False
            put(step, known, replace(schedule, version=version + 1))
            return True

    def get_schedules(self, ids: Sequence[str]) -> SchedulePage:
        with self.step() as step:
            schedules, unreadable = read(step, list(dict.fromkeys(rules.check_batch(ids))))
            return SchedulePage(schedules=schedules, unreadable=unreadable)

    def list_schedules(self, *, limit: int = 100, cursor: str | None = None) -> SchedulePage:
        rules.check_schedule_cursor(cursor)
        with self.step() as step:
            start = key_of("schedule", cursor) + b"\0" if cursor else b""
            names = [id_in(key) for key in islice(step.keys("schedule", start=start), limit + 1)]
            page, unreadable = read(step, names[:limit])
            more = names[limit - 1] if len(names) > limit else None
            return SchedulePage(schedules=page, unreadable=unreadable, cursor=more)

    def due_schedules(self, limit: int, *, cursor: DueCursor | None = None) -> DueSchedules:
        with self.step() as step:
            after = step.now + MICROSECOND
            start = key_of("next", cursor.next_due_at, cursor.id) + b"\0" if cursor else b""
            due = [place_of(key) for key in islice(step.keys("next", start=start, before=after), limit + 1)]
            schedules, unreadable = read(step, [place.id for place in due[:limit]])
            ahead = next(step.keys("next", start=key_of("next", after)), None)
            return DueSchedules(
                now=step.now,
                schedules=schedules,
                unreadable=unreadable,
                next_due_at=place_of(ahead).next_due_at if ahead else None,
                cursor=due[limit - 1] if 0 < limit < len(due) else None,
            )

    def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        rules.check_firings(firings)
        with self.step(write=True) as step:
            return [Fired(id=firing.id, status=fire(step, firing)) for firing in firings]

    def remove_schedule(self, schedule_id: str) -> bool:
        with self.step(write=True) as step:
            known = find(step, schedule_id)
            if isinstance(known, UnreadableSchedule):  # who knows which time it waits for
                for key in [key for key in step.keys("next") if id_in(key) == schedule_id]:
                    step.txn.delete(key)
                return step.txn.delete(key_of("schedule", schedule_id))
            put(step, known, None)
            return known is not None


def fire(step: Step, firing: Firing) -> FireStatus:
    known = find(step, firing.id)
    if isinstance(known, UnreadableSchedule):
        return FireStatus.LOST
    last = step.row(known.last_job_id) if known and known.last_job_id else None
    is_known = firing.job is not None and step.row(firing.job.id) is not None
    after, status = rules.fire(known, firing, step.now, last_job=last.status if last else None, is_known=is_known)
    put(step, known, after)
    if status is FireStatus.FIRED and firing.job is not None:
        step.write(None, convert(rules.new_row(firing.job, step.now), Row, from_attributes=True))
    return status


def find(step: Step, schedule_id: str) -> Schedule | UnreadableSchedule | None:
    packed = step.txn.get(key_of("schedule", schedule_id))
    return None if packed is None else read_schedule(schedule_id, lambda: msgpack.decode(packed, type=Schedule))


def read(step: Step, ids: Sequence[str]) -> tuple[tuple[Schedule, ...], tuple[UnreadableSchedule, ...]]:
    return apart(known for name in ids if (known := find(step, name)))


def place_of(key: bytes) -> DueCursor:
    """Where a key of those that wait for a time stands."""
    return DueCursor(EPOCH + timedelta(microseconds=int(key.split(b"\0")[1], 16)), id_in(key))


def put(step: Step, old: Schedule | None, new: Schedule | None) -> None:
    """Put `new` in the place of `old`, and its next time where due ones are looked for; None is no schedule."""
    if old is not None:
        step.txn.delete(key_of("schedule", old.id))
        if old.next_due_at is not None:
            step.txn.delete(key_of("next", old.next_due_at, old.id))
    if new is not None:
        step.txn.put(key_of("schedule", new.id), msgpack.encode(new))
        if new.next_due_at is not None and not new.is_paused:
            step.txn.put(key_of("next", new.next_due_at, new.id), b"")
