"""What came of jobs: their state, their result, the last line of their error."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from protojobs.port.results import JobResult, last_line
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.tables.rows import state_of
from protojobs_sqlalchemy.tables.types import job_ids

__all__ = ["get_results"]

ENDING_CHARS = 4_000  # of a traceback that are read: a last line that is longer is read whole


def get_results(conn: Connection, dialect: Dialect, ids: Sequence[str]) -> list[JobResult]:
    """How the jobs stand that exist among `ids`, and what came of them."""
    wanted, jobs = job_ids(ids), dialect.archive.all_jobs
    if not wanted:
        return []
    columns = [jobs.c[name] for name in ("id", "job_name", "status", "result", "reason", "processed_at")]
    rows = conn.execute(select(*columns).where(jobs.c.id.in_(wanted))).all()
    errors = _errors(conn, dialect, [row.id for row in rows if row.status == "failed"])
    return [
        JobResult(
            id=row.id,
            job_name=row.job_name,
            state=state_of(row.status),
            result=row.result,
            error=errors.get(row.id, ""),
            reason=row.reason,
            ended_at=row.processed_at,
        )
        for row in rows
    ]


def _errors(conn: Connection, dialect: Dialect, failed: Sequence[str]) -> dict[str, str]:
    """The last lines of the errors of failed jobs, by id."""
    if not failed:
        return {}
    rows = dialect.tables.failed_jobs
    ending = dialect.last_chars(rows.c.exception, ENDING_CHARS)
    found = conn.execute(select(rows.c.job_id, ending).where(rows.c.job_id.in_(failed)))
    texts = {job_id: text for job_id, text in found}
    cut = [job_id for job_id, text in texts.items() if len(text) >= ENDING_CHARS and "\n" not in text.rstrip()]
    if cut:
        whole = conn.execute(select(rows.c.job_id, rows.c.exception).where(rows.c.job_id.in_(cut)))
        texts |= {job_id: text for job_id, text in whole}
    return {job_id: last_line(text) for job_id, text in texts.items()}
