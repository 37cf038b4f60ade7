"""Failed jobs grouped by what they failed of: the groups are found by a jump from each fingerprint to the next."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from sqlalchemy import Connection, TextualSelect, text

from protojobs.port.observing import FailureGroup
from protojobs_sqlalchemy.dialect import Dialect, FailedAlike
from protojobs_sqlalchemy.inspecting.failures import get_failed
from protojobs_sqlalchemy.tables.naming import Names
from protojobs_sqlalchemy.tables.tables import STORES_MAX
from protojobs_sqlalchemy.tables.types import StoredId, StoredTime

__all__ = ["GROUPS_MAX", "groups", "walked_groups"]

GROUPS_MAX = 1_000  # that one call looks at

_ALIKE = "FROM @failed_jobs WHERE @failed_jobs.fingerprint = alike.fingerprint"
_FIRST_AT = f"(SELECT min(failed_at) {_ALIKE})"
_JUMP = f"""
WITH RECURSIVE alike (fingerprint, place) AS (
    SELECT min(fingerprint), 1 FROM @failed_jobs
    UNION ALL
    SELECT (SELECT min(fingerprint) FROM @failed_jobs WHERE fingerprint > alike.fingerprint), place + 1
    FROM alike WHERE fingerprint IS NOT NULL AND place < {GROUPS_MAX}
), latest AS (
    SELECT fingerprint, (SELECT max(failed_at) {_ALIKE}) AS last_at FROM alike WHERE fingerprint IS NOT NULL
    ORDER BY last_at DESC LIMIT :groups
)
SELECT fingerprint, {{first_at}} AS first_at,
       (SELECT id {_ALIKE} ORDER BY failed_at DESC, id DESC LIMIT 1) AS last_id,
       (SELECT count(*) FROM (SELECT 1 {_ALIKE} LIMIT :counted) AS few) AS number
FROM latest AS alike
"""


def groups(
    conn: Connection, dialect: Dialect, limit: int, counted_max: int, chars_max: int | None
) -> list[FailureGroup]:
    """The groups, the one that failed last first; in two statements, or a few more on MariaDB and MySQL."""
    alike = dialect.failed_alike(conn, {"groups": min(limit, GROUPS_MAX), "counted": counted_max + 1})
    last = {failure.id: failure for failure in get_failed(conn, dialect, [each.last_id for each in alike], chars_max)}
    alike.sort(key=lambda group: (last[group.last_id].failed_at, group.last_id), reverse=True)
    return [
        FailureGroup(
            fingerprint=group.fingerprint,
            count=min(group.number, counted_max),
            first_failed_at=group.first_at,
            last=last[group.last_id],
            is_capped=group.number > counted_max,
        )
        for group in alike
    ]


@lru_cache(maxsize=STORES_MAX)
def _jump(names: Names, first_at: str) -> TextualSelect:
    return text(names.sql(_JUMP.format(first_at=first_at))).columns(first_at=StoredTime, last_id=StoredId)


def walked_groups(conn: Connection, dialect: Dialect, values: Mapping[str, int]) -> list[FailedAlike]:
    """What `Dialect.failed_alike` asks for, by one recursive statement."""
    rows = conn.execute(_jump(dialect.names, dialect.readable_time(_FIRST_AT)), values)
    return [FailedAlike(row.fingerprint, row.first_at, row.last_id, row.number) for row in rows]
