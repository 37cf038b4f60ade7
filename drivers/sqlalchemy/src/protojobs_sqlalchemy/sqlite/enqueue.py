"""How jobs come into SQLite: many to a statement, since each one that is run costs more than the row that it writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from protojobs.port.records import NewJob
from protojobs_sqlalchemy.tables.types import to_microseconds

__all__ = ["store"]

_ROWS = 100  # 1,300 values of the 32,766 that a statement may have; with 500 it is no faster


def _insert(rows: int) -> str:
    row = "(?, ?, ?, ?, ?, 0, ?, ?, 'pending', ?, ?, ?, ?, ?, 0, 0, 0, 0, ?)"
    return f"""
INSERT INTO jobs (id, queue, job_class, job_name, data, attempts, max_retries, timeout, status, created_at,
                  available_at, priority, retry_delay, retry_policy, claim_seq, crashes, returns, reclaims, meta)
VALUES {", ".join([row] * rows)}
ON CONFLICT (id) DO NOTHING
"""


_ONE, _MANY = _insert(1), _insert(_ROWS)  # two texts and not one for each number: SQLite keeps what it has prepared


def store(cursor: sqlite3.Cursor, jobs: Sequence[NewJob], now: int) -> set[str]:
    """Insert the jobs whose id is not there; answers the ids that were stored. Within a step that may write."""
    whole = len(jobs) - len(jobs) % _ROWS
    count = sum(
        cursor.execute(_MANY, [value for job in jobs[first : first + _ROWS] for value in _values(job, now)]).rowcount
        for first in range(0, whole, _ROWS)
    )
    count += sum(cursor.execute(_ONE, _values(job, now)).rowcount for job in jobs[whole:])
    if count in (0, len(jobs)):
        return {job.id for job in jobs} if count else set()
    # Some were there already. Ours are at the end, one after the other, since nobody else can write meanwhile.
    before = (cursor.lastrowid or 0) - count
    return {row[0] for row in cursor.execute("SELECT id FROM jobs WHERE rowid > ?", (before,))}


def _values(job: NewJob, now: int) -> tuple[object, ...]:
    due = now + round(job.delay * 1e6) if job.available_at is None else to_microseconds(job.available_at)
    return (
        job.id,
        job.queue,
        job.job_class,
        job.job_name,
        job.data,
        job.max_retries,
        job.timeout,
        now,
        due,
        job.priority,
        job.retry_delay,
        job.retry_policy,
        job.meta,
    )
