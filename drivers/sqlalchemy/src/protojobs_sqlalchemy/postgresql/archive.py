"""PostgreSQL's archive: completed jobs leave `jobs` for a table with a partition for each day, which goes as a whole.

Whatever the driver's options say, the archive is read and pruned; `archive=daily` says that jobs are put there, and
that partitions are made. A day's jobs all lie in its partition, or, where that was not made in time, all in the rest.
They are counted in rows of `counters` of that day alone, so that dropping a partition needs to count nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import LiteralString

from msgspec import Struct
from sqlalchemy import Connection, MetaData, TextClause, delete, func, select, text, union_all
from sqlalchemy.exc import DBAPIError

from protojobs.port.records import Fence
from protojobs_sqlalchemy.archive import Archive, TurnedOver
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.tables.types import job_ids
from protojobs_sqlalchemy.verbs.counting import DAY_SHARDS, count, lone_shard

__all__ = ["COLUMNS", "DAY_SHARDS", "DailyArchive"]

_DAY_S = 86_400.0
_AHEAD = 1  # days whose partition is made before they begin: who completes jobs also prunes, each minute
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_LOCK_MS = 100  # dropping a partition keeps all others from the archive while it waits for its lock
_GATHERED_MAX = 10_000  # counters that one call sums up
_MET_ANOTHER = {"55P03", "40P01"}  # SQLSTATEs: lock_timeout, deadlock
_NOT_MADE = {"23514", "42P07"}  # jobs of that day came into the rest meanwhile; somebody has a table of that name
_DENIED = "42501"
_log = logging.getLogger("protojobs.postgresql")

# What a completed job keeps, apart from status and processed_at; those with a result keep that too.
COLUMNS: LiteralString = (
    "id, queue, job_class, job_name, data, attempts, max_retries, timeout, created_at, available_at, reserved_at,"
    " priority, retry_delay, retry_policy, claim_seq, crashes, returns, reclaims, cancel_requested_at, reason,"
    " progress, meta, unique_key"
)

_HAS_ROWS = "SELECT EXISTS (SELECT FROM @jobs_archive)"
_PARTITIONS = r"""
    SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = '@jobs_archive'::regclass AND relname ~ '^{prefix}jobs_archive_\d{{8}}$' ORDER BY relname
"""
_IN_REST = "SELECT EXISTS (SELECT FROM @jobs_archive_rest WHERE processed_at >= :first AND processed_at < :end)"

_MOVE = f"""
    WITH done AS (DELETE FROM @jobs WHERE id = ANY (CAST(:ids AS uuid[])) RETURNING *)
    INSERT INTO @jobs_archive ({COLUMNS}, result, status, processed_at)
    SELECT {COLUMNS}, result, status, processed_at FROM done
"""
_COMPLETE = f"""
    WITH done AS (
        DELETE FROM @jobs
        WHERE id = CAST(:id AS uuid) AND claim_seq = :claim_seq AND reserved_by = :reserved_by RETURNING *
    ), kept AS (
        INSERT INTO @jobs_archive ({COLUMNS}, status, processed_at) SELECT {COLUMNS}, 'completed', :now FROM done
    )
    SELECT queue FROM done
"""

# The counters of days that are over, each queue's in one row: complete_in alone makes thousands a day.
_GATHER = f"""
    WITH loose AS MATERIALIZED (
        SELECT ctid AS tid FROM @counters
        WHERE shard >= {DAY_SHARDS} AND shard < :today AND shard % {DAY_SHARDS} <> 0
        LIMIT {_GATHERED_MAX} FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM @counters WHERE ctid = ANY (ARRAY (SELECT tid FROM loose)) RETURNING queue, status, shard, count
    )
    INSERT INTO @counters AS c (queue, status, shard, count)
    SELECT queue, status, shard / {DAY_SHARDS} * {DAY_SHARDS} AS day, sum(count) FROM gone
    GROUP BY queue, status, day ORDER BY queue, status, day
    ON CONFLICT (queue, status, shard) DO UPDATE SET count = c.count + excluded.count
