"""PostgreSQL: one statement settles what is finished and claims what comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import LiteralString

import psycopg
from psycopg import errors
from sqlalchemy import URL, Connection, Engine, event

from protojobs.errors import ProtojobsError
from protojobs.lifecycle import JobState, Verb
from protojobs.records import BATCH_BYTES_MAX, ClaimedJob, ClaimReply, NewJob, Settled, Settlement, SettleStatus
from protojobs_sqlalchemy import settling
from protojobs_sqlalchemy.bell import Bell
from protojobs_sqlalchemy.bounded import BoundedConnection
from protojobs_sqlalchemy.counting import shard_of
from protojobs_sqlalchemy.dialects import Ask, Mode
from protojobs_sqlalchemy.lanes import Lane, LaneMemory, Lanes
from protojobs_sqlalchemy.listening import CHANNEL, Listener
from protojobs_sqlalchemy.notifying import Notifier

__all__ = ["PostgreSQLDialect"]

# statement_timestamp() and not now(): in a caller's long transaction a delay counts from the push, not from BEGIN; and
# not clock_timestamp(), which no index condition may use.
_NOW = "(statement_timestamp() + %(offset)s::interval)"

_ENQUEUE: LiteralString = f"""
INSERT INTO jobs (id, queue, job_class, job_name, data, attempts, max_retries, timeout, status, created_at,
                  available_at, priority, retry_delay, retry_policy, claim_seq, crashes, returns, reclaims, meta)
SELECT id, queue, job_class, job_name, data, 0, max_retries, timeout, 'pending', {_NOW},
       coalesce(available_at, {_NOW} + delay), priority, retry_delay, retry_policy, 0, 0, 0, 0, meta
FROM unnest(%(ids)s::uuid[], %(queues)s::text[], %(classes)s::text[], %(names)s::text[], %(datas)s::text[],
            %(retries)s::int[], %(timeouts)s::float8[], %(moments)s::timestamptz[], %(delays)s::interval[],
            %(priorities)s::int2[], %(retry_delays)s::float8[], %(policies)s::text[], %(metas)s::text[])
     AS new (id, queue, job_class, job_name, data, max_retries, timeout, available_at, delay, priority, retry_delay,
             retry_policy, meta)
