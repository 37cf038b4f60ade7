"""What a row looks like from outside: the frozen records that cross the port."""

from __future__ import annotations

from datetime import datetime

from protojobs.entropy import fresh_id
from protojobs.port.records import ClaimedJob, FailedJob, Fence, JobRecord, LostJob, Settlement
from protojobs_memory.state import Row

__all__ = ["claimed", "failure", "fence", "lost", "record"]


def fence(row: Row) -> Fence:
    """The row's current claim."""
    return Fence(id=row.job.id, claim_seq=row.claim_seq, reserved_by=row.reserved_by)


def claimed(row: Row) -> ClaimedJob:
    """The row as it is lent."""
    job = row.job
    assert row.reserved_at is not None
    return ClaimedJob(
        id=job.id,
        claim_seq=row.claim_seq,
        reserved_by=row.reserved_by,
        queue=job.queue,
        job_name=job.job_name,
        job_class=job.job_class,
        data=job.data,
        priority=job.priority,
        attempts=row.attempts,
        max_retries=job.max_retries,
        retry_delay=job.retry_delay,
        retry_policy=job.retry_policy,
        timeout=job.timeout,
        available_at=row.available_at,
        reserved_at=row.reserved_at,
        crashes=row.crashes,
        returns=row.returns,
        reclaims=row.reclaims,
        meta=job.meta,
        is_cancel_requested=row.cancel_requested_at is not None,
    )


def lost(row: Row, holder: str) -> LostJob:
    """The row after it was taken back from `holder`."""
    job = row.job
    return LostJob(
        id=job.id,
        queue=job.queue,
        job_name=job.job_name,
        job_class=job.job_class,
        attempts=row.attempts,
        state=row.state,
        reserved_by=holder,
    )


def failure(row: Row, said: Settlement, now: datetime) -> FailedJob:
    """The row's entry in failed_jobs."""
    job = row.job
    return FailedJob(
        id=fresh_id(),
        job_id=job.id,
        queue=job.queue,
        job_class=job.job_class,
        job_name=job.job_name,
        data=job.data,
        attempts=row.attempts,
        exception=said.error,
        failed_at=now,
        fingerprint=said.fingerprint,
    )


def record(row: Row) -> JobRecord:
    """The row as people see it."""
    job = row.job
    return JobRecord(
        id=job.id,
        queue=job.queue,
        job_name=job.job_name,
        job_class=job.job_class,
        data=job.data,
        status=row.state,
        priority=job.priority,
        attempts=row.attempts,
        max_retries=job.max_retries,
        retry_delay=job.retry_delay,
        retry_policy=job.retry_policy,
        timeout=job.timeout,
        created_at=row.created_at,
        available_at=row.available_at,
        reserved_at=row.reserved_at,
        processed_at=row.processed_at,
        reserved_by=row.reserved_by,
        claim_seq=row.claim_seq,
        crashes=row.crashes,
        returns=row.returns,
        reclaims=row.reclaims,
        progress=row.progress,
        cancel_requested_at=row.cancel_requested_at,
        reason=row.reason,
        meta=job.meta,
    )
