"""The statements by which jobs are stored, settled and claimed on PostgreSQL; `turn.py` runs them."""

from __future__ import annotations

from typing import LiteralString, NamedTuple

from protojobs_sqlalchemy.postgresql.archive import COLUMNS

__all__ = [
    "CLAIM",
    "CLAIM_ANEW",
    "ENQUEUE",
    "ENQUEUE_ALIKE",
    "ENQUEUE_ALIKE_AND_NOTIFY",
    "INTO_ARCHIVE",
    "IN_PLACE",
    "LANES",
    "NOTIFY",
    "QUEUES_OF",
    "Settling",
    "Storing",
]

_NO_ID: LiteralString = "00000000-0000-0000-0000-000000000000"  # none is less

# statement_timestamp() and not now(): in a caller's long transaction a delay counts from the push, not from BEGIN; and
# not clock_timestamp(), which no index condition may use.
_NOW = "(statement_timestamp() + %(offset)s::interval)"

_INTO: LiteralString = """
INSERT INTO @jobs (id, queue, job_class, job_name, data, attempts, max_retries, timeout, status, created_at,
                  available_at, priority, retry_delay, retry_policy, claim_seq, crashes, returns, reclaims, meta)
"""
_UNLESS_THERE: LiteralString = "ON CONFLICT (id) DO NOTHING RETURNING id::text"

# Where there is an archive: none of the jobs that have ended since a day before the oldest of these ids was made, or
# before now (a client's clock may be ahead). Looked for before the insert, which leaves those out, and once more after
# it, in a snapshot of that moment, since a job may have been moved in between: then the step is done again.
_SPAN: LiteralString = f"%(first)s::uuid, %(last)s::uuid, least(%(since)s::timestamptz, {_NOW}) - interval '1 day'"
_NOT_ARCHIVED: LiteralString = f"WHERE id <> ALL ((SELECT @jobs_archive_known(%(ids)s::uuid[], {_SPAN}))::uuid[])\n"

# One job, as push sends it, or many that differ in their data only, as push_many mostly does. Thirteen arrays cost the
# server a third more, and the client three times as much. COPY costs it about the same, and cannot leave anything out.
_ALIKE: LiteralString = f"""{_INTO}
SELECT new.id, %(queue)s, %(class)s, %(name)s, data, 0, %(retries)s, %(timeout)s, 'pending', {_NOW},
       coalesce(%(moment)s::timestamptz, {_NOW} + %(delay)s::interval), %(priority)s, %(retry_delay)s, %(policy)s,
       0, 0, 0, 0, %(meta)s
FROM unnest(%(ids)s::uuid[], %(datas)s::text[]) AS new (id, data)
"""
_AND_NOTIFIED: LiteralString = ", notified\n"  # once, however many jobs there are
_NOTIFIED: LiteralString = "notified AS MATERIALIZED (SELECT pg_notify(%(channel)s, %(queue)s))"
_VARIED: LiteralString = f"""{_INTO}
SELECT id, queue, job_class, job_name, data, 0, max_retries, timeout, 'pending', {_NOW},
       coalesce(available_at, {_NOW} + delay), priority, retry_delay, retry_policy, 0, 0, 0, 0, meta
FROM unnest(%(ids)s::uuid[], %(queues)s::text[], %(classes)s::text[], %(names)s::text[], %(datas)s::text[],
            %(retries)s::int[], %(timeouts)s::float8[], %(moments)s::timestamptz[], %(delays)s::interval[],
            %(priorities)s::int2[], %(retry_delays)s::float8[], %(policies)s::text[], %(metas)s::text[])
     AS new (id, queue, job_class, job_name, data, max_retries, timeout, available_at, delay, priority, retry_delay,
             retry_policy, meta)
"""


class Storing(NamedTuple):
    """Storing jobs in three ways. All of them are given the same values, the last one those of `span_of` besides."""

    plain: LiteralString  # fails where an id is there: a speculative insertion takes the server a third longer
    unless_there: LiteralString  # returns the ids that were stored, as the next one does
    besides_archive: LiteralString


