"""Schedules: a row each, moved on by compare-and-set in the one transaction that stores the jobs of its times."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from math import ceil, isfinite
from typing import Any, cast

from msgspec import convert
from msgspec.structs import asdict, replace
from sqlalchemy import (
    Connection,
    Dialect,
    Integer,
    bindparam,
    delete,
    literal_column,
    or_,
    select,
    text,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import CompoundSelect, NamedFromClause

from protojobs import rules
from protojobs.clock import SYSTEM_CLOCK, time_left
from protojobs.entropy import jittered
from protojobs.errors import shown
from protojobs.lifecycle import JobState
from protojobs.names import is_storable
from protojobs.records import NewJob
from protojobs.schedules import (
    DueCursor,
    DueSchedules,
    Fired,
    FireStatus,
    Firing,
    Overlap,
    Schedule,
    SchedulePage,
    UnreadableSchedule,
    apart,
    read_schedule,
)
from protojobs_sqlalchemy.bounds import check_count, check_new
from protojobs_sqlalchemy.conditions import is_mysql
from protojobs_sqlalchemy.dialects import Mode, Use
from protojobs_sqlalchemy.ids import known as known_ids
from protojobs_sqlalchemy.inserting import due_queues, inserts
from protojobs_sqlalchemy.postgresql_archive import whole
from protojobs_sqlalchemy.rows import Found
from protojobs_sqlalchemy.steps import Steps
from protojobs_sqlalchemy.tables import schedules
from protojobs_sqlalchemy.types import Misread, StoredTime, to_microseconds
from protojobs_sqlalchemy.upserts import insert_or_change

__all__ = ["Schedules"]

# A row that another step holds is waited for so long: most often a ticker that is about to commit what is asked for.
# One that froze there is ended by the server (see the dialects' idle limits); until then its schedules are `lost`, and
# the others go on.
_HELD_S = 1.0
_HELD_PAUSE_S = 0.005
_MOVED = ("next_due_at", "last_due_at", "last_job_id", "version")
Store = Callable[[Connection, Sequence[NewJob]], set[str]]


class _TimeOrFraction(StoredTime):
    """A stored time. SQLite keeps fractions of a microsecond too, as arithmetic by a foreign hand leaves them."""

    cache_ok = True

    def process_result_value(self, value: datetime | float | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        if isinstance(value, float) and isfinite(value):
            return super().process_result_value(ceil(value), dialect)
        return super().process_result_value(cast("datetime | int | None", value), dialect)


_columns: list[ColumnElement[Any]] = [
    type_coerce(column, _TimeOrFraction).label(column.name) if isinstance(column.type, StoredTime) else column
    for column in schedules.c
]
_NAMES = [str(column.name) for column in schedules.c]


def _first(place: str, limit: str, *behind: ColumnElement[bool]) -> NamedFromClause:
    """Schedules that wait for a time before or after now, the earliest first; served by schedules_due."""
    moment = schedules.c.next_due_at
    now = bindparam("b_now", type_=moment.type)
    # The index's condition, literally; the second half of it is what a comparison says anyway.
    waiting = (schedules.c.is_paused == literal_column("0"), moment.is_not(None))
    query = select(*_columns).where(*waiting, moment <= now if place == "due" else moment > now, *behind)
    rows = bindparam(limit, type_=Integer())
    return query.order_by(moment, schedules.c.id).limit(rows).subquery(place)


def _behind() -> tuple[ColumnElement[bool], ...]:
    """Behind the cursor. The first condition is the one that an index serves everywhere."""
    moment, name = schedules.c.next_due_at, schedules.c.id
    time_, id_ = bindparam("b_time", type_=moment.type), bindparam("b_id", type_=name.type)
    return moment >= time_, or_(moment > time_, name > id_)


def _due_and_next(*behind: ColumnElement[bool]) -> CompoundSelect[Any]:
    return union_all(select(_first("due", "b_limit", *behind)), select(_first("ahead", "b_one")))


_from_front, _from_cursor = _due_and_next(), _due_and_next(*_behind())
_lock = select(*_columns).order_by(schedules.c.id).with_for_update(skip_locked=True)
# Without its second condition a planner that may choose reads the whole of a small table.
_move_on_postgresql = text("""
UPDATE schedules AS s SET next_due_at = m.next_due_at, last_due_at = m.last_due_at, last_job_id = m.last_job_id,
                          version = m.version
FROM unnest(CAST(:id AS text[]), CAST(:next_due_at AS timestamptz[]), CAST(:last_due_at AS timestamptz[]),
            CAST(:last_job_id AS uuid[]), CAST(:version AS int[]))
     AS m (id, next_due_at, last_due_at, last_job_id, version)
WHERE s.id = m.id AND s.id = ANY (CAST(:id AS text[]))
""")
_move_on_sqlite = text("""
UPDATE schedules SET next_due_at = m.next_due_at, last_due_at = m.last_due_at, last_job_id = m.last_job_id,
                     version = m.version
