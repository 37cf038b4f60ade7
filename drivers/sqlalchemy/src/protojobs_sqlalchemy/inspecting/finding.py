"""Finding jobs: by id, or by state, queue and name, newest id first, without a walk past all the others.

Where what may match is little, an index other than the ids' leads to it, and only those ids are sorted; else the ids
are walked, and a page ends after EXAMINED_MAX. Either way a page begins behind the id that is its cursor, so the next
one may be found the other way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, case, func, or_, select, union_all

from protojobs.errors import OptionInvalid, shown
from protojobs.port import rules
from protojobs.port.lifecycle import FINISHED, STORED, JobState
from protojobs.port.records import JobFilter, JobPage, JobRecord
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.tables.rows import job_record
from protojobs_sqlalchemy.tables.types import job_ids

__all__ = ["EXAMINED_MAX", "check_names", "find", "get"]

EXAMINED_MAX = 5_000  # rows that one page looks at
PENDING_MAX = 50_000  # entries of jobs_ready, which has the ids of pending jobs: to sort so many takes 50 ms

Ids = Select[str]


def check_names(*names: str | None) -> None:
    """Refuse a name with what some database cannot keep. Nothing there has such a one, and it cannot be asked for."""
    for name in names:
        if name is not None and not rules.is_storable(name):
            raise OptionInvalid(
                f"{shown(name, 60)} is no name: it holds a NUL character or half of a surrogate pair.",
                mend="Leave that character out.",
            )


def get(conn: Connection, dialect: Dialect, ids: Sequence[str]) -> list[JobRecord]:
    """The jobs that exist among `ids`."""
    table = dialect.archive.all_jobs
    query = select(*dialect.columns(table, None)).where(table.c.id.in_(job_ids(ids)))
    return [job_record(row) for row in conn.execute(query)]


def find(
    conn: Connection, dialect: Dialect, which: JobFilter, limit: int, cursor: str | None, chars_max: int | None
) -> JobPage:
    """A page of jobs, newest id first."""
    rules.check_cursor(cursor)
    sources = _sources(conn, dialect, which)
    if sources is None:
        ids, more = _walked(conn, dialect, which, limit, cursor)
    else:
        ids, more = _gathered(conn, sources, limit, cursor)
    table = dialect.archive.all_jobs
    query = select(*dialect.columns(table, chars_max)).where(table.c.id.in_(ids)).order_by(table.c.id.desc())
    return JobPage(jobs=tuple(job_record(row) for row in conn.execute(query)) if ids else (), cursor=more)


def _walked(
    conn: Connection, dialect: Dialect, which: JobFilter, limit: int, cursor: str | None
) -> tuple[Sequence[str], str | None]:
    """The ids of a page, and its successor's cursor, from the newest EXAMINED_MAX ids."""
    failed_jobs = dialect.tables.failed_jobs
    # A failed job has its one failed_jobs row: no need to look at all the others.
    table = failed_jobs if which.states == (JobState.FAILED,) else dialect.archive.all_jobs
    key = failed_jobs.c.job_id if table is failed_jobs else table.c.id
    span = [key < cursor] if cursor else []
    last = conn.execute(select(key).where(*span).order_by(key.desc()).offset(EXAMINED_MAX - 1).limit(1)).scalar()
    if last is not None:
        span.append(key >= last)
    wanted = _named(which, table)
    if which.states and table is not failed_jobs:
        is_wanted = table.c.status.in_([state.value for state in which.states])
        is_unknown = table.c.status.not_in([state.value for state in STORED])
        wanted.append(or_(is_wanted, is_unknown) if JobState.UNREADABLE in which.states else is_wanted)
    ids = conn.execute(select(key).where(*span, *wanted).order_by(key.desc()).limit(limit + 1)).scalars().all()
    return ids[:limit], ids[limit - 1] if len(ids) > limit else last


def _gathered(
    conn: Connection, sources: Sequence[Ids], limit: int, cursor: str | None
) -> tuple[Sequence[str], str | None]:
    """The same from few ids. The bounds inside keep the planner from walking all ids to find these in order."""
    if not sources:
        return [], None
    few = [source.limit(PENDING_MAX + 1).subquery() for source in sources]
    together = union_all(*[select(part.c[0].label("id")) for part in few]).subquery()
    query = select(together.c.id).order_by(together.c.id.desc()).limit(limit + 1)
    ids = conn.execute(query.where(together.c.id < cursor) if cursor else query).scalars().all()
    return ids[:limit], ids[limit - 1] if len(ids) > limit else None


