"""Schedules: each is a row, moved on in the one transaction that stores the jobs of its due times."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from msgspec import convert
from msgspec.structs import asdict, replace
from sqlalchemy import (
    Connection,
    Integer,
    bindparam,
    delete,
    literal_column,
    or_,
    select,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import CompoundSelect, NamedFromClause

from protojobs.clock import SYSTEM_CLOCK, time_left
from protojobs.entropy import jittered
from protojobs.errors import shown
from protojobs.port import rules
from protojobs.port.lifecycle import JobState
from protojobs.port.records import NewJob
from protojobs.port.rules import is_storable
from protojobs.port.schedules import (
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
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.dialect import Dialect, Mode, Use
from protojobs_sqlalchemy.tables.rows import AnyRow
from protojobs_sqlalchemy.tables.tables import PLAIN, STORES_MAX, Tables
from protojobs_sqlalchemy.tables.types import Misread, StoredTime, TimeOrFraction, job_ids
from protojobs_sqlalchemy.verbs.inserting import check_new, due_queues

__all__ = ["MOVED", "due", "fire", "get", "page_of", "remove", "save", "schedule_row"]

# A row that another step holds is waited for so long: most often a ticker that is about to commit what is asked for.
# One that froze there is ended by the server (see the dialects' idle limits); until then its schedules are `lost`, and
# the others go on.
_HELD_S = 1.0
_HELD_PAUSE_S = 0.005
MOVED = ("next_due_at", "last_due_at", "last_job_id", "version")
"""What is written when a schedule moves on."""
_NAMES = [str(column.name) for column in PLAIN.schedules.c]


class _Statements:
    """For the tables of one store."""

    def __init__(self, tables: Tables) -> None:
        self._table = tables.schedules
        self.columns: list[ColumnElement[Any]] = [
            type_coerce(column, TimeOrFraction).label(column.name) if isinstance(column.type, StoredTime) else column
            for column in self._table.c
        ]
        self.from_front, self.from_cursor = self._due_and_next(), self._due_and_next(*self._behind())
        self.lock = select(*self.columns).order_by(self._table.c.id).with_for_update(skip_locked=True)

    def _first(self, place: str, limit: str, *behind: ColumnElement[bool]) -> NamedFromClause:
        """Schedules that wait for a time before or after now, the earliest first; served by schedules_due."""
        moment = self._table.c.next_due_at
        now = bindparam("b_now", type_=moment.type)
        # The index's condition, literally; the second half of it is what a comparison says anyway.
        waiting = (self._table.c.is_paused == literal_column("0"), moment.is_not(None))
        query = select(*self.columns).where(*waiting, moment <= now if place == "due" else moment > now, *behind)
        rows = bindparam(limit, type_=Integer())
        return query.order_by(moment, self._table.c.id).limit(rows).subquery(place)

    def _behind(self) -> tuple[ColumnElement[bool], ...]:
        """Behind the cursor. The first condition is the one that an index serves everywhere."""
        moment, name = self._table.c.next_due_at, self._table.c.id
        time_, id_ = bindparam("b_time", type_=moment.type), bindparam("b_id", type_=name.type)
        return moment >= time_, or_(moment > time_, name > id_)

    def _due_and_next(self, *behind: ColumnElement[bool]) -> CompoundSelect[Any]:
        return union_all(select(self._first("due", "b_limit", *behind)), select(self._first("ahead", "b_one")))


_statements = lru_cache(maxsize=STORES_MAX)(_Statements)


def fire(connections: Connections, firings: Sequence[Firing]) -> list[Fired]:
    """Move schedules on and store the jobs of their times: one reply for each firing, in order."""
    rules.check_firings(firings)
    check_new([firing.job for firing in firings if firing.job is not None])
    if not firings:
        return []
    # What is held goes in a later step: all firings of a schedule share one, and depend on no other schedule.
    statuses: list[FireStatus | None] = [None] * len(firings)
    gives_up_at = SYSTEM_CLOCK.monotonic() + time_left(_HELD_S)
    while waiting := [number for number, status in enumerate(statuses) if status is None]:
        for number, status in zip(waiting, _fire_once(connections, [firings[n] for n in waiting]), strict=True):
            statuses[number] = status
        if SYSTEM_CLOCK.monotonic() > gives_up_at:
            break
        if None in statuses:
            time.sleep(jittered(_HELD_PAUSE_S, 0.9))
    pairs = zip(firings, statuses, strict=True)
    return [Fired(id=firing.id, status=status or FireStatus.LOST) for firing, status in pairs]


def _fire_once(connections: Connections, firings: Sequence[Firing]) -> list[FireStatus | None]:
    # Repeatable after a connection was lost: no firing moves a schedule that has left `expected_next`. At worst the
    # second run answers `lost` for what the first one did, and nobody is told of it; jobs and times are right.
    statuses = connections.run_at(
        lambda conn, now: fire_all(conn, connections.dialect, firings, now),
        Mode.STORE,
        use=Use.WORK,
        is_repeatable=True,
    )
    pairs = zip(firings, statuses, strict=True)
    stored = [firing.job for firing, status in pairs if firing.job and status is FireStatus.FIRED]
    connections.dialect.wake(due_queues(stored))
    return statuses


def save(conn: Connection, dialect: Dialect, schedule: Schedule, version: int) -> bool:
    """Insert it, or put it in the place of the one of that version; False where another was faster."""
    schedules = dialect.tables.schedules
    row = schedule_row(replace(schedule, version=version + 1))
    if version:
        mine = (schedules.c.id == schedule.id, schedules.c.version == version)
        return conn.execute(update(schedules).where(*mine).values(row)).rowcount > 0
    return dialect.inserts(conn, schedules, row)


def get(conn: Connection, dialect: Dialect, ids: Sequence[str]) -> SchedulePage:
    """The schedules that exist among `ids`."""
    stored = [schedule_id for schedule_id in ids if is_storable(schedule_id)]
    query = select(*_statements(dialect.tables).columns).where(dialect.tables.schedules.c.id.in_(stored))
    rows = conn.execute(query).fetchall()
    readable, unreadable = apart(map(_read, rows))
    return SchedulePage(schedules=readable, unreadable=unreadable)


def page_of(conn: Connection, dialect: Dialect, limit: int, cursor: str | None) -> SchedulePage:
    """A page of schedules by id, from behind the cursor."""
    schedules = dialect.tables.schedules
    query = select(*_statements(dialect.tables).columns).order_by(schedules.c.id).limit(limit + 1)
    if cursor is not None:
        query = query.where(schedules.c.id > cursor)
    rows = conn.execute(query).fetchall()
    readable, unreadable = apart(map(_read, rows[:limit]))
    more = rows[limit - 1].id if 0 < limit < len(rows) else None
    return SchedulePage(schedules=readable, unreadable=unreadable, cursor=more)


def due(conn: Connection, dialect: Dialect, limit: int, cursor: DueCursor | None, now: datetime) -> DueSchedules:
    """The schedules that are due at `now`, and the time of the first that is not yet: `limit` + 2 rows of an index."""
    values: dict[str, object] = {"b_now": now, "b_limit": limit + 1, "b_one": 1}
    if cursor is not None:
        values |= {"b_time": cursor.next_due_at, "b_id": cursor.id}
    sql = _statements(dialect.tables)
    rows = conn.execute(sql.from_front if cursor is None else sql.from_cursor, values).fetchall()
    # A union promises no order. What is no time is behind all times, as SQLite has it.
    times = sorted((row.next_due_at, row.id, row) for row in rows if not isinstance(row.next_due_at, Misread))
    waiting = [(moment, name, row) for moment, name, row in times if moment <= now]
    readable, unreadable = apart(_read(row) for _, _, row in waiting[:limit])
    return DueSchedules(
        now=now,
        schedules=readable,
        unreadable=unreadable,
        next_due_at=next((moment for moment, _, _ in times if moment > now), None),
        cursor=DueCursor(*waiting[limit - 1][:2]) if 0 < limit < len(waiting) else None,
    )


def remove(conn: Connection, dialect: Dialect, schedule_id: str) -> bool:
    """Forget the schedule. False: there was none."""
    schedules = dialect.tables.schedules
    return conn.execute(delete(schedules).where(schedules.c.id == schedule_id)).rowcount > 0


def fire_all(conn: Connection, dialect: Dialect, firings: Sequence[Firing], now: datetime) -> list[FireStatus | None]:
    """Lock, decide, store, move: a handful of statements however many schedules there are and fire.

    Rows that another step holds are passed over: their status is None.
    """
    schedules, names = dialect.tables.schedules, {firing.id for firing in firings}
    query = _statements(dialect.tables).lock.where(schedules.c.id.in_(sorted(names)))
    locked = {row.id: _read(row) for row in conn.execute(query)}
    before = {name: one for name, one in locked.items() if isinstance(one, Schedule)}
    absent = sorted(names - locked.keys())
    held = set(conn.execute(select(schedules.c.id).where(schedules.c.id.in_(absent))).scalars() if absent else ())
    states = _job_states(conn, dialect, before.values(), firings)
    after = dict(before)
    new: list[NewJob] = []
    statuses: list[FireStatus | None] = []
    for firing in firings:
        if firing.id in held:
            statuses.append(None)
            continue
        job, schedule = firing.job, after.get(firing.id)
        last = states.get(schedule.last_job_id) if schedule and schedule.last_job_id else None
        is_known = job is not None and job.id in states
        moved, status = rules.fire(schedule, firing, now, last_job=last, is_known=is_known)
        if moved is not None:
            after[firing.id] = moved
        if job is not None and status is FireStatus.FIRED:
            new.append(job)
            states[job.id] = JobState.PENDING
        statuses.append(status)
    stored = dialect.enqueue(conn, new).ids if new else set[str]()
    if changed := [schedule for name, schedule in after.items() if schedule is not before[name]]:
        dialect.move_schedules(conn, changed)
    # Somebody may have pushed a job of that very id since it was looked for: the schedule moves on all the same.
    return [
        FireStatus.DUPLICATE if status is FireStatus.FIRED and firing.job and firing.job.id not in stored else status
        for firing, status in zip(firings, statuses, strict=True)
    ]


def _job_states(
    conn: Connection, dialect: Dialect, held: Iterable[Schedule], firings: Sequence[Firing]
) -> dict[str, JobState]:
    """The states of the jobs by which an overlap is decided, and of those that are to be stored but are there."""
    last = [schedule.last_job_id for schedule in held if schedule.overlap is not Overlap.ALLOW and schedule.last_job_id]
    wanted = job_ids([*last, *(firing.job.id for firing in firings if firing.job is not None)])
    table = dialect.archive.all_jobs
    rows = conn.execute(select(table.c.id, table.c.status).where(table.c.id.in_(wanted))) if wanted else ()
    return {row.id: JobState(row.status) for row in rows}


def _read(row: AnyRow) -> Schedule | UnreadableSchedule:
    return read_schedule(row.id, lambda: _schedule(row))


def _schedule(row: AnyRow) -> Schedule:
    # Checked, field by field: SQLite keeps any type in any column, and texts that are one of a few are just texts.
    fields = dict(zip(_NAMES, row, strict=True))
    for name, value in fields.items():
        if isinstance(value, Misread):
            raise ValueError(f"{name} is {shown(value.stored)}")
    return convert({**fields, "is_paused": bool(row.is_paused)}, Schedule)


def schedule_row(schedule: Schedule) -> dict[str, object]:
    """The row of a schedule."""
    enums = {"misfire": schedule.misfire.value, "overlap": schedule.overlap.value}
    return {**asdict(schedule), **enums, "is_paused": int(schedule.is_paused)}
