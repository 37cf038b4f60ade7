"""Reading failed_jobs: a page of all, of a queue's or of one group, and the groups."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, or_, select, union_all

from protojobs.errors import OptionInvalid, shown
from protojobs.port.records import FailedJob, FailedPage
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.tables.rows import failed_job
from protojobs_sqlalchemy.tables.types import from_microseconds, is_job_id, job_ids, to_microseconds

__all__ = ["failed_page", "get_failed"]


def get_failed(conn: Connection, dialect: Dialect, ids: Sequence[str], chars_max: int | None = None) -> list[FailedJob]:
    """The failed_jobs rows that exist among `ids`, each of a row or of its job."""
    ids, failed_jobs = job_ids(ids), dialect.tables.failed_jobs
    rows = select(*dialect.columns(failed_jobs, chars_max))
    # Two statements in one, each by its own index: an OR would read the table.
    of_jobs = rows.where(failed_jobs.c.job_id.in_(ids), failed_jobs.c.id.not_in(ids))
    return [failed_job(row) for row in conn.execute(union_all(rows.where(failed_jobs.c.id.in_(ids)), of_jobs))]


def failed_page(
    conn: Connection,
    dialect: Dialect,
    which: ColumnElement[bool] | None = None,
    *,
    limit: int,
    cursor: str | None = None,
    chars_max: int | None = None,
) -> FailedPage:
    """A page of failed_jobs, the latest failure first."""
    failed_jobs = dialect.tables.failed_jobs
    query = select(*dialect.columns(failed_jobs, chars_max))
    if which is not None:
        query = query.where(which)
    if cursor is not None:
        moment, last = _read_cursor(cursor)
        query = query.where(
            or_(failed_jobs.c.failed_at < moment, and_(failed_jobs.c.failed_at == moment, failed_jobs.c.id < last))
        ).where(failed_jobs.c.failed_at <= moment)
    query = query.order_by(failed_jobs.c.failed_at.desc(), failed_jobs.c.id.desc()).limit(limit + 1)
    rows = conn.execute(query).fetchall()
    last_row = rows[limit - 1] if len(rows) > limit else None
    more = None if last_row is None else f"{to_microseconds(last_row.failed_at)}:{last_row.id}"
    return FailedPage(jobs=tuple(failed_job(row) for row in rows[:limit]), cursor=more)


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    moment, _, last = cursor.partition(":")
    if not moment.lstrip("-").isdecimal() or not is_job_id(last):
        raise OptionInvalid(f"{shown(cursor)} is no cursor of this list.", mend="Pass one that the list gave.")
    return from_microseconds(int(moment)), last
