"""Looking into the store: every query here walks an index and stops at a bound."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, and_, func, or_, select

from protojobs.errors import OptionInvalid
from protojobs.lifecycle import JobState
from protojobs.records import FailedJob, FailedPage, JobFilter, JobPage, JobRecord, QueueInfo, Stats, WorkerRecord
from protojobs_sqlalchemy import stats
from protojobs_sqlalchemy.bounds import check_count
from protojobs_sqlalchemy.conditions import is_processing
from protojobs_sqlalchemy.dialects import Mode
from protojobs_sqlalchemy.ids import canonical, known
from protojobs_sqlalchemy.rows import failed_job, job_record
from protojobs_sqlalchemy.steps import Steps
from protojobs_sqlalchemy.tables import failed_jobs, jobs, workers
from protojobs_sqlalchemy.types import from_microseconds, to_microseconds

__all__ = ["EXAMINED_MAX", "Inspection", "get_failed"]

EXAMINED_MAX = 5_000  # rows that one page looks at
_WORKERS_MAX = 10_000


class Inspection(Steps):
    """The verbs of `protojobs.protocols.Inspects`."""

    def get(self, ids: Sequence[str]) -> list[JobRecord]:
        """The jobs that exist among `ids`."""
        check_count(ids)
        return self._run(lambda conn: get(conn, ids), Mode.READ)

    def find(self, which: JobFilter, *, limit: int = 50, cursor: str | None = None) -> JobPage:
        """A page of jobs, newest id first."""
        return self._run(lambda conn: find(conn, which, limit, cursor), Mode.READ)

    def failed(self, *, queue: str | None = None, limit: int = 50, cursor: str | None = None) -> FailedPage:
        """A page of failed_jobs, the latest failure first."""
        return self._run(lambda conn: failed(conn, queue, limit, cursor), Mode.READ)

    def get_failed(self, ids: Sequence[str]) -> list[FailedJob]:
        """The rows of failed_jobs that exist among `ids`."""
        check_count(ids)
        return self._run(lambda conn: get_failed(conn, ids), Mode.READ)

    def stats(self, queue: str | None = None) -> Stats:
        """Counts of one queue or of all."""
        return self._run_at(lambda conn, now: stats.of_queue(conn, queue, now), Mode.READ)

    def queues(self) -> list[QueueInfo]:
        """Every queue that has jobs or is paused, by name."""
        return self._run_at(stats.list_queues, Mode.READ)

    def workers(self) -> list[WorkerRecord]:
        """Every worker whose row stands, oldest first."""
        return self._run(list_workers, Mode.READ)


def get(conn: Connection, ids: Sequence[str]) -> list[JobRecord]:
    """The jobs that exist among `ids`."""
    return [job_record(row) for row in conn.execute(select(jobs).where(jobs.c.id.in_(known(ids))))]


def get_failed(conn: Connection, ids: Sequence[str]) -> list[FailedJob]:
    """The failed_jobs rows that exist among `ids`."""
    return [failed_job(row) for row in conn.execute(select(failed_jobs).where(failed_jobs.c.id.in_(known(ids))))]


def find(conn: Connection, which: JobFilter, limit: int, cursor: str | None) -> JobPage:
    """A page of jobs, newest id first."""
    if cursor is not None and not canonical(cursor):
        raise _bad_cursor(cursor)
    # A failed job has its one failed_jobs row: no need to look at all the others.
    table = failed_jobs if which.states == (JobState.FAILED,) else jobs
    key = failed_jobs.c.job_id if table is failed_jobs else jobs.c.id
    span = [key < cursor] if cursor else []
    last = conn.execute(select(key).where(*span).order_by(key.desc()).offset(EXAMINED_MAX - 1).limit(1)).scalar()
    if last is not None:
        span.append(key >= last)
    query = select(key).where(*span, *_conditions(which, table)).order_by(key.desc()).limit(limit + 1)
    ids = conn.execute(query).scalars().all()
    rows = conn.execute(select(jobs).where(jobs.c.id.in_(ids[:limit])).order_by(jobs.c.id.desc())) if ids else ()
    more = ids[limit - 1] if len(ids) > limit else last
    return JobPage(jobs=tuple(job_record(row) for row in rows), cursor=more)


def _conditions(which: JobFilter, table: Table) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if which.states and table is jobs:
        conditions.append(jobs.c.status.in_([state.value for state in which.states]))
    if which.queue is not None:
        conditions.append(table.c.queue == which.queue)
    if which.job_name is not None:
        conditions.append(table.c.job_name == which.job_name)
    return conditions


def failed(conn: Connection, queue: str | None, limit: int, cursor: str | None) -> FailedPage:
    """A page of failed_jobs, the latest failure first."""
    query = select(failed_jobs)
    if queue is not None:
        query = query.where(failed_jobs.c.queue == queue)
    if cursor is not None:
        moment, last = _read_cursor(cursor)
        query = query.where(
            or_(failed_jobs.c.failed_at < moment, and_(failed_jobs.c.failed_at == moment, failed_jobs.c.id < last))
        ).where(failed_jobs.c.failed_at <= moment)
    query = query.order_by(failed_jobs.c.failed_at.desc(), failed_jobs.c.id.desc()).limit(limit + 1)
    rows = [failed_job(row) for row in conn.execute(query)]
    page = tuple(rows[:limit])
    more = f"{to_microseconds(page[-1].failed_at)}:{page[-1].id}" if len(rows) > limit else None
    return FailedPage(jobs=page, cursor=more)


def list_workers(conn: Connection) -> list[WorkerRecord]:
    """Every worker whose row stands, with the number of jobs that it holds."""
    rows = conn.execute(select(workers).order_by(workers.c.started_at, workers.c.id).limit(_WORKERS_MAX)).fetchall()
    busy = (
        select(jobs.c.reserved_by, func.count().label("held")).where(is_processing(conn)).group_by(jobs.c.reserved_by)
    )
    held: dict[str, int] = {row.reserved_by: row.held for row in conn.execute(busy)}
    return [
        WorkerRecord(
            id=row.id,
            host=row.host,
            pid=row.pid,
            queues=tuple(json.loads(row.queues)),
            concurrency=row.concurrency,
            lease_s=row.lease_s,
            isolates=bool(row.isolates),
            started_at=row.started_at,
            heartbeat_at=row.heartbeat_at,
            lease_ends_at=row.lease_ends_at,
            processing=held.get(row.id, 0),
        )
        for row in rows
    ]


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    moment, _, last = cursor.partition(":")
    if not moment.lstrip("-").isdecimal() or not canonical(last):
        raise _bad_cursor(cursor)
    return from_microseconds(int(moment)), last


def _bad_cursor(cursor: str) -> OptionInvalid:
    return OptionInvalid(f"{cursor[:60]!r} is not a cursor.", mend="Give the one of the page before, unchanged.")
