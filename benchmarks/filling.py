"""A backlog of millions in seconds: one job is pushed as it should be, and the store copies its row.

The rows differ from pushed ones in nothing that a statement looks at: ids are UUIDv7 in the order of their times, each
has a time of its own, and every index was there while they came, but for many millions. A store without SQL gets
them by `enqueue`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, create_engine, inspect

from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.records import NewJob
from protojobs_sqlalchemy import SQLAlchemyDriver

INDEXED_MAX = 2_000_000  # more rows than these get their indexes on PostgreSQL afterwards: a third of the time
CHUNK = 250_000  # rows in one statement; between two of them a line says how far it is
BATCH = 1_000  # jobs in one call of `enqueue`
AGED_S = 30 * 24 * 3600.0  # the age of finished jobs: beyond every retention that anybody sets
TOLD_S = 5.0  # a fill that is done sooner says nothing
SAID_S = 2.0
VISIBLE_SHARE = 0.9  # of the pages of jobs
VACUUMED_S = 60.0  # a snapshot that is held for longer is not one of upkeep

# Each column that differs from the template's row, of row `n` of `total`; %(...)s are filled in by `_filled`.
# An id has the template's millisecond, 4,096 ids to each one that follows, then twelve bits and a tail of n.
_POSTGRESQL = {
    "id": "(lpad(to_hex(('x' || substr(replace(t.id::text, '-', ''), 1, 12))::bit(48)::bigint + n / 4096), 12, '0')"
    " || '7' || lpad(to_hex(mod(n, 4096)), 3, '0') || '8' || substr(md5(n::text), 1, 15))::uuid",
    "queue": "t.queue || lpad(mod(n, {queues})::text, 4, '0')",
    "created_at": "t.created_at - ({total} - n) * interval '1 microsecond' - {age} * interval '1 second'",
    "available_at": "t.available_at - ({total} - n) * interval '1 microsecond' - {age} * interval '1 second'",
    "processed_at": "t.created_at - ({total} - n) * interval '1 microsecond' - {age} * interval '1 second'",
}
_SQLITE = {
    "id": "printf('%s-%s-7%03x-8%s-%s', substr(at, 1, 8), substr(at, 9), n % 4096, substr(tail, 1, 3),"
    " substr(tail, 4))",
    "queue": "t.queue || printf('%04d', n % {queues})",
    "created_at": "t.created_at - ({total} - n) - {age} * 1000000",
    "available_at": "t.available_at - ({total} - n) - {age} * 1000000",
    "processed_at": "t.created_at - ({total} - n) - {age} * 1000000",
}
_FINISHED = {"status": "'completed'", "attempts": "1", "claim_seq": "1"}


@dataclass(frozen=True)
class Backlog:
    """Jobs that lie in the store: so many, and what they have in common."""

    rows: int
    queue: str = "default"
    queues: int = 1  # more than one: so many queues, named `<queue>0000` and up, a job to each in turn
    priority: int = 0
    delay: float = 0.0
    is_finished: bool = False
    job_name: str = "noop"

    @property
    def names(self) -> list[str]:
        """The queues that hold them."""
        return [self.queue] if self.queues == 1 else [f"{self.queue}{at:04}" for at in range(self.queues)]


def fill(driver: Store, backlog: Backlog) -> None:
    """Add the backlog to the store, and leave the store as its own upkeep would within a minute."""
    if isinstance(driver, SQLAlchemyDriver) and driver.engine.dialect.name in ("postgresql", "sqlite"):
        _copy(driver, backlog)
    else:
        _enqueue(driver, backlog)


def _enqueue(driver: Store, backlog: Backlog) -> None:
    names = backlog.names
    steps = range(0, backlog.rows, BATCH)
    for first in _told(steps, backlog):
        size = min(BATCH, backlog.rows - first)
        driver.enqueue([_job(backlog, names[at % len(names)]) for at in range(first, first + size)])


def _copy(driver: SQLAlchemyDriver, backlog: Backlog) -> None:
    template = _job(backlog, backlog.queue)
    driver.enqueue([template])
    engine = create_engine(driver.engine.url, isolation_level="AUTOCOMMIT")  # the driver's own gives up after seconds
    is_postgresql = engine.dialect.name == "postgresql"
    with engine.connect() as conn:
        if not is_postgresql:
            conn.exec_driver_sql("PRAGMA synchronous = OFF")  # a power cut here costs a benchmark
        with _without_indexes(conn) if is_postgresql and backlog.rows > INDEXED_MAX else contextlib.nullcontext():
            for first in _told(range(1, backlog.rows + 1, CHUNK), backlog):
                last = min(first + CHUNK - 1, backlog.rows)
                conn.exec_driver_sql(_statement(engine, backlog, template.id, first, last))
        conn.exec_driver_sql(f"DELETE FROM jobs WHERE id = '{template.id}'")
        if backlog.is_finished:
            conn.exec_driver_sql(
                "INSERT INTO counters (queue, status, shard, count)"
                f" VALUES ('{backlog.queue}', 'completed', 0, {backlog.rows})"
                " ON CONFLICT (queue, status, shard) DO UPDATE SET count = counters.count + excluded.count"
            )
        if is_postgresql:
            _vacuum(conn)
            conn.exec_driver_sql("CHECKPOINT")
        else:
            conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    engine.dispose()


def _vacuum(conn: Connection) -> None:
    """Vacuum jobs until nearly all of its pages are known to be visible to everybody.

    While any session has an older snapshot, such as an autovacuum of another table, VACUUM marks none of them. Each
    count by an index then reads the table too, and takes five times as long: by chance, if this did not wait.
    """
    ends = time.monotonic() + VACUUMED_S
    while True:
        conn.exec_driver_sql("VACUUM (ANALYZE) jobs")
        share = conn.exec_driver_sql(
            "SELECT relallvisible / greatest(relpages, 1)::float FROM pg_class WHERE oid = 'jobs'::regclass"
        ).scalar_one()
        if share >= VISIBLE_SHARE:
            return
        if time.monotonic() > ends:
            raise TimeoutError(f"a snapshot is held open: {share:.0%} of the pages of jobs are visible to everybody")
        time.sleep(0.2)


@contextlib.contextmanager
def _without_indexes(conn: Connection) -> Iterator[None]:
    """Keep the primary key only in the block, and make the other indexes of jobs again behind it."""
    found = conn.exec_driver_sql(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indrelid = 'jobs'::regclass AND NOT indisprimary"
    ).all()
    for name, _made in found:
        conn.exec_driver_sql(f"DROP INDEX {name}")
    yield
    conn.exec_driver_sql("SET maintenance_work_mem = '512MB'")
    for _name, made in found:
        conn.exec_driver_sql(made)


def _statement(engine: Engine, backlog: Backlog, template: str, first: int, last: int) -> str:
    """INSERT of the rows from `first` to `last`: the template's columns, but for those that make a job another one."""
    is_postgresql = engine.dialect.name == "postgresql"
    told = {"total": backlog.rows, "queues": backlog.queues, "age": AGED_S if backlog.is_finished else 0}
    differing = {name: text.format(**told) for name, text in (_POSTGRESQL if is_postgresql else _SQLITE).items()}
    if backlog.queues == 1:
        del differing["queue"]
    if backlog.is_finished:
        differing |= _FINISHED | {"reserved_at": differing["processed_at"]}
    else:
        del differing["processed_at"]
    columns = [str(column["name"]) for column in inspect(engine).get_columns("jobs") if not column.get("computed")]
    values = ", ".join(differing.get(name, f"t.{name}") for name in columns)
    into = f"INSERT INTO jobs ({', '.join(columns)})"
    if is_postgresql:
        rows = f"generate_series({first}::bigint, {last}::bigint) AS n"
        return f"{into} SELECT {values} FROM (SELECT * FROM jobs WHERE id = '{template}') AS t, {rows}"
    began = int(template.replace("-", "")[:12], 16)
    return (
        f"WITH RECURSIVE counted (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM counted WHERE n < {last}),"
        f" named (n, at, tail) AS (SELECT n, printf('%012x', {began} + n / 4096),"
        f" printf('%015x', n * 2654435761 % 1152921504606846976) FROM counted)"
        f" {into} SELECT {values} FROM (SELECT * FROM jobs WHERE id = '{template}') AS t, named"
    )


def _job(backlog: Backlog, queue: str) -> NewJob:
    return NewJob(
        id=fresh_id(),
        queue=queue,
        job_name=backlog.job_name,
        job_class=f"bench_jobs.{backlog.job_name}",
        data="{}",
        priority=backlog.priority,
        delay=backlog.delay,
    )


def _told(steps: range, backlog: Backlog) -> Iterator[int]:
    """The steps, with a line now and then of how far it is."""
    began = said = time.monotonic()
    for at in steps:
        yield at
        now = time.monotonic()
        done = min(at + steps.step, backlog.rows)
        if now - said > SAID_S and now - began > TOLD_S:
            said = now
            print(f"    {done:,} of {backlog.rows:,} jobs, {done / (now - began):,.0f} a second", file=sys.stderr)
