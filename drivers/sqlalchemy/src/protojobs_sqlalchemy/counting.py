"""The counters of finished jobs, kept in the very step that finishes or removes them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from sqlalchemy import Connection

from protojobs_sqlalchemy.tables import COUNTER_SHARDS, counters
from protojobs_sqlalchemy.upserts import insert_or_change

__all__ = ["Deltas", "count", "lone_shard", "shard_of"]

Deltas = Mapping[tuple[str, str], int]  # (queue, status) -> how many more

# Many, since such a row stays locked until the caller's commit; and where transactions read from snapshots (MariaDB's
# default), one that began earlier cannot count in it even after that. The sum of 8,000 rows takes a few milliseconds.
_LONE_SHARDS = 8_000


def shard_of(worker: str) -> int:
    """The row that this worker counts in, so that workers seldom wait for each other's."""
    return zlib.crc32(worker.encode()) % COUNTER_SHARDS


def lone_shard(job_id: str) -> int:
    """A row for a count inside a caller's transaction, which may stay open: no worker shall wait for it."""
    return COUNTER_SHARDS + zlib.crc32(job_id.encode()) % _LONE_SHARDS


def count(conn: Connection, deltas: Deltas, shard: int = 0) -> None:
    """Add `deltas` to the counters. In one order everywhere, so that two steps never wait for each other."""
    rows = [
        {"queue": queue, "status": status, "shard": shard, "count": delta}
        for (queue, status), delta in sorted(deltas.items())
        if delta
    ]
    if rows:
        conn.execute(insert_or_change(conn, counters, lambda new: {"count": counters.c.count + new["count"]}), rows)