FROM (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS next_due_at,
             json_extract(value, '$[2]') AS last_due_at, json_extract(value, '$[3]') AS last_job_id,
             json_extract(value, '$[4]') AS version FROM json_each(:moved)) AS m
WHERE schedules.id = m.id
""")


class Schedules(Steps):
    """The verbs of `protojobs.protocols.Schedules`."""

    def save_schedule(self, schedule: Schedule, *, version: int) -> bool:
        """Store `schedule` in place of the one whose `version` that is; False: it is not of that version."""
        # Never run twice by itself: the second run would say False of what the first has stored.
        return self._run(lambda conn: save(conn, replace(schedule, version=version + 1), version), Mode.STORE)

    def get_schedules(self, ids: Sequence[str]) -> SchedulePage:
        """The schedules that exist among `ids`."""
        check_count(ids)
        stored = [name for name in ids if is_storable(name)]
        return self._run(lambda conn: get(conn, stored), Mode.READ)

    def list_schedules(self, *, limit: int = 100, cursor: str | None = None) -> SchedulePage:
        """A page of schedules by id. The cursor is the last id of the page."""
        rules.check_schedule_cursor(cursor)
        return self._run(lambda conn: page_of(conn, limit, cursor), Mode.READ)

    def due_schedules(self, limit: int, *, cursor: DueCursor | None = None) -> DueSchedules:
        """Up to `limit` schedules that are due and not paused, by (next_due_at, id), and the store's now."""
        return self._run_at(
            lambda conn, now: due(conn, limit, cursor, now), Mode.SINGLE, use=Use.WORK, is_repeatable=True
        )

    def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        """Move schedules on and store the jobs of their times; answers in order."""
        rules.check_firings(firings)
        check_new([said.job for said in firings if said.job is not None])
        if not firings:
            return []
        # What is held goes in a later step: all firings of a schedule share one, and depend on no other schedule.
        answers: list[FireStatus | None] = [None] * len(firings)
        gives_up_at = SYSTEM_CLOCK.monotonic() + time_left(_HELD_S)
        while waiting := [place for place, status in enumerate(answers) if status is None]:
            round_ = [firings[place] for place in waiting]
            for place, status in zip(waiting, self._fire(round_), strict=True):
                answers[place] = status
            if SYSTEM_CLOCK.monotonic() > gives_up_at:
                break
            if None in answers:
                time.sleep(jittered(_HELD_PAUSE_S, 0.9))
        return [
            Fired(id=said.id, status=status or FireStatus.LOST) for said, status in zip(firings, answers, strict=True)
        ]

    def _fire(self, firings: Sequence[Firing]) -> list[FireStatus | None]:
        # Repeatable after a connection was lost: no firing moves a schedule that has left `expected_next`. At worst the
        # second run answers `lost` for what the first one did, and nobody is told of it; jobs and times are right.
        store = self._dialect.enqueue
        statuses = self._run_at(
            lambda conn, now: fire(conn, firings, now, store), Mode.STORE, use=Use.WORK, is_repeatable=True
        )
        answers = zip(firings, statuses, strict=True)
        self._dialect.ring(
            due_queues([said.job for said, status in answers if said.job and status is FireStatus.FIRED]),
            takes_none=True,
        )
        return statuses

    def remove_schedule(self, schedule_id: str) -> bool:
        """Forget the schedule. False: there was none."""
        if not is_storable(schedule_id):
            return False
        gone = delete(schedules).where(schedules.c.id == schedule_id)
        return self._run(lambda conn: conn.execute(gone).rowcount > 0, Mode.STORE)


def save(conn: Connection, schedule: Schedule, version: int) -> bool:
    """Insert it, or put it in the place of the one of that version; False where another was faster."""
    row = _row(schedule)
    if version:
        mine = (schedules.c.id == schedule.id, schedules.c.version == version)
        return conn.execute(update(schedules).where(*mine).values(row)).rowcount > 0
    return inserts(conn, schedules, row)


def get(conn: Connection, ids: Sequence[str]) -> SchedulePage:
    """The schedules that exist among `ids`."""
    rows = conn.execute(select(*_columns).where(schedules.c.id.in_(ids))).fetchall()
    found, unreadable = apart(map(_read, rows))
    return SchedulePage(schedules=found, unreadable=unreadable)


def page_of(conn: Connection, limit: int, cursor: str | None) -> SchedulePage:
    """A page of schedules by id, from behind the cursor."""
    query = select(*_columns).order_by(schedules.c.id).limit(limit + 1)
    if cursor is not None:
        query = query.where(schedules.c.id > cursor)
    rows = conn.execute(query).fetchall()
    found, unreadable = apart(map(_read, rows[:limit]))
    more = rows[limit - 1].id if 0 < limit < len(rows) else None
    return SchedulePage(schedules=found, unreadable=unreadable, cursor=more)


