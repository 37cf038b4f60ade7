"""What a row looks like from outside: the frozen records that cross the port."""

from __future__ import annotations

from msgspec import convert
from msgspec.structs import asdict

from protojobs.port.records import ClaimedJob, ExportedJob, Fence, JobRecord
from protojobs_memory.state import Row, State

__all__ = ["claimed", "exported", "fence", "record"]


def fence(row: Row) -> Fence:
    """The row's current claim."""
    return Fence(id=row.job.id, claim_seq=row.claim_seq, reserved_by=row.reserved_by)


def claimed(row: Row) -> ClaimedJob:
    """The row as its worker sees it. By position: every job passes here, and twenty names would cost as much again."""
    job = row.job
    assert row.reserved_at is not None
    return ClaimedJob(
        job.id, row.claim_seq, row.reserved_by, job.queue, job.job_name, job.job_class, job.data, job.priority,
        row.attempts, job.max_retries, job.retry_delay, job.retry_policy, job.timeout, row.available_at,
        row.reserved_at, row.crashes, row.returns, row.reclaims, job.meta, row.cancel_requested_at is not None,
    )  # fmt: skip


def record(row: Row) -> JobRecord:
    """The row as people see it."""
    return convert(_values(row), JobRecord)


def exported(state: State, row: Row) -> ExportedJob:
    """The row with its row of failed_jobs: what the rules take."""
    failed = state.failed[row.failed_id] if row.failed_id else None
    return convert(_values(row) | {"failed": failed}, ExportedJob)


def _values(row: Row) -> dict[str, object]:
    return {**asdict(row.job), **asdict(row), "status": row.state}