ON CONFLICT (id) DO NOTHING
RETURNING id::text
"""

# Jumps from one (queue, priority) to the next in jobs_ready: two probes each, however many jobs wait there.
_LANES: LiteralString = """
WITH RECURSIVE lanes (place, queue, priority) AS (
    SELECT place, name, (SELECT max(priority) FROM jobs WHERE status = 'pending' AND queue = name)
    FROM unnest(%(queues)s::text[]) WITH ORDINALITY AS wanted (name, place)
    UNION ALL
    SELECT place, queue, (SELECT max(priority) FROM jobs
                          WHERE status = 'pending' AND queue = lanes.queue AND priority < lanes.priority)
    FROM lanes WHERE priority IS NOT NULL
)
SELECT queue, priority FROM lanes WHERE priority IS NOT NULL ORDER BY place, priority DESC
"""

# The fence names no status on purpose: with one the planner may take jobs_processing and walk its dead entries.
_DONE: LiteralString = f"""
done AS (
    UPDATE jobs AS j SET status = 'completed', processed_at = {_NOW}, reserved_by = NULL
    FROM unnest(%(ids)s::uuid[], %(seqs)s::int[], %(holders)s::text[]) AS said (id, claim_seq, reserved_by)
    WHERE j.id = said.id AND j.claim_seq = said.claim_seq AND j.reserved_by = said.reserved_by
    RETURNING j.id, j.queue, j.available_at
),
counted AS (
    INSERT INTO counters AS c (queue, status, shard, count)
    SELECT queue, 'completed', %(shard)s, count(*) FROM done GROUP BY queue ORDER BY queue
    ON CONFLICT (queue, status, shard) DO UPDATE SET count = c.count + excluded.count
)"""

# From the inside out: each lane in turn gives its first due jobs, locked, those that others lock passed over; the outer
# LIMIT stops at the lane that fills the batch. Then the batch is cut where its bytes or the free slots end. The worker's
# row comes first of all (EXISTS is evaluated before the update looks at any job), locked against its deletion.
# ANY (ARRAY (...)), since IN (SELECT ... FOR UPDATE) may be run again for every row.
_LENT: LiteralString = f"""
standing AS MATERIALIZED (SELECT id FROM workers WHERE id = %(worker)s FOR KEY SHARE),
lent AS (
    UPDATE jobs AS j SET status = 'processing', attempts = j.attempts + 1, claim_seq = j.claim_seq + 1,
                         reserved_at = {_NOW}, reserved_by = %(worker)s, progress = NULL
    WHERE EXISTS (SELECT FROM standing) AND j.id = ANY (ARRAY (
        SELECT id FROM (
            SELECT id, has_spare, row_number() OVER () AS place, sum(size) OVER (ROWS UNBOUNDED PRECEDING) AS total
            FROM (
                SELECT due.* FROM unnest(%(queues)s::text[], %(priorities)s::int2[], %(floors)s::timestamptz[])
                                  WITH ORDINALITY AS lane (queue, priority, floor, place),
                LATERAL (
                    SELECT id, attempts < max_retries AS has_spare, octet_length(data) AS size FROM jobs
                    WHERE status = 'pending' AND queue = lane.queue AND priority = lane.priority
                      AND available_at <= {_NOW} AND available_at >= lane.floor
                    ORDER BY available_at, id LIMIT %(looks_at)s FOR UPDATE SKIP LOCKED
                ) AS due
                WHERE lane.queue <> ALL (ARRAY (SELECT name FROM queues WHERE paused_at IS NOT NULL))
                LIMIT %(looks_at)s
            ) AS found
        ) AS counted
        WHERE (has_spare OR place <= %(slots)s) AND (total <= %(bytes)s OR place = 1)
        ORDER BY place LIMIT %(limit)s))
    RETURNING j.id::text, j.claim_seq, j.queue, j.job_name, j.job_class, j.data, j.priority, j.attempts, j.max_retries,
              j.retry_delay, j.retry_policy, j.timeout, j.available_at, j.reserved_at, j.crashes, j.returns, j.reclaims,
              j.meta, j.cancel_requested_at
)"""

# Which completions applied is told only when not all did.
_APPLIED: LiteralString = "(SELECT CASE WHEN count(*) < %(sent)s THEN array_agg(id::text) ELSE '{}' END FROM done)"
_STANDS: LiteralString = "(SELECT count(*) FROM standing)"
_ROWS: LiteralString = "lent.* FROM (SELECT 1) AS once LEFT JOIN lent ON true"

_SETTLE: LiteralString = f"WITH {_DONE} SELECT {_APPLIED}, 1"
_CLAIM: LiteralString = f"WITH {_LENT} SELECT NULL::text[], {_STANDS}, {_ROWS}"
_BOTH: LiteralString = f"WITH {_DONE}, {_LENT} SELECT {_APPLIED}, {_STANDS}, {_ROWS}"

_NOTIFY: LiteralString = f"""
SELECT set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', name) FROM unnest(%(queues)s::text[]) AS name
"""

Row = tuple[object, ...]


class PostgreSQLDialect:
    """The hot statements on psycopg's own cursor, in the time of the server's clock."""

    turn_mode = Mode.SINGLE

    def __init__(self, engine: Engine, send: Send, time_offset: float, *, is_ours: bool, listen: URL | None) -> None:
        self.time_offset = time_offset
        self._engine = engine
        self._is_ours = is_ours
        self._listen_url = listen
        self._lanes = LaneMemory()
        self._bell = Bell()
        self._heard = 0
        self._listener = Listener(self._bell, self._open_listener)
        self._notifier = Notifier(self._notify)

    # ------------------------------------------------------------------------------------------------------ steps

    def prepare(self, engine: Engine) -> None:
        @event.listens_for(engine, "do_connect")
        def _connect(  # pyright: ignore[reportUnusedFunction]
            _dialect: object, _record: object, arguments: list[object], options: dict[str, object]
        ) -> object:
            return BoundedConnection.connect(*arguments, **options)  # type: ignore[arg-type]

    def begin(self, conn: Connection, mode: Mode) -> None:
        _raw(conn).execute("BEGIN ISOLATION LEVEL READ COMMITTED")

    def end(self, conn: Connection, mode: Mode) -> None:
        _raw(conn).execute("COMMIT")

    def now(self, conn: Connection) -> datetime:
        moment = conn.exec_driver_sql("SELECT statement_timestamp()").scalar_one()
        assert isinstance(moment, datetime)
        return moment.astimezone(UTC) + timedelta(seconds=self.time_offset)

    def is_conflict(self, error: BaseException) -> bool:
        return isinstance(error, errors.DeadlockDetected | errors.SerializationFailure | errors.LockNotAvailable)

    def is_schema_missing(self, error: BaseException) -> bool:
        return isinstance(error, errors.UndefinedTable | errors.UndefinedColumn)

    def identity(self, conn: Connection) -> str:
        row = conn.exec_driver_sql("SELECT current_database(), pg_postmaster_start_time()::text").one()
        return f"{row[0]} since {row[1]}"

    def lock_schema(self, conn: Connection) -> Callable[[], None]:
        raw = _raw(conn)
        raw.execute("SET LOCAL statement_timeout = 0")  # a large table takes its time ...
        raw.execute("SET LOCAL lock_timeout = '60s'")  # ... but nobody waits for ever
        raw.execute("SELECT pg_advisory_xact_lock(hashtext('protojobs'), hashtext(current_schema()))")
        return lambda: None  # ends with the transaction

    # ---------------------------------------------------------------------------------------------------- enqueue

    def enqueue_mode(self, jobs: Sequence[NewJob]) -> Mode:
        return Mode.SINGLE

    def enqueue(self, conn: Connection, jobs: Sequence[NewJob]) -> set[str]:
        stored = {str(row[0]) for row in self._rows(conn, _ENQUEUE, _columns(jobs))}
        self._lanes.note_enqueue({job.queue for job in jobs})
        return stored

    # ------------------------------------------------------------------------------------------------------- turn

    def turn(self, conn: Connection, ask: Ask) -> ClaimReply:
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
        claimed = self._fill(conn, ask, []) if stands and ask.limit else []
        self.end(conn, Mode.WORK)
        return ClaimReply(settled=tuple(settled), claimed=tuple(claimed), lease_lost=not stands)

    def _plain_turn(self, conn: Connection, ask: Ask) -> ClaimReply:
        """The hot path: completions only, and the next claim, in one statement that is its own transaction."""
        done = ask.settlements
        if not ask.limit:
            rows = self._rows(conn, _SETTLE, _completions(done, ask.worker))
            return ClaimReply(settled=self._answers(conn, done, rows[0][0]))
        lanes, has_looked = self._known_lanes(conn, ask)
        values = _claim_values(ask, lanes, [])
        if done:
            rows = self._rows(conn, _BOTH, values | _completions(done, ask.worker))
        else:
            rows = self._rows(conn, _CLAIM, values)
        settled = self._answers(conn, done, rows[0][0]) if done else ()
        if not rows[0][1]:
            return ClaimReply(settled=settled, lease_lost=True)
        claimed = _claimed(rows, lanes)
        lanes.note_claim(claimed, is_full=len(claimed) >= ask.limit)
        return ClaimReply(settled=settled, claimed=tuple(self._fill(conn, ask, claimed, has_looked=has_looked)))

    def _fill(
        self, conn: Connection, ask: Ask, claimed: list[ClaimedJob], *, has_looked: bool
    ) -> list[ClaimedJob]:
        """Claim once more where the batch is not full and the first claim may have overlooked something."""
        is_choosy = ask.slots < ask.limit  # then jobs on their last attempt may have stood before others
        if len(claimed) >= ask.limit or (has_looked and not is_choosy):
            return claimed
        lanes, _ = self._known_lanes(conn, ask)
        rows = self._rows(conn, _CLAIM, _claim_values(ask, lanes, claimed, _PASSED_OVER_MAX if is_choosy else 0))
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
            return [(str(row[0]), int(str(row[1]))) for row in self._rows(conn, _LANES, {"queues": list(queues)})]

        return self._lanes.read(queues, self.time_offset, look), True

    def _answers(self, conn: Connection, done: Sequence[Settlement], applied: object) -> tuple[Settled, ...]:
        """Each completion's fate. `applied` are the ids that did, or an empty list when all of them did."""
        if not applied and applied is not None:
            return tuple(_completed(s.id) for s in done)
        ids = set(applied) if isinstance(applied, list) else set[str]()
        others = settling.answer_unmatched(conn, [s for s in done if s.id not in ids])
        return tuple(_completed(s.id) if s.id in ids else others[s.id] for s in done)

    def _rows(self, conn: Connection, statement: LiteralString, values: dict[str, object]) -> list[Row]:
        values["offset"] = timedelta(seconds=self.time_offset)
        return _raw(conn).execute(statement, values, binary=True).fetchall()

    # ------------------------------------------------------------------------------------------------------- wait

    def ring(self, queues: Iterable[str]) -> None:
        names = set(queues)
        if names:
            self._bell.ring(names)
            self._notifier.notify(names)

    def ring_inside(self, conn: Connection, queues: Iterable[str]) -> None:
        for queue in sorted(queues):
            conn.exec_driver_sql("SELECT pg_notify(%(channel)s, %(queue)s)", {"channel": CHANNEL, "queue": queue})

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        if self._listen_url is not None:
            self._listener.want()
        return self._bell.wait(self._heard, queues, timeout)

    def close(self) -> None:
        self._listener.close()

    def _notify(self, queues: list[str]) -> None:
        try:
            self._send(lambda conn: self._rows(conn, _NOTIFY, {"queues": queues}))
        except ProtojobsError:
            pass  # the jobs are stored; a worker's poll finds them

    def _open_listener(self) -> psycopg.Connection[Row]:
        assert self._listen_url is not None
        arguments, options = self._engine.dialect.create_connect_args(self._listen_url)
        options |= {"connect_timeout": 5, "autocommit": True, "application_name": "protojobs-listen"}
        return psycopg.connect(*arguments, **options)


