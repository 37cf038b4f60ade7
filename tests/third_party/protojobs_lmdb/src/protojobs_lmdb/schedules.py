"""Schedules on an LMDB file: each under its id, and those that wait for a time under that time as well."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from msgspec import convert, msgpack
from msgspec.structs import replace

from protojobs import rules
from protojobs.schedules import DueSchedules, Fired, FireStatus, Firing, Schedule, SchedulePage
from protojobs_lmdb.file import Handle
from protojobs_lmdb.rows import MICROSECOND, Row, Step, id_in, key_of


class Schedules(Handle):
    def save_schedule(self, schedule: Schedule, *, version: int) -> bool:
        with self.step(write=True) as step:
            known = find(step, schedule.id)
            if (known.version if known else 0) != version:
                return False
            put(step, known, replace(schedule, version=version + 1))
            return True

    def get_schedules(self, ids: Sequence[str]) -> list[Schedule]:
        with self.step() as step:
            return [known for name in dict.fromkeys(rules.check_batch(ids)) if (known := find(step, name))]

    def list_schedules(self, *, limit: int = 100, cursor: str | None = None) -> SchedulePage:
        with self.step() as step:
            start = key_of("schedule", cursor) + b"\0" if cursor else b""
            names = [id_in(key) for key in islice(step.keys("schedule", start=start), limit + 1)]
            page = tuple(known for name in names[:limit] if (known := find(step, name)))
            return SchedulePage(schedules=page, cursor=names[limit - 1] if len(names) > limit else None)

    def due_schedules(self, limit: int) -> DueSchedules:
        with self.step() as step:
            after = step.now + MICROSECOND
            names = [id_in(key) for key in islice(step.keys("next", before=after), limit)]
            ahead = next((find(step, id_in(key)) for key in step.keys("next", start=key_of("next", after))), None)
            return DueSchedules(
                now=step.now,
                schedules=tuple(known for name in names if (known := find(step, name))),
                next_due_at=ahead.next_due_at if ahead else None,
            )

    def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        rules.check_firings(firings)
        with self.step(write=True) as step:
            return [Fired(id=said.id, status=fire(step, said)) for said in firings]

    def remove_schedule(self, schedule_id: str) -> bool:
        with self.step(write=True) as step:
            known = find(step, schedule_id)
            put(step, known, None)
            return known is not None


def fire(step: Step, said: Firing) -> FireStatus:
    known = find(step, said.id)
    last = step.row(known.last_job_id) if known and known.last_job_id else None
    is_known = said.job is not None and step.row(said.job.id) is not None
    after, status = rules.fire(known, said, step.now, last_job=last.status if last else None, is_known=is_known)
    put(step, known, after)
    if status is FireStatus.FIRED and said.job is not None:
        step.write(None, convert(rules.new_row(said.job, step.now), Row, from_attributes=True))
    return status


def find(step: Step, schedule_id: str) -> Schedule | None:
    found = step.txn.get(key_of("schedule", schedule_id))
    return None if found is None else msgpack.decode(found, type=Schedule)


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
