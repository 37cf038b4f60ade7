"""PostgreSQL: one statement settles what is finished and claims what comes next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import errors
from sqlalchemy import URL, Connection, Engine, event

from protojobs.errors import ProtojobsError
from protojobs.lifecycle import JobState
from protojobs.records import BATCH_BYTES_MAX, ClaimedJob, ClaimReply, NewJob, Settled, Settlement, SettleStatus
from protojobs_sqlalchemy import postgresql_statements as sql
from protojobs_sqlalchemy import settling
from protojobs_sqlalchemy.bell import Bell
from protojobs_sqlalchemy.bounded import BoundedConnection
from protojobs_sqlalchemy.bounds import payload_bytes
from protojobs_sqlalchemy.counting import shard_of
from protojobs_sqlalchemy.dialects import Ask, Mode, Run
from protojobs_sqlalchemy.lanes import Lane, LaneMemory, Lanes
from protojobs_sqlalchemy.listening import CHANNEL, Listener
from protojobs_sqlalchemy.notifying import Notifier
from protojobs_sqlalchemy.postgresql_values import columns_of, completions_of, values_of

__all__ = ["PostgreSQLDialect"]

_PASSED_OVER_MAX = 1_000  # jobs on their last attempt that a claim looks past while it fills its prefetch
_MIGRATION_S = 3600.0  # how long one statement of a migration may take
_SCHEMA_TRIES = 600  # a minute
_SCHEMA_PAUSE_S = 0.1

Row = tuple[Any, ...]


class PostgreSQLDialect:
    """The hot statements on psycopg's own cursor, in the time of the server's clock."""

    turn_mode = Mode.SINGLE

    def __init__(self, engine: Engine, time_offset: float, *, timeout: float, listen: URL | None) -> None:
        self.time_offset = time_offset
        self._engine = engine
        self._timeout = timeout
        self._listen_url = listen
        self._lanes = LaneMemory()
        self._bell = Bell()
        self._heard = 0
        self._listener = Listener(self._bell, self._open_listener)
        self._notifier = Notifier(self._notify)
        self._run: Run | None = None

    # ------------------------------------------------------------------------------------------------------ steps

    def prepare(self, engine: Engine) -> None:
        """See Dialect.prepare."""

        @event.listens_for(engine, "do_connect")
        def _connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> object:
            raw = BoundedConnection.connect(*arguments, **options)
            raw.wait_s = self._timeout
            return raw

    def attach(self, run: Run) -> None:
        """See Dialect.attach."""
        self._run = run

    def begin(self, conn: Connection, mode: Mode) -> None:
        """See Dialect.begin."""
        # What is read in several statements is read at one moment; a writer must see what was committed just now.
        level = "REPEATABLE READ" if mode is Mode.READ else "READ COMMITTED"
        # A client that froze inside a transaction must not hold its locks for ever: not behind a pooler either, nor on
        # an application's engine. One packet for both statements.
        limit_ms = int(self._timeout * 1000)
        _raw(conn).execute(f"BEGIN ISOLATION LEVEL {level}; SET LOCAL idle_in_transaction_session_timeout = {limit_ms}")

    def end(self, conn: Connection, mode: Mode) -> None:
        """See Dialect.end."""
        _raw(conn).execute("COMMIT")

    def now(self, conn: Connection) -> datetime:
        """See Dialect.now."""
        moment = conn.exec_driver_sql("SELECT statement_timestamp()").scalar_one()
        assert isinstance(moment, datetime)
        return moment.astimezone(UTC) + timedelta(seconds=self.time_offset)

    def is_conflict(self, error: BaseException) -> bool:
        """See Dialect.is_conflict."""
        return isinstance(error, errors.DeadlockDetected | errors.SerializationFailure | errors.LockNotAvailable)

    def is_schema_missing(self, error: BaseException) -> bool:
        """See Dialect.is_schema_missing."""
        return isinstance(error, errors.UndefinedTable | errors.UndefinedColumn)

    def identity(self, conn: Connection) -> str:
        """See Dialect.identity."""
        row = conn.exec_driver_sql("SELECT current_database(), pg_postmaster_start_time()::text").one()
        return f"{row[0]} since {row[1]}"

    def lock_schema(self, conn: Connection) -> Callable[[], None]:
        """See Dialect.lock_schema."""
        raw = _raw(conn)
        raw.execute("SET LOCAL statement_timeout = 0")  # a large table takes its time ...
        if isinstance(raw, BoundedConnection):
            raw.wait_s = _MIGRATION_S
        for _ in range(_SCHEMA_TRIES):  # ... but nobody waits for ever
            if raw.execute(sql.LOCK_SCHEMA).fetchall()[0][0]:
                return lambda: self._set_patience(raw)
            time.sleep(_SCHEMA_PAUSE_S)
        raise errors.LockNotAvailable("another migration has been running for a minute")

    def _set_patience(self, raw: psycopg.Connection[Row]) -> None:
        if isinstance(raw, BoundedConnection):
            raw.wait_s = self._timeout

    # ---------------------------------------------------------------------------------------------------- enqueue

    def enqueue_mode(self, jobs: Sequence[NewJob]) -> Mode:
        """See Dialect.enqueue_mode."""
        return Mode.SINGLE

    def enqueue(self, conn: Connection, jobs: Sequence[NewJob]) -> set[str]:
        """See Dialect.enqueue."""
        if len(jobs) == 1:
            rows = self._rows(conn, sql.ENQUEUE_ONE, values_of(jobs[0]))
        else:
            rows = self._rows(conn, sql.ENQUEUE, columns_of(jobs))
        stored = {str(row[0]) for row in rows}
        self._lanes.note_enqueue({job.queue for job in jobs})
        return stored

    # ------------------------------------------------------------------------------------------------------- turn

    def turn(self, conn: Connection, ask: Ask) -> ClaimReply:
        """See Dialect.turn."""
        if ask.limit:
            self._heard = self._bell.listen()
        plain, others = settling.split(ask.settlements)
        if not others and len({s.id for s in plain}) == len(plain):
            return self._plain_turn(conn, ask)
        # Jobs that go back to pending may be claimed again by this very turn, which one statement cannot see.
        self.begin(conn, Mode.WORK)
        lock = "SELECT id FROM workers WHERE id = %(worker)s FOR KEY SHARE"
        stands = not ask.limit or bool(self._rows(conn, lock, {"worker": ask.worker}))
        now, shard = self.now(conn), shard_of(ask.worker)
        settled = settling.in_rounds(ask.settlements, lambda round_: settling.apply(conn, round_, now, shard))
        self._lanes.note_enqueue(ask.queues)
        claimed = self._claim(conn, ask) if stands and ask.limit else []
        self.end(conn, Mode.WORK)
        return ClaimReply(settled=tuple(settled), claimed=tuple(claimed), lease_lost=not stands)

    def _plain_turn(self, conn: Connection, ask: Ask) -> ClaimReply:
        """The hot path: completions only, and the next claim, in one statement that is its own transaction."""
        done = ask.settlements
        if not ask.limit:
            rows = self._rows(conn, sql.SETTLE, completions_of(done, ask.worker))
            return ClaimReply(settled=self._answers(conn, done, rows[0][0]))
        lanes, has_looked = self._known_lanes(conn, ask)
        values = _claim_values(ask, lanes, [])
        if done:
            rows = self._rows(conn, sql.SETTLE_AND_CLAIM, values | completions_of(done, ask.worker))
        else:
            rows = self._rows(conn, sql.CLAIM, values)
        settled = self._answers(conn, done, rows[0][0]) if done else ()
        if not rows[0][1]:
            return ClaimReply(settled=settled, lease_lost=True)
        claimed = _claimed(rows, lanes)
        lanes.note_claim(claimed, is_full=len(claimed) >= ask.limit)
        return ClaimReply(settled=settled, claimed=tuple(self._fill(conn, ask, claimed, has_looked=has_looked)))

    def _claim(self, conn: Connection, ask: Ask) -> list[ClaimedJob]:
        """A claim by itself, in the transaction of a mixed turn."""
        lanes, has_looked = self._known_lanes(conn, ask)
        claimed = _claimed(self._rows(conn, sql.CLAIM, _claim_values(ask, lanes, [])), lanes)
        lanes.note_claim(claimed, is_full=len(claimed) >= ask.limit)
        return self._fill(conn, ask, claimed, has_looked=has_looked)

    def _fill(self, conn: Connection, ask: Ask, claimed: list[ClaimedJob], *, has_looked: bool) -> list[ClaimedJob]:
        """Claim once more where the batch is not full and the first claim may have overlooked something."""
        is_choosy = ask.slots < ask.limit  # then jobs on their last attempt may have stood before others
        if len(claimed) >= ask.limit or (has_looked and not is_choosy):
            return claimed
        lanes, _ = self._known_lanes(conn, ask)
        rows = self._rows(conn, sql.CLAIM, _claim_values(ask, lanes, claimed, _PASSED_OVER_MAX if is_choosy else 0))
        claimed = claimed + _claimed(rows, lanes)
        lanes.note_claim(claimed, is_full=len(claimed) >= ask.limit)
        return claimed

    def _known_lanes(self, conn: Connection, ask: Ask) -> tuple[Lanes, bool]:
        """The lanes of the asked queues, and whether they were read just now."""
        queues = tuple(dict.fromkeys(ask.queues))
        known = self._lanes.fresh(queues, self.time_offset)
        if known is not None:
            return known, False

        def look() -> list[Lane]:
            return [(str(row[0]), int(str(row[1]))) for row in self._rows(conn, sql.LANES, {"queues": list(queues)})]

        return self._lanes.read(queues, self.time_offset, look), True

    def _answers(self, conn: Connection, done: Sequence[Settlement], applied: list[str] | None) -> tuple[Settled, ...]:
        """Each completion's fate. `applied` are the ids that did, or an empty list when all of them did."""
        if not applied and applied is not None:
            return tuple(_completed(s.id) for s in done)
        ids = set(applied or ())
        others = settling.answer_unmatched(conn, [s for s in done if s.id not in ids])
        return tuple(_completed(s.id) if s.id in ids else others[s.id] for s in done)

    def _rows(self, conn: Connection, statement: LiteralString, values: dict[str, object]) -> list[Row]:
        values["offset"] = timedelta(seconds=self.time_offset)
        return _raw(conn).execute(statement, values, binary=True).fetchall()

    # ------------------------------------------------------------------------------------------------------- wait

    def ring(self, queues: Iterable[str]) -> None:
        """See Dialect.ring."""
        names = set(queues)
        if names:
            self._lanes.note_enqueue(names)  # what was taken back has its old place in the line, below the floors
            self._bell.ring(names)
            self._notifier.notify(names)

    def ring_inside(self, conn: Connection, queues: Iterable[str]) -> None:
        """See Dialect.ring_inside."""
        for queue in sorted(queues):
            conn.exec_driver_sql("SELECT pg_notify(%(channel)s, %(queue)s)", {"channel": CHANNEL, "queue": queue})

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See Dialect.wait."""
        if self._listen_url is not None:
            self._listener.want()
        return self._bell.wait(self._heard, queues, timeout)

    def close(self) -> None:
        """See Dialect.close."""
        self._listener.close()

    def _notify(self, queues: list[str]) -> None:
        try:
            if self._run is not None:
                self._run(lambda conn: self._rows(conn, sql.NOTIFY, {"queues": queues}), Mode.SINGLE)
        except ProtojobsError:
            pass  # the jobs are stored; a worker's poll finds them

    def _open_listener(self) -> psycopg.Connection[Row]:
        assert self._listen_url is not None
        arguments, options = self._engine.dialect.create_connect_args(self._listen_url)
        options.update({"connect_timeout": 5, "autocommit": True, "application_name": "protojobs-listen"})
        # It sends nothing, so only the kernel can notice that its server is gone: by itself after two hours.
        options = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, **options}
        return psycopg.connect(*arguments, **options)


def _raw(conn: Connection) -> psycopg.Connection[Row]:
    raw: psycopg.Connection[Row] | None = conn.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


def _claim_values(ask: Ask, lanes: Lanes, claimed: Sequence[ClaimedJob], passes_over: int = 0) -> dict[str, object]:
    limit = ask.limit - len(claimed)
    return {
        "worker": ask.worker,
        "queues": [queue for queue, _ in lanes.order],
        "priorities": [priority for _, priority in lanes.order],
        "floors": [floor.isoformat() if floor else "-infinity" for floor in lanes.floors],
        "no_id": "00000000-0000-0000-0000-000000000000",
        "limit": limit,
        "looks_at": limit + passes_over,
        "slots": max(0, ask.slots - len(claimed)),
        "always": 0 if claimed else 1,  # the place that is lent whatever its size
        "bytes": BATCH_BYTES_MAX - sum(payload_bytes(job.data) for job in claimed),
    }


def _completed(job_id: str) -> Settled:
    return Settled(id=job_id, status=SettleStatus.APPLIED, state=JobState.COMPLETED)


def _claimed(rows: Sequence[Row], lanes: Lanes) -> list[ClaimedJob]:
    """The lent jobs in the order of the lanes: UPDATE ... RETURNING has none."""
    rank = {lane: place for place, lane in enumerate(lanes.order)}
    jobs = [_job(row) for row in rows if row[2] is not None]
    return sorted(jobs, key=lambda job: (rank[job.queue, job.priority], job.available_at, job.id))


def _job(row: Row) -> ClaimedJob:
    (_, _, id_, seq, queue, name, class_, data, priority, attempts, retries, delay, policy, timeout, due, reserved_at,
     crashes, returns, reclaims, meta, cancel, holder) = row  # fmt: skip
    return ClaimedJob(
        id=id_,
        claim_seq=seq,
        reserved_by=holder,
        queue=queue,
        job_name=name,
        job_class=class_,
        data=data,
        priority=priority,
        attempts=attempts,
        max_retries=retries,
        retry_delay=delay,
        retry_policy=policy,
        timeout=timeout,
        available_at=due.astimezone(UTC),
        reserved_at=reserved_at.astimezone(UTC),
        crashes=crashes,
        returns=returns,
        reclaims=reclaims,
        meta=meta,
        is_cancel_requested=cancel is not None,
    )