def _sources(conn: Connection, dialect: Dialect, which: JobFilter) -> list[Ids] | None:
    """Where all that matches is, each by an index of its own; None where that is more than a page looks at."""
    states = frozenset(which.states or JobState)
    if which.queue is None and states == frozenset(JobState):
        return None
    numbers = _live(conn, dialect, which, states - FINISHED) | _finished(conn, dialect, which.queue, states & FINISHED)
    in_index = numbers.get(JobState.PENDING, 0) if _most(which, JobState.PENDING) > EXAMINED_MAX else 0
    if in_index > PENDING_MAX or sum(numbers.values()) - in_index > EXAMINED_MAX:
        return None
    return [source for state, number in numbers.items() if number for source in _of_state(dialect, which, state)]


def _live(conn: Connection, dialect: Dialect, which: JobFilter, states: Collection[JobState]) -> dict[JobState, int]:
    """How many jobs the indexes give for each of these states, counted up to the bound."""
    if not states:
        return {}
    first = [_first(dialect, state, which.queue).limit(_most(which, state) + 1) for state in sorted(states)]
    few = [select(part.subquery()) for part in first]
    counts = [select(func.count()).select_from(part.subquery()).scalar_subquery() for part in few]
    return dict(zip(sorted(states), conn.execute(select(*counts)).one(), strict=True))


def _most(which: JobFilter, state: JobState) -> int:
    """How many jobs of a state a page looks at, where an index leads to them."""
    return PENDING_MAX if state is JobState.PENDING and which.job_name is None else EXAMINED_MAX


def _first(dialect: Dialect, state: JobState, queue: str | None) -> Ids:
    jobs = dialect.tables.jobs
    if state is JobState.UNREADABLE:
        spans = [
            select(select(jobs.c.id).where(*span).limit(EXAMINED_MAX + 1).subquery())
            for span in dialect.conditions.in_no_state()
        ]
        return select(union_all(*spans).subquery().c.id)
    conditions: dict[JobState, list[ColumnElement[bool]]] = {
        JobState.PENDING: dialect.conditions.is_pending(queue),
        JobState.PROCESSING: [dialect.conditions.is_processing()],
        JobState.MOVING: [jobs.c.moving_token.is_not(None)],
    }
    return select(jobs.c.id).where(*conditions[state])


def _finished(
    conn: Connection, dialect: Dialect, queue: str | None, states: Collection[JobState]
) -> dict[JobState, int]:
    """How many finished jobs the indexes give for each of these states, from the counters."""
    if not states:
        return {}
    counters = dialect.tables.counters
    count = counters.c.count
    mine = func.sum(count if queue is None else case((counters.c.queue == queue, count), else_=0))
    wanted = counters.c.status.in_(sorted(states))
    query = select(counters.c.status, func.sum(count), mine).where(wanted).group_by(counters.c.status)
    numbers: dict[JobState, int] = {}
    for status, all_of_them, in_queue in conn.execute(query):
        state = JobState(status)
        # Only failed_jobs has an index by queue; but of those that the queue has none of, there is nothing to read.
        numbers[state] = int(in_queue if state is JobState.FAILED or not in_queue else all_of_them)
    return numbers


def _of_state(dialect: Dialect, which: JobFilter, state: JobState) -> list[Ids]:
    jobs, failed_jobs = dialect.tables.jobs, dialect.tables.failed_jobs
    if state is JobState.FAILED:
        return [select(failed_jobs.c.job_id).where(*_named(which, failed_jobs))]
    if state is JobState.PENDING:
        return [_first(dialect, state, which.queue).where(*_named(which, jobs, has_queue=True))]
    if state is JobState.UNREADABLE:
        return [select(jobs.c.id).where(*span, *_named(which, jobs)) for span in dialect.conditions.in_no_state()]
    if state not in FINISHED:
        return [_first(dialect, state, which.queue).where(*_named(which, jobs))]
    here = select(jobs.c.id).where(*dialect.conditions.is_finished(state), *_named(which, jobs))
    archives = dialect.archive.tables if state is JobState.COMPLETED else ()
    return [here, *(select(archive.c.id).where(*_named(which, archive)) for archive in archives)]


def _named(which: JobFilter, table: FromClause, *, has_queue: bool = False) -> list[ColumnElement[Any]]:
    """The conditions on names; `has_queue`: the index sees to the queue's."""
    conditions: list[ColumnElement[Any]] = []
    if which.queue is not None and not has_queue:
        conditions.append(table.c.queue == which.queue)
    if which.job_name is not None:
        conditions.append(table.c.job_name == which.job_name)
    return conditions