def _storing(inserted: LiteralString, *besides: LiteralString) -> Storing:
    stored: LiteralString = f"stored AS ({inserted}{_NOT_ARCHIVED}{_UNLESS_THERE})"
    before: LiteralString = f"WITH {', '.join(besides)}" if besides else ""
    return Storing(
        plain=f"{before}{inserted}",
        unless_there=f"{before}{inserted}{_UNLESS_THERE}",
        besides_archive=f"""
WITH {", ".join([*besides, stored])}
SELECT unnest(@jobs_archive_absent(array_agg(id)::uuid[], {_SPAN}))::text FROM stored""",
    )


ENQUEUE = _storing(_VARIED)
ENQUEUE_ALIKE = _storing(_ALIKE)
ENQUEUE_ALIKE_AND_NOTIFY = _storing(f"{_ALIKE}{_AND_NOTIFIED}", _NOTIFIED)

# Jumps from one (queue, priority) to the next in jobs_ready: two probes each, however many jobs wait there.
_LANES: LiteralString = """
lanes (place, queue, priority) AS (
    SELECT place, name, (SELECT max(priority) FROM @jobs WHERE status = 'pending' AND queue = name)
    FROM unnest(%(queues)s::text[]) WITH ORDINALITY AS wanted (name, place)
    UNION ALL
    SELECT place, queue, (SELECT max(priority) FROM @jobs
                          WHERE status = 'pending' AND queue = lanes.queue AND priority < lanes.priority)
    FROM lanes WHERE priority IS NOT NULL
)"""
_IN_ORDER: LiteralString = "FROM lanes WHERE priority IS NOT NULL ORDER BY place, priority DESC"

LANES: LiteralString = f"WITH RECURSIVE {_LANES} SELECT queue, priority {_IN_ORDER}"

# The fence names no status on purpose: with one the planner may take jobs_processing and walk its dead entries. And
# ANY (ARRAY[...]), which can only be looked up: a plan that was made for `=` while the table was empty, and kept, may
# read the primary key from end to end, to merge it with what was said.
_DONE: LiteralString = "unnest(%(ids)s::uuid[], %(seqs)s::int[]) AS said (id, claim_seq)"
_IS_CURRENT: LiteralString = (
    "j.id = ANY (ARRAY[said.id]) AND j.claim_seq = said.claim_seq AND j.reserved_by = %(holder)s"
)


def _counted(shard: LiteralString) -> LiteralString:
    return f"""
counted AS (
    INSERT INTO @counters AS c (queue, status, shard, count)
    SELECT queue, 'completed', {shard}, count(*) FROM done GROUP BY queue ORDER BY queue
    ON CONFLICT (queue, status, shard) DO UPDATE SET count = c.count + excluded.count
)"""


_COMPLETED: LiteralString = f"""
done AS (
    UPDATE @jobs AS j SET status = 'completed', processed_at = {_NOW}, reserved_by = NULL
    FROM {_DONE} WHERE {_IS_CURRENT}
    RETURNING j.id, j.queue, j.available_at
),{_counted("%(shard)s")}"""

_DAY_SHARD: LiteralString = f"floor(date_part('epoch', {_NOW}) / 86400)::int * 10000"  # DAY_SHARDS
_ARCHIVED: LiteralString = f"""
done AS (
    DELETE FROM @jobs AS j USING {_DONE} WHERE {_IS_CURRENT}
    RETURNING j.*
),
kept AS (
    INSERT INTO @jobs_archive ({COLUMNS}, status, processed_at) SELECT {COLUMNS}, 'completed', {_NOW} FROM done
),{_counted(f"{_DAY_SHARD} + %(shard)s")}"""


