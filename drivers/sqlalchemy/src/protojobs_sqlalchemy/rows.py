"""From rows to the records of the port."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Row, func

from protojobs.lifecycle import JobState
from protojobs.records import ClaimedJob, FailedJob, JobRecord

__all__ = ["Found", "claimed_job", "failed_job", "job_record", "shown"]

Found = Row[*tuple[Any, ...]]


def shown(conn: Connection, table: FromClause, chars_max: int | None) -> list[ColumnElement[Any]]:
    """The table's columns; with a bound, no more than so many of its long texts' characters leave the database.

    Of `data` the first, of `exception` the last.
    """
    columns: dict[str, ColumnElement[Any]] = dict(table.c.items())
    if chars_max is not None:
        columns["data"] = func.substr(table.c.data, 1, chars_max).label("data")
        if "exception" in columns:
            is_sqlite = conn.dialect.name == "sqlite"
            text = table.c.exception
            end = func.substr(text, -chars_max, chars_max) if is_sqlite else func.right(text, chars_max)
            columns["exception"] = end.label("exception")
    return list(columns.values())


def job_record(row: Found) -> JobRecord:
    """A row of `jobs` as it stands."""
    return JobRecord(
        id=row.id,
        queue=row.queue,
        job_name=row.job_name,
        job_class=row.job_class,
        data=row.data,
        status=JobState(row.status),
        priority=row.priority,
        attempts=row.attempts,
        max_retries=row.max_retries,
        retry_delay=row.retry_delay,
        retry_policy=row.retry_policy,
        timeout=row.timeout,
        created_at=row.created_at,
        available_at=row.available_at,
        reserved_at=row.reserved_at,
        processed_at=row.processed_at,
        reserved_by=row.reserved_by or "",
        claim_seq=row.claim_seq,
        crashes=row.crashes,
        returns=row.returns,
        reclaims=row.reclaims,
        progress=row.progress,
        cancel_requested_at=row.cancel_requested_at,
        reason=row.reason,
        meta=row.meta,
    )


def claimed_job(row: Found) -> ClaimedJob:
    """A row of `jobs` that a worker holds."""
    return ClaimedJob(
        id=row.id,
        claim_seq=row.claim_seq,
        reserved_by=row.reserved_by,
        queue=row.queue,
        job_name=row.job_name,
        job_class=row.job_class,
        data=row.data,
        priority=row.priority,
        attempts=row.attempts,
        max_retries=row.max_retries,
        retry_delay=row.retry_delay,
        retry_policy=row.retry_policy,
        timeout=row.timeout,
        available_at=row.available_at,
        reserved_at=row.reserved_at,
        crashes=row.crashes,
        returns=row.returns,
        reclaims=row.reclaims,
        meta=row.meta,
        is_cancel_requested=row.cancel_requested_at is not None,
    )


def failed_job(row: Found) -> FailedJob:
    """A row of `failed_jobs`."""
    return FailedJob(
        id=row.id,
        job_id=row.job_id,
        queue=row.queue,
        job_class=row.job_class,
        job_name=row.job_name,
        data=row.data,
        attempts=row.attempts,
        exception=row.exception,
        failed_at=row.failed_at,
        fingerprint=row.fingerprint,
    )
