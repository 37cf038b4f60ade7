"""Finding jobs by state, queue and name, newest id first, without walking past all the others to meet a few.

Where what may match is little, an index other than the ids' leads to it, and only those ids are sorted; else the ids
are walked, and a page ends after EXAMINED_MAX. Either way a page begins behind the id that is its cursor, so the next
one may be found the other way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, case, func, or_, select, union_all

from protojobs.port.lifecycle import FINISHED, STORED, JobState
from protojobs.port.records import JobFilter, JobPage
from protojobs_sqlalchemy.postgresql.archive import archive, whole
from protojobs_sqlalchemy.tables.ids import canonical
from protojobs_sqlalchemy.tables.rows import job_record, shown
from protojobs_sqlalchemy.tables.tables import counters, failed_jobs, jobs
from protojobs_sqlalchemy.verbs.bounds import bad_cursor
from protojobs_sqlalchemy.verbs.conditions import in_no_state, is_finished, is_pending, is_processing

__all__ = ["EXAMINED_MAX", "find"]

EXAMINED_MAX = 5_000  # rows that one page looks at
PENDING_MAX = 50_000  # entries of jobs_ready, which has the ids of pending jobs: to sort so many takes 50 ms

Ids = Select[str]


def find(conn: Connection, which: JobFilter, limit: int, cursor: str | None, chars_max: int | None) -> JobPage:
    """A page of jobs, newest id first."""
    if cursor is not None and not canonical(cursor):
        raise bad_cursor(cursor)
    sources = _sources(conn, which)
    if sources is None:
        ids, more = _walked(conn, which, limit, cursor)
    else:
        ids, more = _gathered(conn, sources, limit, cursor)
    table = whole(conn)
    found = select(*shown(conn, table, chars_max)).where(table.c.id.in_(ids)).order_by(table.c.id.desc())
    return JobPage(jobs=tuple(job_record(row) for row in conn.execute(found)) if ids else (), cursor=more)


def _walked(conn: Connection, which: JobFilter, limit: int, cursor: str | None) -> tuple[Sequence[str], str | None]:
    """The ids of a page, and its successor's cursor, from the newest EXAMINED_MAX ids."""
    # A failed job has its one failed_jobs row: no need to look at all the others.
    table = failed_jobs if which.states == (JobState.FAILED,) else whole(conn)
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


def _sources(conn: Connection, which: JobFilter) -> list[Ids] | None:
    """Where all that matches is, each by an index of its own; None where that is more than a page looks at."""
    states = frozenset(which.states or JobState)
    if which.queue is None and states == frozenset(JobState):
        return None
    numbers = _live(conn, which, states - FINISHED) | _finished(conn, which.queue, states & FINISHED)
    in_index = numbers.get(JobState.PENDING, 0) if _most(which, JobState.PENDING) > EXAMINED_MAX else 0
    if in_index > PENDING_MAX or sum(numbers.values()) - in_index > EXAMINED_MAX:
        return None
    return [source for state, number in numbers.items() if number for source in _of_state(conn, which, state)]


def _live(conn: Connection, which: JobFilter, states: Collection[JobState]) -> dict[JobState, int]:
    """How many jobs the indexes give for each of these states, counted up to the bound."""
    if not states:
        return {}
    first = [_first(conn, state, which.queue).limit(_most(which, state) + 1) for state in sorted(states)]
    few = [select(part.subquery()) for part in first]
    counts = [select(func.count()).select_from(part.subquery()).scalar_subquery() for part in few]
    return dict(zip(sorted(states), conn.execute(select(*counts)).one(), strict=True))


def _most(which: JobFilter, state: JobState) -> int:
    """How many jobs of a state a page looks at, where an index leads to them."""
    return PENDING_MAX if state is JobState.PENDING and which.job_name is None else EXAMINED_MAX


def _first(conn: Connection, state: JobState, queue: str | None) -> Ids:
    if state is JobState.UNREADABLE:
        spans = [
            select(select(jobs.c.id).where(*span).limit(EXAMINED_MAX + 1).subquery()) for span in in_no_state(conn)
        ]
        return select(union_all(*spans).subquery().c.id)
    conditions: dict[JobState, list[ColumnElement[bool]]] = {
        JobState.PENDING: is_pending(conn, queue),
        JobState.PROCESSING: [is_processing(conn)],
        JobState.MOVING: [jobs.c.moving_token.is_not(None)],
    }
    return select(jobs.c.id).where(*conditions[state])


def _finished(conn: Connection, queue: str | None, states: Collection[JobState]) -> dict[JobState, int]:
    """How many finished jobs the indexes give for each of these states, from the counters."""
    if not states:
        return {}
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


def _of_state(conn: Connection, which: JobFilter, state: JobState) -> list[Ids]:
    if state is JobState.FAILED:
        return [select(failed_jobs.c.job_id).where(*_named(which, failed_jobs))]
    if state is JobState.PENDING:
        return [_first(conn, state, which.queue).where(*_named(which, jobs, has_queue=True))]
    if state is JobState.UNREADABLE:
        return [select(jobs.c.id).where(*span, *_named(which, jobs)) for span in in_no_state(conn)]
    if state not in FINISHED:
        return [_first(conn, state, which.queue).where(*_named(which, jobs))]
    here = select(jobs.c.id).where(*is_finished(conn, state), *_named(which, jobs))
    is_archived = state is JobState.COMPLETED and conn.dialect.name == "postgresql"
    return [here, select(archive.c.id).where(*_named(which, archive))] if is_archived else [here]


def _named(which: JobFilter, table: FromClause, *, has_queue: bool = False) -> list[ColumnElement[Any]]:
    """The conditions on names; `has_queue`: the index sees to the queue's."""
    conditions: list[ColumnElement[Any]] = []
    if which.queue is not None and not has_queue:
        conditions.append(table.c.queue == which.queue)
    if which.job_name is not None:
        conditions.append(table.c.job_name == which.job_name)
    return conditions