# Each lane in turn gives its first due jobs, locked, those that others lock passed over; the outer LIMIT stops at the
# lane that fills the batch. The floor is a row comparison, since the planner takes `available_at BETWEEN two unknowns`
# for one row in 200, and then sorts a whole lane. Then the batch is cut where its bytes or the free slots end: one
# window for both, and no ORDER BY, since the rows come in the order of the lanes. The worker's row comes first of all
# (EXISTS is evaluated before the update looks at any job), locked against its deletion. ANY (ARRAY (...)), since
# IN (SELECT ... FOR UPDATE) may be run again for every row; and by ctid, since what is locked keeps its place until the
# commit: one page to touch instead of four. (Where a newer version was locked than the statement's snapshot sees, that
# row is passed over too.)
def _lent(lanes: LiteralString) -> LiteralString:
    return f"""
standing AS MATERIALIZED (SELECT id FROM @workers WHERE id = %(worker)s FOR KEY SHARE),
found AS MATERIALIZED (
    SELECT due.* FROM {lanes},
    LATERAL (
        SELECT ctid AS tid, attempts < max_retries AS has_spare, octet_length(data) AS size FROM @jobs
        WHERE status = 'pending' AND queue = lane.queue AND priority = lane.priority
          AND available_at <= {_NOW} AND (available_at, id) >= (lane.floor, lane.first)
        ORDER BY available_at, id LIMIT %(looks_at)s FOR UPDATE SKIP LOCKED
    ) AS due
    WHERE lane.queue <> ALL (ARRAY (SELECT name FROM @queues WHERE paused_at IS NOT NULL))
    LIMIT %(looks_at)s
),
lent AS (
    UPDATE @jobs AS j SET status = 'processing', attempts = least(j.attempts, 2147483646) + 1,
                         claim_seq = least(j.claim_seq, 2147483646) + 1,
                         reserved_at = {_NOW}, reserved_by = %(worker)s, progress = NULL
    WHERE EXISTS (SELECT FROM standing) AND j.ctid = ANY (ARRAY (
        SELECT tid FROM (
            SELECT tid, has_spare, row_number() OVER line AS place, sum(size) OVER line AS total
            FROM found WINDOW line AS (ROWS UNBOUNDED PRECEDING)
        ) AS counted
        WHERE (has_spare OR place <= %(slots)s) AND (total <= %(bytes)s OR place = %(always)s)
        LIMIT %(limit)s))
    RETURNING j.id::text, j.claim_seq, j.queue, j.job_name, j.job_class, j.data, j.priority, j.attempts, j.max_retries,
              j.retry_delay, j.retry_policy, j.timeout, date_part('epoch', j.available_at), j.crashes, j.returns,
              j.reclaims, j.meta, j.cancel_requested_at IS NOT NULL
)"""


_KNOWN: LiteralString = """
    unnest(%(queues)s::text[], %(priorities)s::int2[], %(floors)s::timestamptz[], %(firsts)s::uuid[])
        WITH ORDINALITY AS lane (queue, priority, floor, first, place)"""
_ANEW: LiteralString = f"""
    (SELECT queue, priority, '-infinity'::timestamptz AS floor, '{_NO_ID}'::uuid AS first {_IN_ORDER}) AS lane"""

# Which completions applied is told only when not all did. Times go as seconds since 1970, which the client reads five
# times as fast; up to the year 2242 a float has room for the microseconds.
_APPLIED: LiteralString = (
    "(SELECT CASE WHEN count(*) < %(sent)s THEN coalesce(array_agg(id::text), '{}') END FROM done)"
)
_STANDS: LiteralString = f"(SELECT count(*) FROM standing), (SELECT count(*) FROM found), date_part('epoch', {_NOW})"
_ROWS: LiteralString = "lent.* FROM (SELECT 1) AS once LEFT JOIN lent ON true"

CLAIM: LiteralString = f"WITH {_lent(_KNOWN)} SELECT NULL::text[], {_STANDS}, {_ROWS}"
# Where no lanes are known they are read in the same round trip.
CLAIM_ANEW: LiteralString = f"WITH RECURSIVE {_LANES}, {_lent(_ANEW)} SELECT NULL::text[], {_STANDS}, {_ROWS}"


class Settling(NamedTuple):
    """Completions: alone, before a claim, and before one that reads the lanes."""

    alone: LiteralString
    and_claim: LiteralString
    and_claim_anew: LiteralString


def _settling(done: LiteralString) -> Settling:
    return Settling(
        alone=f"WITH {done} SELECT {_APPLIED}",
        and_claim=f"WITH {done}, {_lent(_KNOWN)} SELECT {_APPLIED}, {_STANDS}, {_ROWS}",
        and_claim_anew=f"WITH RECURSIVE {_LANES}, {done}, {_lent(_ANEW)} SELECT {_APPLIED}, {_STANDS}, {_ROWS}",
    )


IN_PLACE = _settling(_COMPLETED)
INTO_ARCHIVE = _settling(_ARCHIVED)

NOTIFY: LiteralString = """
SELECT set_config('synchronous_commit', 'off', true), pg_notify(%(channel)s, name)
FROM unnest(%(queues)s::text[]) AS name
"""

QUEUES_OF: LiteralString = "SELECT DISTINCT queue FROM @jobs WHERE id = ANY (%(ids)s::uuid[])"
