"""Jobs that child processes import."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from protojobs import JobContext, job


@dataclass
class Summary:
    total: int
    at: datetime


@job(name="result_jobs.follower", queue="next")
def follower(n: int) -> None:
    """Comes next."""


@job(name="result_jobs.in_child", executor="process", store_result=True, max_retries=0)
def in_child(n: int, ctx: JobContext) -> Summary:
    """Returns what is no plain JSON, and asks for another job."""
    ctx.then(follower.bind(n + 1), delay=60)
    return Summary(total=n, at=datetime(2026, 1, 1, tzinfo=UTC))
