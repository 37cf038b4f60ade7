"""PostgreSQL's archive: completed jobs leave `jobs` for a table with a partition for each day, which goes as a whole.

Whatever the driver's options say, the archive is read and pruned; `archive=daily` says that jobs are put there, and
that partitions are made. A day's jobs all lie in its partition, or, where that was not made in time, all in the rest.
They are counted in rows of `counters` of that day alone, so that dropping a partition needs to count nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import LiteralString

from msgspec import Struct
from sqlalchemy import Connection, FromClause, MetaData, delete, func, select, text, union_all
from sqlalchemy.exc import DBAPIError

from protojobs.port.records import Fence
from protojobs_sqlalchemy.tables.ids import known
from protojobs_sqlalchemy.tables.tables import counters, jobs
from protojobs_sqlalchemy.verbs.counting import count, lone_shard

__all__ = [
    "COLUMNS",
    "DAY_S",
    "DAY_SHARDS",
    "Old",
    "Place",
    "TurnedOver",
    "archive",
    "archived",
    "complete",
    "day_shard",
    "has_rows",
    "holds",
    "move",
    "prune",
    "remove",
    "turn_over",
    "whole",
    "without_archived",
]

DAY_S = 86_400.0
DAY_SHARDS = (
    10_000  # a counter's shard is this times the day's number, plus a shard as elsewhere; day 0 is `jobs` itself
)
_AHEAD = 1  # days whose partition is made before they begin: who completes jobs also prunes, each minute
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_LOCK_MS = 100  # dropping a partition keeps all others from the archive while it waits for its lock
_GATHERED_MAX = 10_000  # counters that one call sums up
_MET_ANOTHER = {"55P03", "40P01"}  # SQLSTATEs: lock_timeout, deadlock
_NOT_MADE = {"23514", "42P07"}  # jobs of that day came into the rest meanwhile; somebody has a table of that name
_DENIED = "42501"
_OLD: LiteralString = "processed_at < :finished_before"
_log = logging.getLogger("protojobs.postgresql")

# What a completed job keeps, apart from status and processed_at.
COLUMNS: LiteralString = (
    "id, queue, job_class, job_name, data, attempts, max_retries, timeout, created_at, available_at, reserved_at,"
    " priority, retry_delay, retry_policy, claim_seq, crashes, returns, reclaims, cancel_requested_at, reason,"
    " progress, meta, unique_key"
)

archive = jobs.to_metadata(MetaData(), name="jobs_archive")
_both = union_all(select(jobs), select(archive)).subquery("jobs_and_archive")

_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('protojobs archive'), hashtext(current_schema()))"
_HAS_ROWS = "SELECT EXISTS (SELECT FROM jobs_archive)"
_PARTITIONS = r"""
    SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'jobs_archive'::regclass AND relname ~ '^jobs_archive_\d{8}$' ORDER BY relname
"""
_IN_REST = text("SELECT EXISTS (SELECT FROM jobs_archive_rest WHERE processed_at >= :first AND processed_at < :end)")

_MOVE = text(f"""
    WITH done AS (DELETE FROM jobs WHERE id = ANY (CAST(:ids AS uuid[])) RETURNING *)
    INSERT INTO jobs_archive ({COLUMNS}, status, processed_at) SELECT {COLUMNS}, status, processed_at FROM done
""")
_COMPLETE = text(f"""
    WITH done AS (
        DELETE FROM jobs
        WHERE id = CAST(:id AS uuid) AND claim_seq = :claim_seq AND reserved_by = :reserved_by RETURNING *
    ), kept AS (
        INSERT INTO jobs_archive ({COLUMNS}, status, processed_at) SELECT {COLUMNS}, 'completed', :now FROM done
    )
    SELECT queue FROM done
""")

# The counters of days that are over, each queue's in one row: complete_in alone makes thousands a day.
_GATHER = text(f"""
    WITH loose AS MATERIALIZED (
        SELECT ctid AS tid FROM counters
        WHERE shard >= {DAY_SHARDS} AND shard < :today AND shard % {DAY_SHARDS} <> 0
        LIMIT {_GATHERED_MAX} FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM counters WHERE ctid = ANY (ARRAY (SELECT tid FROM loose)) RETURNING queue, status, shard, count
    )
    INSERT INTO counters AS c (queue, status, shard, count)
    SELECT queue, status, shard / {DAY_SHARDS} * {DAY_SHARDS} AS day, sum(count) FROM gone
    GROUP BY queue, status, day ORDER BY queue, status, day
    ON CONFLICT (queue, status, shard) DO UPDATE SET count = c.count + excluded.count
