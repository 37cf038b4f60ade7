"""The counters of finished jobs, kept in the very step that finishes or removes them."""

from __future__ import annotations

import itertools
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping

from sqlalchemy import Column, Connection, Select, Table, delete, func, select, tuple_

from protojobs.clock import SYSTEM_CLOCK
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.tables.tables import COUNTER_SHARDS

__all__ = ["DAY_SHARDS", "Deltas", "count", "fresh_shard", "gather", "lone_shard", "shard_of"]

Deltas = Mapping[tuple[str, str], int]  # (queue, status) -> how many more

# Many, since such a row stays locked until the caller's commit; and where transactions read from snapshots (MariaDB's
# default), one that began earlier cannot count in it even after that. The sum of 8,000 rows takes a few milliseconds.
_LONE_SHARDS = 8_000
_SHARDS_END = COUNTER_SHARDS + _LONE_SHARDS  # behind it come those of archived days
# A shard of archived jobs is this times the number of their day, plus a shard as elsewhere; day 0 is `jobs` itself.
DAY_SHARDS = 10_000
_FRESH_S = 10.0
_GATHERED_MAX = 1_000  # counters that one prune sums up: 60 ms of SQLite's only write lock
_NUMBER = "protojobs_counting"  # in the `info` of a connection
_numbers = itertools.count()
_Key = tuple[str, str, int]


def shard_of(conn: Connection, worker: str) -> int:
    """The row that this worker counts in over this connection.

    So workers seldom wait for each other's commit, and one that has two steps in flight not for its own.
    """
    return (zlib.crc32(worker.encode()) + _number_of(conn)) % COUNTER_SHARDS


def fresh_shard(conn: Connection, worker: str) -> int:
    """A row that it counts in for some seconds, where an old snapshot keeps all versions of a row.

    One that is counted in turn by turn would take longer with each. `gather` sums them up.
    """
    period = int(SYSTEM_CLOCK.monotonic() // _FRESH_S)
    return COUNTER_SHARDS + zlib.crc32(f"{worker} {_number_of(conn)} {period}".encode()) % _LONE_SHARDS


def _number_of(conn: Connection) -> int:
    """Of this connection among those of the process that have counted; they are numbered as they come."""
    number = conn.info.get(_NUMBER)
    if number is None:
        number = conn.info[_NUMBER] = next(_numbers)
    return int(number)


def lone_shard(job_id: str) -> int:
    """A row for a count inside a caller's transaction, which may stay open: no worker shall wait for it."""
    return COUNTER_SHARDS + zlib.crc32(job_id.encode()) % _LONE_SHARDS


def count(conn: Connection, dialect: Dialect, deltas: Deltas, shard: int = 0) -> None:
    """Add `deltas` to the counters. In one order everywhere, so that two steps never wait for each other."""
    counters = dialect.tables.counters
    rows = [
        {"queue": queue, "status": status, "shard": shard, "count": delta}
        for (queue, status), delta in sorted(deltas.items())
        if delta
    ]
    if rows:
        conn.execute(dialect.insert_or_change(counters, lambda new: {"count": counters.c.count + new["count"]}), rows)


def gather(conn: Connection, dialect: Dialect) -> None:
    """Sum up the rows that single completions have made, and forget counters that have come to nothing.

    Rows that somebody has locked are passed over, so nobody waits.
    """
    counters = dialect.tables.counters
    lone = (
        select(*_key(counters))
        .where(counters.c.shard >= COUNTER_SHARDS, counters.c.shard < _SHARDS_END)
        .limit(_GATHERED_MAX)
    )
    counted = _locked(conn, counters, lone)
    if counted:
        conn.execute(delete(counters).where(tuple_(*_key(counters)).in_(counted)))
        sums = Counter[tuple[str, str]]()
        for (queue, status, _), number in counted.items():
            sums[queue, status] += number
        count(conn, dialect, sums)
    if len(counted) < _GATHERED_MAX:
        _forget_naught(conn, counters)


def _forget_naught(conn: Connection, counters: Table) -> None:
    is_of_no_day = counters.c.shard < _SHARDS_END
    counter = tuple_(counters.c.queue, counters.c.status)
    empty = select(counters.c.queue, counters.c.status, func.count().label("rows")).where(is_of_no_day)
    empty = empty.group_by(*counter).having(func.sum(counters.c.count) == 0).limit(_GATHERED_MAX // COUNTER_SHARDS)
    rows = {(queue, status): number for queue, status, number in conn.execute(empty)}
    if not rows:
        return
    shards: defaultdict[tuple[str, str], dict[_Key, int]] = defaultdict(dict)
    for key, number in _locked(conn, counters, select(*_key(counters)).where(is_of_no_day, counter.in_(rows))).items():
        shards[key[:2]][key] = number
    # Of some of them others may hold a row, or have counted in one since.
    naught = [key for name, of in shards.items() if len(of) == rows[name] and not sum(of.values()) for key in of]
    if naught:
        conn.execute(delete(counters).where(tuple_(*_key(counters)).in_(naught)))


def _key(counters: Table) -> tuple[Column[str], Column[str], Column[int]]:
    return counters.c.queue, counters.c.status, counters.c.shard


def _locked(conn: Connection, counters: Table, which: Select[str, str, int]) -> dict[_Key, int]:
    """The counters of these keys that nobody holds, now locked. Found first: who walks locks what he walks over."""
    keys = [tuple(row) for row in conn.execute(which)]
    if not keys:
        return {}
    key = _key(counters)
    query = select(*key, counters.c.count).where(tuple_(*key).in_(keys)).with_for_update(skip_locked=True)
    return {(queue, status, shard): number for queue, status, shard, number in conn.execute(query)}