"""
_FORGET_NAUGHT = f"DELETE FROM @counters WHERE shard >= {DAY_SHARDS} AND shard < :today AND count = 0"


class _Which(Struct, frozen=True):
    """Which archived jobs to delete one by one, in SQL."""

    condition: LiteralString
    table: LiteralString = "@jobs_archive"


_OF_QUEUE = _Which("queue = :queue")
_OLD = _Which("processed_at < :finished_before")
_OLD_IN_REST = _Which("processed_at < :finished_before", "@jobs_archive_rest")


class DailyArchive(Archive):
    """The table of completed jobs, with a partition for each day."""

    def __init__(self, dialect: Dialect, *, takes_completed: bool) -> None:
        super().__init__(dialect.tables)
        self._jobs, self._counters = dialect.tables.jobs, dialect.tables.counters
        self._archive = self._jobs.to_metadata(MetaData(), name=dialect.names.bare("jobs_archive"))
        self.tables = (self._archive,)
        self.all_jobs = union_all(select(self._jobs), select(self._archive)).subquery("jobs_and_archive")
        self.takes_completed = takes_completed
        self._dialect = dialect
        self._has_jobs = True if takes_completed else None

    def has_jobs(self, conn: Connection) -> bool:
        if self._has_jobs is None:
            self._has_jobs = bool(conn.exec_driver_sql(self._dialect.names.sql(_HAS_ROWS)).scalar_one())
        return self._has_jobs

    def holds(self, conn: Connection, ids: Iterable[str]) -> set[str]:
        wanted = job_ids(ids)
        ids_there = self._archive.c.id
        return set(conn.execute(select(ids_there).where(ids_there.in_(wanted))).scalars()) if wanted else set()

    def without_known(self, conn: Connection, stored: set[str]) -> set[str]:
        # A statement of its own, after the insert: see `jobs_archive_absent` in the migration.
        known = self.holds(conn, stored)
        if known:
            conn.execute(delete(self._jobs).where(self._jobs.c.id.in_(known)))
        return stored - known

    def complete(self, conn: Connection, claim: Fence, now: datetime) -> bool:
        values = {"id": claim.id, "claim_seq": claim.claim_seq, "reserved_by": claim.reserved_by, "now": now}
        queue = conn.execute(self._text(_COMPLETE), values).scalar()
        if queue is None:
            return False
        count(conn, self._dialect, {(queue, "completed"): 1}, _day_shard(now) + lone_shard(claim.id))
        return True

    def move(self, conn: Connection, completed: Mapping[str, str], now: datetime, shard: int) -> None:
        conn.execute(self._text(_MOVE), {"ids": list(completed)})
        numbers = Counter((queue, "completed") for queue in completed.values())
        count(conn, self._dialect, numbers, _day_shard(now) + shard)

    def clear(self, conn: Connection, queue: str, room: int) -> tuple[int, bool]:
        counters = self._counters
        total = select(func.sum(counters.c.count)).where(counters.c.queue == queue, counters.c.shard >= DAY_SHARDS)
        has_some = bool(conn.execute(total).scalar())
        return self._remove(conn, _OF_QUEUE, {"queue": queue}, room) if has_some else (0, False)

    def turn_over(self, conn: Connection, now: datetime, *, ended_by: datetime | None) -> TurnedOver:
        place = self._dialect.names.place
        place = self._dialect.names.place
        lock = f"SELECT pg_try_advisory_xact_lock(hashtext('protojobs archive'), hashtext({place}))"
        if not conn.exec_driver_sql(lock).scalar_one():
            return TurnedOver()
        conn.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_MS}")
        today = _day_of(now)
        partitions = self._dialect.names.sql(_PARTITIONS.format(prefix=self._dialect.names.prefix))
        names = set(conn.exec_driver_sql(partitions).scalars())
        dropped, denied = 0, ""
        try:
            for day in range(today, today + _AHEAD + 1) if self.takes_completed else ():
                if self._name_of(day) not in names:
                    self._make(conn, day)
            for name in sorted(names):
                if ended_by is None or _moment_of(name) + _DAY > ended_by or (gone := self._drop(conn, name)) is None:
                    break
                dropped += gone
        except DBAPIError as error:
            if _sqlstate(error) != _DENIED:
                raise
            denied = " ".join(str(error.orig).split())
            _log.warning(
                "the archive's days cannot be made or dropped, so its jobs are deleted one by one (%s)."
                " Mend: let the role that runs the workers own %s and create tables in its schema.",
                denied,
                self._dialect.names.quoted("jobs_archive"),
            )
        conn.execute(self._text(_GATHER), {"today": today * DAY_SHARDS})
        conn.execute(self._text(_FORGET_NAUGHT), {"today": today * DAY_SHARDS})
        return TurnedOver(dropped=dropped, denied=denied)

    def prune(self, conn: Connection, age: float, now: datetime, room: int, *, goes_by_days: bool) -> tuple[int, bool]:
        finished_before, which = now - timedelta(seconds=age), _OLD
        if age >= _DAY_S:  # the day goes as a whole when all of it is old enough. Where it lies in the rest it cannot.
            finished_before = _EPOCH + _day_of(finished_before) * _DAY
            which = _OLD_IN_REST if goes_by_days else _OLD
        return self._remove(conn, which, {"finished_before": finished_before}, room)

    def _text(self, statement: str) -> TextClause:
        return text(self._dialect.names.sql(statement))

    def _name_of(self, day: int) -> str:
        return self._dialect.names.bare(f"jobs_archive_{_stamp(day)}")

    def _qualified(self, name: str) -> str:
        return name if self._dialect.names.schema is None else f'"{self._dialect.names.schema}".{name}'

    def _remove(self, conn: Connection, which: _Which, values: Mapping[str, object], room: int) -> tuple[int, bool]:
        """Delete up to `room` archived jobs, and their share of the counters: how many went, and if more are left."""
        statement = self._text(f"""
            WITH old AS MATERIALIZED (
                SELECT id, processed_at FROM {which.table} WHERE {which.condition}
                ORDER BY processed_at LIMIT :room + 1 FOR UPDATE SKIP LOCKED
            ), gone AS (
                DELETE FROM @jobs_archive AS a USING (SELECT * FROM old LIMIT :room) AS o
                WHERE a.id = o.id AND a.processed_at = o.processed_at
                RETURNING queue, floor(date_part('epoch', a.processed_at) / 86400)::int * {DAY_SHARDS} AS day
            ), counted AS (
                INSERT INTO @counters AS c (queue, status, shard, count)
                SELECT queue, 'completed', day, -count(*) FROM gone GROUP BY queue, day ORDER BY queue, day
                ON CONFLICT (queue, status, shard) DO UPDATE SET count = c.count + excluded.count
            )
            SELECT (SELECT count(*) FROM old) AS found, (SELECT count(*) FROM gone) AS gone
        """)
        row = conn.execute(statement, {**values, "room": room}).one()
        return row.gone, row.found > room

    def _make(self, conn: Connection, day: int) -> None:
        first = _EPOCH + day * _DAY
        if conn.execute(self._text(_IN_REST), {"first": first, "end": first + _DAY}).scalar_one():
            return  # that day stays where it is
        name, archive = (
            self._dialect.names.quoted(f"jobs_archive_{_stamp(day)}"),
            self._dialect.names.quoted("jobs_archive"),
        )
        # Attached afterwards: PARTITION OF would keep all others from the archive. Nothing here is ever updated, and it
        # goes as a whole, so it need not be made ready for a long life.
        with _savepoint(conn, _NOT_MADE | _MET_ANOTHER):
            conn.exec_driver_sql(f"CREATE TABLE {name} (LIKE {archive}) WITH (autovacuum_vacuum_insert_threshold = -1)")
            conn.exec_driver_sql(
                f"ALTER TABLE {archive} ATTACH PARTITION {name}"
                f" FOR VALUES FROM ('{first.isoformat()}') TO ('{(first + _DAY).isoformat()}')"
            )

    def _drop(self, conn: Connection, name: str) -> int | None:
        """How many jobs went; None: others hold it."""
        shard, counters = _day_shard(_moment_of(name)), self._counters
        gone: int | None = None
        with _savepoint(conn, _MET_ANOTHER):
            conn.exec_driver_sql(f"DROP TABLE {self._qualified(name)}")
            those = (counters.c.shard >= shard, counters.c.shard < shard + DAY_SHARDS)
            gone = sum(conn.execute(delete(counters).where(*those).returning(counters.c.count)).scalars())
        return gone


def _day_shard(moment: datetime) -> int:
    """The first of the shards that count the jobs which were completed on that (UTC) day."""
    return _day_of(moment) * DAY_SHARDS


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


def _stamp(day: int) -> str:
    return f"{_EPOCH + day * _DAY:%Y%m%d}"


def _moment_of(name: str) -> datetime:
    return datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=UTC)