def due(conn: Connection, limit: int, cursor: DueCursor | None, now: datetime) -> DueSchedules:
    """The schedules that are due at `now`, and the time of the first that is not yet: `limit` + 2 rows of an index."""
    values: dict[str, object] = {"b_now": now, "b_limit": limit + 1, "b_one": 1}
    if cursor is not None:
        values |= {"b_time": cursor.next_due_at, "b_id": cursor.id}
    rows = conn.execute(_from_front if cursor is None else _from_cursor, values).fetchall()
    # A union promises no order. What is no time is behind all times, as SQLite has it.
    times = sorted((row.next_due_at, row.id, row) for row in rows if not isinstance(row.next_due_at, Misread))
    waiting = [(moment, name, row) for moment, name, row in times if moment <= now]
    found, unreadable = apart(_read(row) for _, _, row in waiting[:limit])
    return DueSchedules(
        now=now,
        schedules=found,
        unreadable=unreadable,
        next_due_at=next((moment for moment, _, _ in times if moment > now), None),
        cursor=DueCursor(*waiting[limit - 1][:2]) if 0 < limit < len(waiting) else None,
    )


def fire(conn: Connection, firings: Sequence[Firing], now: datetime, store: Store) -> list[FireStatus | None]:
    """Lock, decide, store, move: a handful of statements however many schedules there are and fire.

    Rows that another step holds are passed over, and answered None. `store` inserts jobs and tells which were absent.
    """
    names = {said.id for said in firings}
    locked = {row.id: _read(row) for row in conn.execute(_lock.where(schedules.c.id.in_(sorted(names))))}
    before = {name: one for name, one in locked.items() if isinstance(one, Schedule)}
    absent = sorted(names - locked.keys())
    held = set(conn.execute(select(schedules.c.id).where(schedules.c.id.in_(absent))).scalars() if absent else ())
    states = _job_states(conn, before.values(), firings)
    after = dict(before)
    new: list[NewJob] = []
    statuses: list[FireStatus | None] = []
    for said in firings:
        if said.id in held:
            statuses.append(None)
            continue
        job, schedule = said.job, after.get(said.id)
        last = states.get(schedule.last_job_id) if schedule and schedule.last_job_id else None
        is_known = job is not None and job.id in states
        moved, status = rules.fire(schedule, said, now, last_job=last, is_known=is_known)
        if moved is not None:
            after[said.id] = moved
        if job is not None and status is FireStatus.FIRED:
            new.append(job)
            states[job.id] = JobState.PENDING
        statuses.append(status)
    stored = store(conn, new) if new else set[str]()
    _move(conn, [schedule for name, schedule in after.items() if schedule is not before[name]])
    # Somebody may have pushed a job of that very id since it was looked for: the schedule moves on all the same.
    return [
        FireStatus.DUPLICATE if status is FireStatus.FIRED and said.job and said.job.id not in stored else status
        for said, status in zip(firings, statuses, strict=True)
    ]


def _job_states(conn: Connection, held: Iterable[Schedule], firings: Sequence[Firing]) -> dict[str, JobState]:
    """The states of the jobs by which an overlap is decided, and of those that are to be stored but are there."""
    last = [schedule.last_job_id for schedule in held if schedule.overlap is not Overlap.ALLOW and schedule.last_job_id]
    wanted = known_ids([*last, *(said.job.id for said in firings if said.job is not None)])
    table = whole(conn)
    found = conn.execute(select(table.c.id, table.c.status).where(table.c.id.in_(wanted))) if wanted else ()
    return {row.id: JobState(row.status) for row in found}


def _move(conn: Connection, moved: Sequence[Schedule]) -> None:
    """Write what became of these locked schedules: each gets values of its own, all in one statement."""
    if not moved:
        return
    if is_mysql(conn):
        # An upsert, though each of them is there: of an UPDATE the client would send one for each row.
        upsert = insert_or_change(conn, schedules, lambda new: {name: new[name] for name in _MOVED})
        conn.execute(upsert, [_row(schedule) for schedule in moved])
    elif conn.dialect.name == "postgresql":
        columns = {name: [getattr(schedule, name) for schedule in moved] for name in ("id", *_MOVED)}
        conn.execute(_move_on_postgresql, columns)
    else:
        rows = [
            (
                one.id,
                *(at and to_microseconds(at) for at in (one.next_due_at, one.last_due_at)),
                one.last_job_id,
                one.version,
            )
            for one in moved
        ]
        conn.execute(_move_on_sqlite, {"moved": json.dumps(rows)})


def _read(row: Found) -> Schedule | UnreadableSchedule:
    return read_schedule(row.id, lambda: _schedule(row))


def _schedule(row: Found) -> Schedule:
    # Checked, field by field: SQLite keeps any type in any column, and texts that are one of a few are just texts.
    fields = dict(zip(_NAMES, row, strict=True))
    for name, value in fields.items():
        if isinstance(value, Misread):
            raise ValueError(f"{name} is {shown(value.stored)}")
    return convert({**fields, "is_paused": bool(row.is_paused)}, Schedule)


def _row(schedule: Schedule) -> dict[str, object]:
    enums = {"misfire": schedule.misfire.value, "overlap": schedule.overlap.value}
    return {**asdict(schedule), **enums, "is_paused": int(schedule.is_paused)}