def _raw(conn: Connection) -> psycopg.Connection[Row]:
    raw = conn.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


def _columns(jobs: Sequence[NewJob]) -> dict[str, object]:
    return {
        "ids": [job.id for job in jobs],
        "queues": [job.queue for job in jobs],
        "classes": [job.job_class for job in jobs],
        "names": [job.job_name for job in jobs],
        "datas": [job.data for job in jobs],
        "retries": [job.max_retries for job in jobs],
        "timeouts": [job.timeout for job in jobs],
        "moments": [job.available_at for job in jobs],
        "delays": [timedelta(seconds=job.delay) for job in jobs],
        "priorities": [job.priority for job in jobs],
        "retry_delays": [job.retry_delay for job in jobs],
        "policies": [job.retry_policy for job in jobs],
        "metas": [job.meta for job in jobs],
    }


def _completions(done: Sequence[Settlement], worker: str) -> dict[str, object]:
    known = [s for s in done if canonical(s.id)]
    return {
        "ids": [s.id for s in known],
        "seqs": [s.claim_seq for s in known],
        "holders": [s.reserved_by for s in known],
        "sent": len(done),
        "shard": shard_of(worker),
    }


def _claim_values(
    ask: Ask, lanes: Lanes, claimed: Sequence[ClaimedJob], passes_over: int = 0
) -> dict[str, object]:
    limit = ask.limit - len(claimed)
    return {
        "worker": ask.worker,
        "queues": [queue for queue, _ in lanes.order],
        "priorities": [priority for _, priority in lanes.order],
        "floors": [floor or "-infinity" for floor in lanes.floors],
        "limit": limit,
        "looks_at": limit + passes_over,
        "slots": max(0, ask.slots - len(claimed)),
        "bytes": BATCH_BYTES_MAX - sum(payload_bytes(job.data) for job in claimed),
    }


def _completed(job_id: str) -> Settled:
    return Settled(id=job_id, status=SettleStatus.APPLIED, state=JobState.COMPLETED)


def _claimed(rows: Sequence[Row], lanes: Lanes) -> list[ClaimedJob]:
    """The lent jobs in the order of the lanes: UPDATE ... RETURNING has none."""
    rank = {lane: place for place, lane in enumerate(lanes.order)}
    jobs = [_job(row) for row in rows if row[2] is not None]
    return sorted(jobs, key=lambda job: (rank[job.queue, job.priority], job.available_at, job.id))
