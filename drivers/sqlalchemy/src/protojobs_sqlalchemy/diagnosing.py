"""The doctor's look at the health of the database, and a job's position among those that are due.

What is looked at is written in the folder of each database. Each look is one step of its own: one that may not look
(for want of rights, say) becomes a finding and hides no other.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, and_, func, or_, select

from protojobs.errors import ContractBroken
from protojobs.port.diagnosis import Finding, Severity, judged
from protojobs.port.lifecycle import FINISHED, JobState
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.dialect import Dialect, Look, Mode
from protojobs_sqlalchemy.migrations import HEAD
from protojobs_sqlalchemy.migrations.version import version_of
from protojobs_sqlalchemy.tables.indexes import missing_indexes
from protojobs_sqlalchemy.tables.naming import Names
from protojobs_sqlalchemy.tables.types import job_ids

__all__ = ["diagnose", "encryption", "in_front", "is_local", "oldest_ended"]

_PRIORITIES_MAX = 201  # -100 to 100


def diagnose(connections: Connections, script: str) -> list[Finding]:
    """Look at the database and its settings, changing nothing. `script` is the text of a whole migration.

    Raises SchemaOutdated where it is not migrated.
    """
    findings = [connections.run(lambda conn: _schema(conn, connections.dialect.names), Mode.READ)]
    missing: Look = lambda conn: missing_indexes(conn, connections.dialect.names, script)  # noqa: E731 (one of the looks)
    for look in [missing, *connections.dialect.looks(connections.connect, script)]:
        try:
            findings += connections.run(partial(_listed, look), Mode.SINGLE, is_repeatable=True)
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


def encryption(host: str, *, is_encrypted: bool, mend: str) -> Finding:
    """Of a connection to this host: an empty one and a folder are those of a socket's file."""
    is_good = is_encrypted or is_local(host)
    if is_encrypted:
        what = "The connection to the server is encrypted."
    elif is_good:
        what = "The connection to the server does not leave this machine."
    else:
        what = f"The connection to {host} is not encrypted."
    return judged(
        "encryption",
        what,
        is_good=is_good,
        why="Whoever sees the network between here and there can read the data of all jobs.",
        mend=mend,
    )


def is_local(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    try:
        return not host or host.startswith(("/", "@")) or ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _schema(conn: Connection, names: Names) -> Finding:
    version = version_of(conn, names)
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


def in_front(conn: Connection, dialect: Dialect, job_id: str, counted_max: int, now: datetime) -> int:
    """How many due jobs of its queue a claim would lend before this pending one; lane by lane, each by jobs_ready."""
    jobs = dialect.tables.jobs
    query = select(jobs.c.queue, jobs.c.priority, jobs.c.available_at).where(jobs.c.id.in_(job_ids([job_id])))
    row = conn.execute(query.where(jobs.c.status == JobState.PENDING.value)).first()
    if row is None:
        return 0
    earlier = or_(
        jobs.c.available_at < row.available_at, and_(jobs.c.available_at == row.available_at, jobs.c.id < job_id)
    )
    total = 0
    for priority in [*_higher(conn, dialect, row.queue, row.priority), row.priority]:
        lane = select(jobs.c.id).where(*dialect.conditions.is_pending(row.queue), jobs.c.priority == priority)
        if priority == row.priority:  # by a bound of its own as well: the index knows no `or`
            lane = lane.where(jobs.c.available_at <= min(row.available_at, now), earlier)
        else:
            lane = lane.where(jobs.c.available_at <= now)
        first = lane.limit(counted_max - total).subquery()
        total += conn.execute(select(func.count()).select_from(first)).scalar_one()
        if total >= counted_max:
            break
    return total


def _higher(conn: Connection, dialect: Dialect, queue: str, priority: int) -> list[int]:
    """The priorities above this one that have pending jobs, found by jumping through jobs_ready."""
    jobs, priorities = dialect.tables.jobs, list[int]()
    for _ in range(_PRIORITIES_MAX):
        query = select(jobs.c.priority).where(*dialect.conditions.is_pending(queue), jobs.c.priority > priority)
        following = conn.execute(query.order_by(jobs.c.priority).limit(1)).scalar()
        if following is None:
            break
        priorities.append(following)
        priority = following
    return priorities


def oldest_ended(conn: Connection, dialect: Dialect) -> dict[JobState, datetime]:
    """When the oldest job that is kept ended, for each finished state; by jobs_finished."""
    jobs, times = dialect.tables.jobs, dict[JobState, datetime]()
    for state in sorted(FINISHED):
        query = (
            select(jobs.c.processed_at)
            .where(*dialect.conditions.is_finished(state))
            .order_by(jobs.c.processed_at)
            .limit(1)
        )
        ended_at = conn.execute(query).scalar()
        if ended_at is not None:
            times[state] = ended_at
    return times
