"""Looking into the store: every query here walks an index and stops at a bound."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from protojobs.port.records import (
    COUNTED_MAX,
    FailedJob,
    FailedPage,
    JobFilter,
    JobPage,
    JobRecord,
    QueueInfo,
    Stats,
    WorkerRecord,
)
from protojobs_sqlalchemy.dialect import Mode
from protojobs_sqlalchemy.inspecting import stats
from protojobs_sqlalchemy.inspecting.failures import failed_page, get_failed
from protojobs_sqlalchemy.inspecting.finding import find
from protojobs_sqlalchemy.postgresql.archive import whole
from protojobs_sqlalchemy.tables.ids import known
from protojobs_sqlalchemy.tables.rows import job_record
from protojobs_sqlalchemy.tables.tables import failed_jobs, jobs, workers
from protojobs_sqlalchemy.verbs.bounds import check_count, check_names
from protojobs_sqlalchemy.verbs.conditions import is_processing
from protojobs_sqlalchemy.verbs.steps import Steps

__all__ = ["Inspection"]

_WORKERS_MAX = 10_000


class Inspection(Steps):
    """The verbs of `protojobs.port.administration.Inspects`."""

    def get(self, ids: Sequence[str]) -> list[JobRecord]:
        """The jobs that exist among `ids`."""
        check_count(ids)
        return self._run(lambda conn: get(conn, ids), Mode.READ)

    def find(
        self, which: JobFilter, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> JobPage:
        """A page of jobs, newest id first."""
        check_names(which.queue, which.job_name)
        return self._run(lambda conn: find(conn, which, limit, cursor, chars_max), Mode.READ)

    def failed(
        self, *, queue: str | None = None, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> FailedPage:
        """A page of failed_jobs, the latest failure first."""
        check_names(queue)
        which = failed_jobs.c.queue == queue if queue is not None else None
        return self._run(
            lambda conn: failed_page(conn, which, limit=limit, cursor=cursor, chars_max=chars_max), Mode.READ
        )

    def get_failed(self, ids: Sequence[str]) -> list[FailedJob]:
        """The rows of failed_jobs that exist among `ids`, each of a row or of its job."""
        check_count(ids)
        return self._run(lambda conn: get_failed(conn, ids), Mode.READ)

    def stats(self, queue: str | None = None, *, counted_max: int = COUNTED_MAX) -> Stats:
        """Counts of one queue or of all."""
        check_names(queue)
        return self._run_at(lambda conn, now: stats.of_queue(conn, queue, now, counted_max), Mode.READ)

    def queues(self, *, after: str = "", limit: int = 10_000, counted_max: int = COUNTED_MAX) -> list[QueueInfo]:
        """The queues that have jobs or are paused, by name, from the first one behind `after`."""
        check_names(after)
        return self._run_at(
            lambda conn, now: stats.list_queues(conn, now, after=after, limit=limit, counted_max=counted_max), Mode.READ
        )

    def workers(self) -> list[WorkerRecord]:
        """Every worker whose row stands, oldest first."""
        return self._run(list_workers, Mode.READ)


def get(conn: Connection, ids: Sequence[str]) -> list[JobRecord]:
    """The jobs that exist among `ids`."""
    table = whole(conn)
    return [job_record(row) for row in conn.execute(select(table).where(table.c.id.in_(known(ids))))]


def list_workers(conn: Connection) -> list[WorkerRecord]:
    """Every worker whose row stands, with the number of jobs that it holds."""
    busy = (
        select(jobs.c.reserved_by, func.count().label("held"))
        .where(is_processing(conn))
        .group_by(jobs.c.reserved_by)
        .subquery()
    )
    rows = conn.execute(
        select(workers, func.coalesce(busy.c.held, 0).label("held"))
        .outerjoin(busy, busy.c.reserved_by == workers.c.id)
        .order_by(workers.c.started_at, workers.c.id)
        .limit(_WORKERS_MAX)
    )
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
            processing=row.held,
        )
        for row in rows
    ]
