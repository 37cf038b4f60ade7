"""Looking into the health of the database: findings for `protojobs doctor`, and a job's place in its line.

What is looked at is written in `diagnosing_<database>.py`. Each look is one step of its own: one that may not look
(for want of rights, say) becomes a finding and hides no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import TypeAlias

from sqlalchemy import Connection, and_, func, or_, select

from protojobs.errors import ContractBroken
from protojobs.port.diagnosis import IN_FRONT_MAX, Finding, Severity, judged
from protojobs.port.lifecycle import FINISHED, JobState
from protojobs_sqlalchemy.dialect import Mode
from protojobs_sqlalchemy.migrations import HEAD
from protojobs_sqlalchemy.migrations.version import version_of
from protojobs_sqlalchemy.tables.ids import known
from protojobs_sqlalchemy.tables.indexes import missing_indexes, other_indexes
from protojobs_sqlalchemy.tables.tables import jobs
from protojobs_sqlalchemy.verbs.conditions import is_finished, is_pending
from protojobs_sqlalchemy.verbs.steps import Steps

__all__ = ["Diagnosing"]

Look: TypeAlias = Callable[[Connection], Iterator[Finding]]

_PRIORITIES_MAX = 201  # -100 to 100


class Diagnosing(Steps):
    """The verbs of `protojobs.port.diagnosis.Diagnoses`."""

    def diagnose(self) -> list[Finding]:
        """Look at the database and its settings, changing nothing. Raises SchemaOutdated where it is not migrated."""
        findings = [self._run(_schema, Mode.READ)]
        for look in self._looks():
            try:
                findings += self._run(partial(_listed, look), Mode.SINGLE, is_repeatable=True)
            except ContractBroken as error:  # most often: no right to look there
                findings.append(
                    Finding(
                        code="not_examined",
                        severity=Severity.NOTE,
                        what=f"Not everything could be looked at. {error.message}",
                        mend="Ask as a user with more rights, if you want to know.",
                    )
                )
        return findings

    def _looks(self) -> list[Look]:
        from protojobs_sqlalchemy.migrations.migrating import Schema  # Alembic is a quarter of the import time

        script = Schema(self._connections, self._dialect).sql()
        common: list[Look] = [lambda conn: missing_indexes(conn, script)]
        match self._connections.engine.dialect.name:
            case "postgresql":
                from protojobs_sqlalchemy.postgresql import diagnosis as diagnosing_postgresql

                return [*common, *diagnosing_postgresql.looks(self._connections, self._dialect, script)]
            case "sqlite":
                from protojobs_sqlalchemy.sqlite import diagnosis as diagnosing_sqlite

                return [*common, lambda conn: other_indexes(conn, script), *diagnosing_sqlite.looks(self._connections)]
            case _:
                from protojobs_sqlalchemy.mariadb import diagnosis as diagnosing_mariadb

                return [*common, lambda conn: other_indexes(conn, script), *diagnosing_mariadb.LOOKS]

    def in_front(self, job_id: str, *, counted_max: int = IN_FRONT_MAX) -> int:
        """How many due jobs of its queue a claim would lend before this pending one."""
        return self._run_at(lambda conn, now: in_front(conn, job_id, counted_max, now), Mode.READ)

    def oldest_ended(self) -> Mapping[JobState, datetime]:
        """When the oldest job that is kept ended, for each finished state."""
        return self._run(oldest_ended, Mode.READ)


def _schema(conn: Connection) -> Finding:
    version = version_of(conn)
    return judged(
        "schema",
        f"The tables are of version {version}, which this release works on."
        if version == HEAD
        else f"The tables are of version {version}, newer than this release ({HEAD}), which can work on them.",
        is_good=version == HEAD,
        bad=Severity.NOTE,
        why="A deployment is rolling out or back.",
        mend="Upgrade protojobs-sqlalchemy here too.",
    )


def _listed(look: Look, conn: Connection) -> list[Finding]:
    return list(look(conn))


def in_front(conn: Connection, job_id: str, counted_max: int, now: datetime) -> int:
    """How many due jobs of its queue a claim would lend before this pending one; lane by lane, each by jobs_ready."""
    query = select(jobs.c.queue, jobs.c.priority, jobs.c.available_at).where(jobs.c.id.in_(known([job_id])))
    row = conn.execute(query.where(jobs.c.status == JobState.PENDING.value)).first()
    if row is None:
        return 0
    earlier = or_(
        jobs.c.available_at < row.available_at, and_(jobs.c.available_at == row.available_at, jobs.c.id < job_id)
    )
    total = 0
    for priority in [*_higher(conn, row.queue, row.priority), row.priority]:
        lane = select(jobs.c.id).where(*is_pending(conn, row.queue), jobs.c.priority == priority)
        if priority == row.priority:  # by a bound of its own as well: the index knows no `or`
            lane = lane.where(jobs.c.available_at <= min(row.available_at, now), earlier)
        else:
            lane = lane.where(jobs.c.available_at <= now)
        first = lane.limit(counted_max - total).subquery()
        total += conn.execute(select(func.count()).select_from(first)).scalar_one()
        if total >= counted_max:
            break
    return total


def _higher(conn: Connection, queue: str, priority: int) -> list[int]:
    """The priorities above this one that have pending jobs, found by jumping through jobs_ready."""
    found: list[int] = []
    for _ in range(_PRIORITIES_MAX):
        query = select(jobs.c.priority).where(*is_pending(conn, queue), jobs.c.priority > priority)
        following = conn.execute(query.order_by(jobs.c.priority).limit(1)).scalar()
        if following is None:
            break
        found.append(following)
        priority = following
    return found


def oldest_ended(conn: Connection) -> dict[JobState, datetime]:
    """When the oldest job that is kept ended, for each finished state; by jobs_finished."""
    found: dict[JobState, datetime] = {}
    for state in sorted(FINISHED):
        query = select(jobs.c.processed_at).where(*is_finished(conn, state)).order_by(jobs.c.processed_at).limit(1)
        ended_at = conn.execute(query).scalar()
        if ended_at is not None:
            found[state] = ended_at
    return found
