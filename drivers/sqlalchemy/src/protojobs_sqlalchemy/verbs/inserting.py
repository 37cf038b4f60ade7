"""Storing jobs: what one call may store, the rows of new jobs, and which of them were there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter

from sqlalchemy import Connection

from protojobs.errors import OptionInvalid, shown
from protojobs.port import rules
from protojobs.port.records import Enqueued, ExportedJob, NewJob
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.tables.tables import JOB_CLASS_MAX
from protojobs_sqlalchemy.tables.types import are_job_ids, is_job_id

__all__ = ["check_new", "due_queues", "enqueued", "insert_absent", "kind_of", "new_row"]


kind_of = attrgetter(
    *("queue", "job_class", "job_name", "max_retries", "timeout", "available_at", "delay", "priority"),
    *("retry_delay", "retry_policy", "meta"),
)
"""All of a new job but its id and its data, in which the jobs of one call mostly differ alone."""


def check_new(jobs: Sequence[NewJob]) -> None:
    """Refuse too many jobs, too large ones, and what a column would cut."""
    rules.check_jobs(jobs)
    ids = [job.id for job in jobs]
    if ids and not are_job_ids(",".join(ids), len(ids)):
        wrong = next(job_id for job_id in ids if not is_job_id(job_id))
        raise OptionInvalid(f"{shown(wrong, 60)} is no UUID in lower case.", mend="Leave id= out, or use fresh_id().")
    for job_class in {job.job_class for job in jobs}:
        if len(job_class) > JOB_CLASS_MAX:
            raise OptionInvalid(f"job_class {shown(job_class, 40)} is longer than {JOB_CLASS_MAX} characters.")


_PUSHED = (
    *("id", "queue", "job_class", "job_name", "data", "max_retries", "timeout", "priority", "retry_delay"),
    *("retry_policy", "meta"),
)
_UNTRIED = {"status": "pending", "attempts": 0, "claim_seq": 0, "crashes": 0, "returns": 0, "reclaims": 0}


def new_row(job: NewJob, now: datetime) -> dict[str, object]:
    """The row of a job that arrives now."""
    due = job.available_at or now + timedelta(seconds=job.delay)
    return {**{name: getattr(job, name) for name in _PUSHED}, **_UNTRIED, "created_at": now, "available_at": due}


def insert_absent(conn: Connection, dialect: Dialect, rows: Sequence[Mapping[str, object]]) -> set[str]:
    """Insert the rows whose id is not in `jobs` (nor earlier among `rows`); the ids that were inserted."""
    first: dict[str, Mapping[str, object]] = {}
    for row in rows:
        first.setdefault(str(row["id"]), row)
    return dialect.inserts_each(conn, dialect.tables.jobs, list(first.values())) if first else set()


def due_queues(jobs: Sequence[NewJob]) -> set[str]:
    """The queues whose workers are to be woken: those of jobs that are not merely for later."""
    return {job.queue for job in jobs if not job.delay or job.available_at}


def enqueued(jobs: Sequence[NewJob | ExportedJob], stored: set[str]) -> list[Enqueued]:
    """For each job, in order, whether this call stored it; the second of two with one id is a duplicate."""
    if len(stored) == len(jobs):
        return [Enqueued(id=job.id) for job in jobs]
    left = set(stored)
    replies: list[Enqueued] = []
    for job in jobs:
        replies.append(Enqueued(id=job.id) if job.id in left else Enqueued(id=job.id, duplicate_of=job.id))
        left.discard(job.id)
    return replies
