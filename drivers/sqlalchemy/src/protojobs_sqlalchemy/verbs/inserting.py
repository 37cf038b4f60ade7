"""Inserting rows whose key is not there yet, by Core alone; jobs so in callers' transactions and in transfers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, Table, insert
from sqlalchemy.exc import IntegrityError

from protojobs.port.records import Enqueued, NewJob
from protojobs_sqlalchemy.tables.tables import jobs
from protojobs_sqlalchemy.verbs.conditions import is_mysql
from protojobs_sqlalchemy.verbs.upserts import insert_unless_there

__all__ = ["answers", "due_queues", "insert_absent", "inserts", "new_row"]

_MYSQL_DUPLICATE = 1062


def new_row(job: NewJob, now: datetime) -> dict[str, object]:
    """The row of a job that arrives now."""
    return {
        "id": job.id,
        "queue": job.queue,
        "job_class": job.job_class,
        "job_name": job.job_name,
        "data": job.data,
        "attempts": 0,
        "max_retries": job.max_retries,
        "timeout": job.timeout,
        "status": "pending",
        "created_at": now,
        "available_at": job.available_at or now + timedelta(seconds=job.delay),
        "priority": job.priority,
        "retry_delay": job.retry_delay,
        "retry_policy": job.retry_policy,
        "claim_seq": 0,
        "crashes": 0,
        "returns": 0,
        "reclaims": 0,
        "meta": job.meta,
    }


def insert_absent(conn: Connection, rows: Sequence[Mapping[str, object]]) -> set[str]:
    """Insert the rows whose id is not in `jobs` (nor earlier among `rows`); answers the ids that were inserted."""
    first: dict[str, Mapping[str, object]] = {}
    for row in rows:
        first.setdefault(str(row["id"]), row)
    batch = list(first.values())
    if not batch:
        return set()
    if is_mysql(conn):
        return _insert_on_mysql(conn, batch)
    return set(conn.execute(insert_unless_there(conn, jobs).returning(jobs.c.id), batch).scalars())


def _insert_on_mysql(conn: Connection, batch: Sequence[Mapping[str, object]]) -> set[str]:
    """All at once; only when one of them is there already, one by one.

    Not INSERT IGNORE, which would also cut what is too long; and there is no telling the rows that ON DUPLICATE KEY
    left alone.
    """
    # By hand: a deadlock takes the savepoint with it, and SQLAlchemy's own would then hide it behind error 1305.
    conn.exec_driver_sql("SAVEPOINT protojobs_insert")
    try:
        conn.execute(insert(jobs), batch)
    except IntegrityError as error:
        _must_be_duplicate(error)
        conn.exec_driver_sql("ROLLBACK TO SAVEPOINT protojobs_insert")
        return {str(row["id"]) for row in batch if _inserts_on_mysql(conn, jobs, row)}
    return {str(row["id"]) for row in batch}


def inserts(conn: Connection, table: Table, row: Mapping[str, object]) -> bool:
    """Insert one row. False: its key is there already, and nothing was done."""
    if is_mysql(conn):
        return _inserts_on_mysql(conn, table, row)
    absent = insert_unless_there(conn, table).returning(*table.primary_key)
    return conn.execute(absent, row).first() is not None


def _inserts_on_mysql(conn: Connection, table: Table, row: Mapping[str, object]) -> bool:
    try:
        conn.execute(insert(table), row)
    except IntegrityError as error:
        _must_be_duplicate(error)
        return False
    return True


def _must_be_duplicate(error: IntegrityError) -> None:
    if error.orig is None or error.orig.args[0] != _MYSQL_DUPLICATE:
        raise error


def due_queues(jobs: Sequence[NewJob]) -> set[str]:
    """The queues to ring for: those of jobs that are not merely for later."""
    return {job.queue for job in jobs if not job.delay or job.available_at}


def answers(ids: Sequence[str], stored: set[str]) -> list[Enqueued]:
    """For each id, in order, whether this call stored it; the second of two equal ones is a duplicate."""
    if len(stored) == len(ids):  # the usual case
        return [Enqueued(id=job_id) for job_id in ids]
    left = set(stored)
    found: list[Enqueued] = []
    for job_id in ids:
        found.append(Enqueued(id=job_id) if job_id in left else Enqueued(id=job_id, duplicate_of=job_id))
        left.discard(job_id)
    return found
