"""Moving jobs to another store: `moving` under a token, stored there, dropped here; a transfer may die anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Connection, delete, insert, select, update

from protojobs.port import rules
from protojobs.port.lifecycle import FINISHED, JobState
from protojobs.port.records import Enqueued, ExportedJob, FailedJob
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.inspecting.finding import EXAMINED_MAX
from protojobs_sqlalchemy.tables.rows import AnyRow, failed_job, job_record
from protojobs_sqlalchemy.tables.tables import FINGERPRINT_MAX
from protojobs_sqlalchemy.tables.types import job_ids
from protojobs_sqlalchemy.verbs.counting import count
from protojobs_sqlalchemy.verbs.inserting import enqueued, insert_absent

__all__ = ["drop_exported", "export_jobs", "import_jobs"]

_FIRST_ID = "00000000-0000-0000-0000-000000000000"


def export_jobs(
    conn: Connection, dialect: Dialect, token: str, cursor: str | None, limit: int
) -> tuple[list[ExportedJob], str | None]:
    """A page of pending and failed jobs, now `moving` under `token`, and where the next page begins.

    Those that are moving under it already come first, so that a page whose answer was lost is given out again.
    """
    jobs, failed_jobs = dialect.tables.jobs, dialect.tables.failed_jobs
    start = rules.check_cursor(cursor or None) or _FIRST_ID
    again = select(jobs).where(jobs.c.moving_token == token, jobs.c.id > start).order_by(jobs.c.id).limit(limit)
    rows = list(conn.execute(again.with_for_update()))
    after = rows[-1].id if rows else None
    if len(rows) < limit:
        fresh, after = _fresh(conn, dialect, start, limit - len(rows))
        if fresh:
            _set_moving(conn, dialect, token, fresh)
            moved = [row.id for row in fresh]
            rows += conn.execute(select(jobs).where(jobs.c.id.in_(moved)).order_by(jobs.c.id))
    moved = [row.id for row in rows if row.moved_from == JobState.FAILED]
    failed = conn.execute(select(failed_jobs).where(failed_jobs.c.job_id.in_(moved))) if moved else ()
    failures = {row.job_id: failed_job(row) for row in failed}
    return [_exported(row, failures.get(row.id)) for row in rows], after


def _fresh(conn: Connection, dialect: Dialect, start: str, limit: int) -> tuple[list[AnyRow], str | None]:
    """Up to `limit` locked jobs after `start`, and the cursor after them (None: there are no more)."""
    jobs = dialect.tables.jobs
    span = (
        conn.execute(select(jobs.c.id).where(jobs.c.id > start).order_by(jobs.c.id).limit(EXAMINED_MAX)).scalars().all()
    )
    if not span:
        return [], None
    movable = jobs.c.status.in_([JobState.PENDING.value, JobState.FAILED.value])
    query = select(jobs.c.id, jobs.c.queue, jobs.c.status).where(jobs.c.id > start, jobs.c.id <= span[-1], movable)
    rows = list(conn.execute(query.order_by(jobs.c.id).limit(limit).with_for_update()))
    if len(rows) == limit:
        return rows, rows[-1].id
    return rows, span[-1] if len(span) == EXAMINED_MAX else None


def _set_moving(conn: Connection, dialect: Dialect, token: str, rows: Sequence[AnyRow]) -> None:
    jobs, moved = dialect.tables.jobs, [row.id for row in rows]
    conn.execute(
        # moved_from before status: MySQL and MariaDB assign from left to right, each seeing the one before
        update(jobs)
        .where(jobs.c.id.in_(moved))
        .ordered_values(
            (jobs.c.moved_from, jobs.c.status),
            (jobs.c.status, JobState.MOVING.value),
            (jobs.c.moving_token, token),
            (jobs.c.claim_seq, dialect.tables.next_claim_seq),
        )
    )
    failed = Counter((row.queue, "failed") for row in rows if row.status == JobState.FAILED)
    count(conn, dialect, {key: -number for key, number in failed.items()})


def _exported(row: AnyRow, failed: FailedJob | None) -> ExportedJob:
    record: dict[str, Any] = asdict(job_record(row))
    record["status"] = JobState(row.moved_from)
    return ExportedJob(**record, failed=failed)


def import_jobs(conn: Connection, dialect: Dialect, exported: Sequence[ExportedJob]) -> list[Enqueued]:
    """Store exported jobs as they were; known ids are duplicates."""
    stored = insert_absent(conn, dialect, [_row(job) for job in exported])
    if dialect.archive.has_jobs(conn):
        stored = dialect.archive.without_known(conn, stored)
    kept = {job.id: job for job in exported if job.id in stored}
    failures = [_failure(job.failed) for job in kept.values() if job.failed is not None]
    if failures:
        conn.execute(insert(dialect.tables.failed_jobs), failures)
    count(conn, dialect, Counter((job.queue, job.status.value) for job in kept.values() if job.status in FINISHED))
    return enqueued(exported, stored)


def _row(job: ExportedJob) -> dict[str, Any]:
    row: dict[str, Any] = asdict(job) | {"status": job.status.value, "reserved_by": None}
    del row["failed"]
    return row


def _failure(failed: FailedJob) -> dict[str, Any]:
    return asdict(failed) | {"fingerprint": failed.fingerprint[:FINGERPRINT_MAX]}


def drop_exported(conn: Connection, dialect: Dialect, token: str, ids: Sequence[str]) -> int:
    """Delete jobs that are moving under `token`, with their failed_jobs rows."""
    wanted = job_ids(ids)
    if not wanted:
        return 0
    jobs, failed_jobs = dialect.tables.jobs, dialect.tables.failed_jobs
    mine = select(jobs.c.id).where(jobs.c.id.in_(wanted), jobs.c.moving_token == token, jobs.c.status == "moving")
    moving = list(conn.execute(mine.with_for_update()).scalars())
    if moving:
        conn.execute(delete(failed_jobs).where(failed_jobs.c.job_id.in_(moving)))
        conn.execute(delete(jobs).where(jobs.c.id.in_(moving)))
    return len(moving)