""")
_FORGET_NAUGHT = text(f"DELETE FROM counters WHERE shard >= {DAY_SHARDS} AND shard < :today AND count = 0")


class Place(Struct, frozen=True):
    """Which archived jobs to delete one by one, in SQL."""

    condition: LiteralString
    table: LiteralString = "jobs_archive"


class Old(Struct, frozen=True):
    """Which archived jobs are old enough, in seconds since their end."""

    age: float
    is_denied: bool  # partitions cannot be dropped


class TurnedOver(Struct, frozen=True):
    """What became of the partitions."""

    dropped: int = 0  # jobs that went with theirs
    denied: str = ""  # the server's words, where the role may not make or drop them


def whole(conn: Connection) -> FromClause:
    """All jobs: `jobs`, and on PostgreSQL the archive too."""
    return _both if conn.dialect.name == "postgresql" else jobs


def has_rows(conn: Connection) -> bool:
    """Whether anything lies in the archive."""
    return bool(conn.exec_driver_sql(_HAS_ROWS).scalar_one())


def archived(conn: Connection, ids: Iterable[str]) -> set[str]:
    """Those of the ids whose jobs lie in the archive."""
    wanted = known(ids)
    if not wanted or conn.dialect.name != "postgresql":
        return set()
    return set(conn.execute(select(archive.c.id).where(archive.c.id.in_(wanted))).scalars())


def holds(conn: Connection, queue: str) -> bool:
    """Whether jobs of that queue lie in the archive, as they are counted."""
    if conn.dialect.name != "postgresql":
        return False
    total = select(func.sum(counters.c.count)).where(counters.c.queue == queue, counters.c.shard >= DAY_SHARDS)
    return bool(conn.execute(total).scalar())


def day_shard(moment: datetime) -> int:
    """The first of the shards that count the jobs which were completed on that (UTC) day."""
    return _day_of(moment) * DAY_SHARDS


def move(conn: Connection, ids: Iterable[str]) -> None:
    """Move completed jobs, which this transaction holds, from `jobs` to the archive."""
    conn.execute(_MOVE, {"ids": list(ids)})


def complete(conn: Connection, claim: Fence, now: datetime) -> bool:
    """Complete a job into the archive and count it; False where the claim is not its current one."""
    values = {"id": claim.id, "claim_seq": claim.claim_seq, "reserved_by": claim.reserved_by, "now": now}
    queue = conn.execute(_COMPLETE, values).scalar()
    if queue is None:
        return False
    count(conn, {(queue, "completed"): 1}, day_shard(now) + lone_shard(claim.id))
    return True


def without_archived(conn: Connection, stored: set[str]) -> set[str]:
    """Those of the jobs that this transaction has just inserted whose id is new; the others are taken out again.

    A statement of its own, after the insert: see `jobs_archive_absent` in the migration.
    """
    found = archived(conn, stored)
    if found:
        conn.execute(delete(jobs).where(jobs.c.id.in_(found)))
    return stored - found


def remove(conn: Connection, place: Place, values: Mapping[str, object], room: int) -> tuple[int, bool]:
    """Delete up to `room` archived jobs, and their share of the counters: how many went, and whether there are more."""
    statement = text(f"""
        WITH old AS MATERIALIZED (
            SELECT id, processed_at FROM {place.table} WHERE {place.condition}
            ORDER BY processed_at LIMIT :room + 1 FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM jobs_archive AS a USING (SELECT * FROM old LIMIT :room) AS o
            WHERE a.id = o.id AND a.processed_at = o.processed_at
            RETURNING queue, floor(date_part('epoch', a.processed_at) / 86400)::int * {DAY_SHARDS} AS day
        ), counted AS (
            INSERT INTO counters AS c (queue, status, shard, count)
            SELECT queue, 'completed', day, -count(*) FROM gone GROUP BY queue, day ORDER BY queue, day
            ON CONFLICT (queue, status, shard) DO UPDATE SET count = c.count + excluded.count
        )
        SELECT (SELECT count(*) FROM old) AS found, (SELECT count(*) FROM gone) AS gone
    """)
    row = conn.execute(statement, {**values, "room": room}).one()
    return row.gone, row.found > room


def prune(conn: Connection, old: Old, now: datetime, room: int) -> tuple[int, bool]:
    """Delete one by one what goes with no partition: up to `room` jobs. As `remove`."""
    finished_before = now - timedelta(seconds=old.age)
    place = Place(_OLD)
    if old.age >= DAY_S:  # the day goes as a whole when all of it is old enough. Where it lies in the rest it cannot.
        finished_before = _EPOCH + _day_of(finished_before) * _DAY
        place = place if old.is_denied else Place(_OLD, "jobs_archive_rest")
    return remove(conn, place, {"finished_before": finished_before}, room)


def turn_over(conn: Connection, now: datetime, *, ended_by: datetime | None, makes: bool) -> TurnedOver:
    """Drop the partitions of days that ended by `ended_by`; make those of today and the next days, if `makes`.

    Passed over, for the next call, is what another process does at this moment, and what others hold locked.
    """
    if not conn.exec_driver_sql(_LOCK).scalar_one():
        return TurnedOver()
    conn.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_MS}")
    today = _day_of(now)
    names = set(conn.exec_driver_sql(_PARTITIONS).scalars())
    dropped, denied = 0, ""
    try:
        for day in range(today, today + _AHEAD + 1) if makes else ():
            if _name_of(day) not in names:
                _make(conn, day)
        for name in sorted(names):
            if ended_by is None or _moment_of(name) + _DAY > ended_by or (gone := _drop(conn, name)) is None:
                break
            dropped += gone
    except DBAPIError as error:
        if _sqlstate(error) != _DENIED:
            raise
        denied = " ".join(str(error.orig).split())
        _log.warning(
            "the archive's days cannot be made or dropped, so its jobs are deleted one by one (%s)."
            " Mend: let the role that runs the workers own jobs_archive and create tables in its schema.",
            denied,
        )
    conn.execute(_GATHER, {"today": today * DAY_SHARDS})
    conn.execute(_FORGET_NAUGHT, {"today": today * DAY_SHARDS})
    return TurnedOver(dropped=dropped, denied=denied)


def _make(conn: Connection, day: int) -> None:
    first = _EPOCH + day * _DAY
    if conn.execute(_IN_REST, {"first": first, "end": first + _DAY}).scalar_one():
        return  # that day stays where it is
    # Attached afterwards: PARTITION OF would keep all others from the archive. Nothing here is ever updated, and it
    # goes as a whole, so it need not be made ready for a long life.
    with _savepoint(conn, _NOT_MADE | _MET_ANOTHER):
        conn.exec_driver_sql(
            f"CREATE TABLE {_name_of(day)} (LIKE jobs_archive) WITH (autovacuum_vacuum_insert_threshold = -1)"
        )
        conn.exec_driver_sql(
            f"ALTER TABLE jobs_archive ATTACH PARTITION {_name_of(day)}"
            f" FOR VALUES FROM ('{first.isoformat()}') TO ('{(first + _DAY).isoformat()}')"
        )


def _drop(conn: Connection, name: str) -> int | None:
    """How many jobs went; None: others hold it."""
    shard = day_shard(_moment_of(name))
    gone: int | None = None
    with _savepoint(conn, _MET_ANOTHER):
        conn.exec_driver_sql(f"DROP TABLE {name}")
        those = (counters.c.shard >= shard, counters.c.shard < shard + DAY_SHARDS)
        gone = sum(conn.execute(delete(counters).where(*those).returning(counters.c.count)).scalars())
    return gone


@contextmanager
def _savepoint(conn: Connection, passing: set[str]) -> Generator[None]:
    """Undo the block where it fails in one of the ways of `passing`, and with a denial; else it goes on as it was."""
    conn.exec_driver_sql("SAVEPOINT protojobs_archive")
    try:
        yield
    except DBAPIError as error:
        if _sqlstate(error) in passing | {_DENIED}:
            conn.exec_driver_sql("ROLLBACK TO SAVEPOINT protojobs_archive")
        if _sqlstate(error) not in passing:
            raise
    else:
        conn.exec_driver_sql("RELEASE SAVEPOINT protojobs_archive")


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _day_of(moment: datetime) -> int:
    return (moment - _EPOCH) // _DAY


def _name_of(day: int) -> str:
    return f"jobs_archive_{_EPOCH + day * _DAY:%Y%m%d}"


def _moment_of(name: str) -> datetime:
    return datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=UTC)
